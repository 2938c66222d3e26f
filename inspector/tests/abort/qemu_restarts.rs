//! A machine that is not what it was when it was armed.

use crate::qemu_hyp::{LIMIT, arguments, working};
use crate::qemu_leaving::{goes_on, start};
use crate::run::succeed;
use fixtures::qemu::Boot;

#[test]
fn a_machine_that_restarts_is_one_sentence_and_is_followed_anew() {
    let mut machine = working(&Boot::hyp().expect("the image builds").cpus(2));
    let gdb = machine.gdb().to_owned();
    // What never comes.
    let never = ["abort", "--ipa", "0x1000..0x2000"];
    let child = start(&arguments(&machine, &gdb, &never));
    goes_on(&mut machine);
    machine.reset().expect("QEMU restarts it");
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("the machine has restarted"), "{errors}");
    // It ran, and runs; nothing is armed.
    machine.wait_for("round 2 done", LIMIT).expect("it boots");
    goes_on(&mut machine);
    let story = succeed(arguments(&machine, &gdb, &["abort"])).json();
    assert_eq!(story["aborts"].as_array().map(Vec::len), Some(1));
}
