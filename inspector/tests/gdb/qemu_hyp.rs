//! A snapshot of hyp on QEMU, opened by gdb with hyp's own symbols.

use inspector::addr::Span;
use inspector::target::{self, ReadError, Recorder, Target, snapshot};
use object::{Object, ObjectSymbol};
use std::process::Command;
use std::time::Duration;

const PATIENT: Duration = fixtures::LIMIT;
/// PA − VA of hyp's linear map.
const PHYSVIRT_OFFSET: u64 = 0_u64.wrapping_sub(0x40_0000_0000);

#[test]
fn gdb_reads_hyps_data_by_symbol_from_a_snapshot() {
    let mut machine = fixtures::Boot::hyp().unwrap().cpus(2).start().unwrap();
    machine.wait_for("host stage 2 on", PATIENT).unwrap();
    let elf = std::fs::read(&machine.image().hyp).unwrap();
    let elf = object::File::parse(elf.as_slice()).unwrap();
    let hyp = elf
        .symbols()
        .find(|symbol| symbol.name() == Ok("HYP"))
        .unwrap();
    let span = Span::new(hyp.address().wrapping_add(PHYSVIRT_OFFSET), hyp.size());

    let mut live = target::open(machine.gdb(), PATIENT).unwrap();
    let mut recorder = Recorder::new(live.as_mut());
    let bytes: Vec<u8> = recorder.read_phys(&[span]).unwrap().remove(0).unwrap();
    let mut contents = recorder.finish().unwrap();
    contents.physvirt_offset = Some(PHYSVIRT_OFFSET);
    let folder = tempfile::tempdir().unwrap();
    let core = folder.path().join("hyp.core");
    snapshot::write(&core, &contents).unwrap();

    let word = u64::from_le_bytes(*bytes.last_chunk().unwrap());
    assert_ne!(bytes, vec![0; bytes.len()], "hyp's variable is still empty");
    let output = Command::new("gdb-multiarch")
        .args(["-nx", "-batch"])
        .arg(&machine.image().hyp)
        .arg(format!("--core={}", core.display()))
        .args(["-ex", "set language c", "-ex", "info threads"])
        .args(["-ex", "print/x $pc", "-ex"])
        // Not through `char *`: where the CPU stands in Rust code, gdb takes Rust's `char` of four bytes.
        .arg(format!(
            "print/x *(unsigned long *)((unsigned long)&HYP + {})",
            hyp.size() - 8
        ))
        .env("LC_ALL", "C")
        .output()
        .expect("gdb-multiarch is missing: install it (`cargo fixtures setup` does)");
    let text = String::from_utf8_lossy(&output.stdout);
    let pc = contents.registers[0].get("pc").unwrap();
    for says in [
        "LWP 1",
        "LWP 2",
        &format!("$1 = {pc:#x}"),
        &format!("$2 = {word:#x}"),
    ] {
        assert!(
            text.contains(says),
            "{says} is missing in:\n{text}\n{output:?}"
        );
    }

    // What is no RAM stays so, live and saved.
    let mut saved = target::open(core.to_str().unwrap(), PATIENT).unwrap();
    let device = Span::new(0x900_0000, 4);
    for target in [live.as_mut(), saved.as_mut()] {
        assert_eq!(
            target.read_phys(&[device]).unwrap(),
            [Err(ReadError::Unbacked(device))]
        );
    }
}
