//! A memory dump of hyp on QEMU, with hyp's ELF file, says what the machine says.

use inspector::model::System;
use inspector::session::Opener;
use std::path::Path;
use std::time::Duration;

const PATIENT: Duration = fixtures::LIMIT;

fn capture(target: &str, image: &Path) -> System {
    let opener = Opener {
        target: target.to_owned(),
        images: vec![image.to_owned()],
        timeout: PATIENT,
    };
    let mut session = opener.open().unwrap();
    session.capture().unwrap()
}

#[test]
fn a_dump_of_hyp_says_what_the_machine_says() {
    let mut machine = fixtures::Boot::hyp().unwrap().cpus(2).start().unwrap();
    machine.wait_for("host: round 1 done", PATIENT).unwrap();
    machine.stop().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump");
    machine.dump(&file, None).unwrap();

    let image = &machine.image().hyp;
    let live = capture(machine.gdb(), image);
    let dumped = capture(file.to_str().unwrap(), image);
    assert_eq!(dumped.problems, live.problems);
    assert_eq!(dumped.complete, live.complete);
    assert_eq!(dumped.hypervisor, live.hypervisor);
    assert_eq!(dumped.regimes, live.regimes);
    assert_eq!(dumped.owners, live.owners);
    assert_eq!(dumped.locks, live.locks);
    assert_eq!(dumped.pools, live.pools);
    assert!(!dumped.regimes.is_empty() && dumped.cpus.len() == 2);
    for (dumped, live) in dumped.cpus.iter().zip(&live.cpus) {
        assert_eq!((dumped.el, dumped.pc), (live.el, live.pc));
        assert_eq!(dumped.calls, live.calls);
        assert!(!live.calls.is_empty(), "{live:?}");
        assert_eq!(dumped.registers.get("VTTBR_EL2"), None);
        for number in 0..=30 {
            let name = format!("x{number}");
            assert_eq!(dumped.registers.get(&name), live.registers.get(&name));
        }
    }
}
