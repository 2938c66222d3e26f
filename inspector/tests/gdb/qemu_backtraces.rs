//! EL2's calls beside those that gdb finds, which unwinds by hyp's call frame information.

use inspector::hypervisor;
use inspector::image::Images;
use inspector::target::{self, Breakpoint, RunControl, RunState, Target};
use object::{Object, ObjectSymbol};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PATIENT: Duration = Duration::from_secs(60);
/// Steps from the handler's first instruction on: through its record being put on the stack, into functions with and without one of
/// their own, and out of them again.
const STEPS: [usize; 10] = [0, 1, 2, 3, 25, 40, 55, 90, 150, 220];

fn run(target: &mut dyn Target) -> &mut dyn RunControl {
    target.run_control().expect("a machine")
}

/// The addresses to return to, from the innermost one up to the entry's.
fn theirs(hyp: &Path, socket: &str) -> Vec<u64> {
    let output = Command::new("gdb-multiarch")
        .args(["-nx", "-batch"])
        .arg(hyp)
        .args([
            "-ex",
            &format!("target remote {socket}"),
            "-ex",
            "bt",
            "-ex",
            "disconnect",
        ])
        .env("LC_ALL", "C")
        .output()
        .expect("gdb-multiarch is missing: install it (`cargo fixtures setup` does)");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("<signal handler called>"),
        "{text}\n{output:?}"
    );
    let frames = text.lines().filter(|line| line.starts_with('#'));
    let own = frames.take_while(|line| !line.contains("<signal handler called>"));
    // What is inlined has no address, nor has the first frame where a line begins.
    let address = |line: &str| {
        let digits = line.split_whitespace().nth(1)?.strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok()
    };
    own.skip(1).filter_map(address).collect()
}

#[test]
fn calls_are_those_that_gdb_finds() {
    let mut machine = fixtures::Boot::hyp().unwrap().cpus(1).start().unwrap();
    machine.wait_for("round 2 done", PATIENT).unwrap();
    let hyp = machine.image().hyp.clone();
    let elf = std::fs::read(&hyp).unwrap();
    let elf = object::File::parse(elf.as_slice()).unwrap();
    let is_it = |name: &str| name.contains("abort") && name.contains("handle_host_mem_abort");
    let handler = elf.symbols().find(|symbol| symbol.name().is_ok_and(is_it));
    let handler = Breakpoint::Code(handler.expect("it is no inlined one").address());
    let mut images = Images::open(std::slice::from_ref(&hyp)).unwrap();
    let socket = machine.gdb().trim_start_matches("unix:").to_owned();
    // Whoever connects stops the machine, which then stands when he is gone without a word.
    let mut first = UnixStream::connect(&socket).unwrap();
    first.read_exact(&mut [0]).unwrap();
    drop(first);
    for steps in STEPS {
        let mut target = target::open(machine.gdb(), PATIENT).unwrap();
        let control = run(target.as_mut());
        control.insert(handler).unwrap().expect("there is room");
        control.resume().unwrap();
        let state = control.wait(PATIENT).unwrap();
        assert!(matches!(state, RunState::Stopped { .. }), "{state:?}");
        control.remove(handler).unwrap();
        for _ in 0..steps {
            control.step(0).unwrap();
        }
        let system = hypervisor::capture(target.as_mut(), &mut images).unwrap();
        let calls = system.cpus[0].calls.iter();
        let calls = calls.take_while(|frame| !frame.interrupted);
        let mut ours: Vec<_> = calls.map(|frame| frame.pc).collect();
        // gdb calls the entry from the host a signal handler.
        ours.pop();
        drop(target);
        assert_eq!(
            ours,
            theirs(&hyp, &socket),
            "after {steps} steps: {:?}",
            system.cpus[0].symbol
        );
    }
}
