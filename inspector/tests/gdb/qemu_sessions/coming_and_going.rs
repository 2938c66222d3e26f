//! Attaching, leaving, and being killed.

use super::session::{Session, assert_says, number, session};
use super::{Bench, CPUS, ROUNDS};

pub(crate) fn clients_come_and_go(mut bench: Bench) {
    stays_and_leaves(&mut bench);
    is_killed_while_the_machine_runs(&mut bench);
    is_killed_while_it_stands(&mut bench);
}

/// Every way to leave leaves the machine running, but the one that has it wait for another debugger.
fn stays_and_leaves(bench: &mut Bench) {
    for (farewell, answer) in [("detach", "detached]"), ("kill", "killed]")] {
        let [threads, rounds, left] = session(&bench.machine, ["info threads", ROUNDS, farewell]);
        for cpu in 0..CPUS {
            let name = format!("  Thread 1.{} (CPU {cpu} EL", cpu + 1);
            assert_says(&threads, &[&name]);
        }
        assert_eq!(threads.matches("(CPU ").count(), CPUS);
        assert_says(&left, &[answer]);
        bench.goes_on(number(&rounds));
    }
    let [before, _] = session(&bench.machine, [ROUNDS, "disconnect"]);
    // It ends without another word.
    let [after] = session(&bench.machine, [ROUNDS]);
    assert_eq!(before, after);
    bench.goes_on(number(&after));
}

/// Its breakpoints, which the host meets in every round, are gone with it.
fn is_killed_while_the_machine_runs(bench: &mut Bench) {
    let mut gdb = Session::start(
        &bench.machine,
        &[
            ROUNDS,
            "break hyp_host::rounds::report if 0",
            "hbreak hyp_host::rounds::refuse if 0",
            "watch hyp_host::rounds::HOST.rounds if 0",
            "continue",
        ],
    );
    let said = gdb.wait_for_command(4);
    // It runs, with all of them set.
    bench.goes_on(number(&said[0]));
    gdb.kill();
    expect_no_breakpoints(bench);
}

fn is_killed_while_it_stands(bench: &mut Bench) {
    let mut gdb = Session::start(
        &bench.machine,
        &[
            "break hyp_host::rounds::report",
            "hbreak hyp_host::rounds::refuse",
            "watch hyp_host::rounds::HOST.rounds",
            "continue",
            // Waits.
            "source /dev/stdin",
        ],
    );
    gdb.wait_for_command(4);
    gdb.kill();
    expect_no_breakpoints(bench);
}

fn expect_no_breakpoints(bench: &mut Bench) {
    let [place, _, rounds] = session(
        &bench.machine,
        ["info line hyp_host::rounds::report", "x/wx $_", ROUNDS],
    );
    bench.goes_on(number(&rounds));
    let [again, instruction] = session(
        &bench.machine,
        ["info line hyp_host::rounds::report", "x/wx $_"],
    );
    assert_eq!(place, again);
    let address = instruction.split_whitespace().next();
    let address = address.map(number).expect("an address");
    assert_eq!(number(&instruction) as u32, bench.host.instruction(address));
}
