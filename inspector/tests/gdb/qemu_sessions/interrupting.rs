//! Ctrl-C, whatever CPUs do.

use super::program::{MSR_CNTV_TVAL, WFI};
use super::session::{HIDE_PACKETS, RESUMED, SHOW_PACKETS, Session, assert_says, number, said};
use super::{Bench, CPUS, ROUND_ENDS, ROUNDS};

/// PSTATE.I.
const MASKED: u64 = 1 << 7;

pub(crate) fn ctrl_c_stops_every_cpu(mut bench: Bench) {
    while_one_sleeps_with_its_interrupts_masked(&mut bench);
    while_they_wait_for_a_lock(&mut bench);
}

/// Its timer is set so far ahead that it sleeps in earnest.
fn while_one_sleeps_with_its_interrupts_masked(bench: &mut Bench) {
    let timer = bench.host.find(MSR_CNTV_TVAL, bench.host.begin());
    let ticks = bench.host.instruction(timer) & 0x1f;
    let sleep = bench.host.find(WFI, timer);
    let [at_timer, at_sleep] = [timer, sleep].map(|place| format!("tbreak *{place:#x}"));
    let mut gdb = Session::start(
        &bench.machine,
        &[
            &at_timer,
            "continue",
            "set $sleeper = $_thread",
            &format!("set var $x{ticks} = 0x7fffffff"),
            "set scheduler-locking on",
            &at_sleep,
            "continue",
            "set scheduler-locking off",
            SHOW_PACKETS,
            "continue",
            HIDE_PACKETS,
            "info threads",
            "thread $sleeper",
            "output/x $pc",
            "output/x $cpsr",
            &format!("set var $pc = {timer:#x}"),
            &format!("set var $x{ticks} = 1"),
            ROUNDS,
        ],
    );
    gdb.wait_for_command(9);
    gdb.wait_for(RESUMED);
    gdb.interrupt();
    let [.., stop, _, threads, _, pc, pstate, _, _, rounds] = said::<18>(gdb);
    assert_says(&stop, &["received signal SIGINT"]);
    assert_eq!(threads.matches(" EL").count(), CPUS, "{threads}");
    // The loop begins with ISB, and ends with a look at the timer and a branch.
    assert!((sleep - 4..=sleep + 8).contains(&number(&pc)), "{pc}");
    assert_eq!(number(&pstate) & MASKED, MASKED);
    bench.goes_on(number(&rounds));
}

/// One CPU holds hyp's locks and turns in circles; the others wait for the first of them.
fn while_they_wait_for_a_lock(bench: &mut Bench) {
    let relax = "<hyp_image::cpu::ThisCpu as hyp::cpu::Cpu>::relax";
    let waits = format!("tbreak *{:#x}", bench.hyp.address(relax));
    let mut orders = vec![
        ROUND_ENDS,
        "continue",
        // The first in a round: all others are still to come.
        "tbreak hyp::init::Hyp::pkvm_create_mappings_locked if hyp_host::rounds::HOST.shared.v.value % 8 == 0",
        "continue",
        "set $holder = $_thread",
        "output $holder",
        "output/x $pc",
        "set scheduler-locking on",
        "set $waiter = $holder",
    ];
    for _ in 1..CPUS {
        orders.extend([
            "set $waiter = $waiter % 4 + 1",
            "thread $waiter",
            &waits,
            "continue",
        ]);
    }
    orders.extend([
        "thread $holder",
        "set scheduler-locking off",
        "set $instruction = *($pc as *mut u32)",
        // B to itself.
        "set var *($pc as *mut u32) = 0x14000000",
        SHOW_PACKETS,
        "continue",
    ]);
    let resumed = orders.len() - 1;
    orders.extend([
        HIDE_PACKETS,
        "monitor locks",
        "info threads",
        "thread $holder",
        "output/x $pc",
        "set var *($pc as *mut u32) = $instruction",
        ROUNDS,
    ]);
    let mut gdb = Session::start(&bench.machine, &orders);
    gdb.wait_for_command(resumed);
    gdb.wait_for(RESUMED);
    gdb.interrupt();
    let said = gdb.finish();
    let (before, after) = said.split_at(resumed);
    let [holder, place] = [number(&before[5]), number(&before[6])];
    let [stop, _, locks, threads, _, pc, _, rounds] = after else {
        panic!("{after:?}")
    };
    assert_says(stop, &["received signal SIGINT"]);
    let held = format!("held, waiters {}, by CPU {} at ", CPUS - 1, holder - 1);
    assert_says(locks, &["host ", &held, "hyp ", "held, waiters 0"]);
    assert_eq!(threads.matches(" EL2)").count(), CPUS, "{threads}");
    assert_eq!(number(pc), place);
    bench.goes_on(number(rounds));
}
