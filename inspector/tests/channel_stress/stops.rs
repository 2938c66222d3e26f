//! Stops and continues: each stops every CPU, and nothing gets lost.

use crate::debuggee::{Counters, Debuggee, LIMIT, Session};
use fixtures::qemu::{Boot, Cpu};
use std::thread;
use std::time::{Duration, Instant};

/// So many stops apart, the host must have come further.
const WINDOW: usize = 50;

/// Stops CPUs that contend all the time, and lets them go on, as often as that; then has the host go on alone.
fn stop_and_continue(cpu: Cpu, cpus: u32, stops: usize) {
    let boot = Boot::hyp().expect("the image builds").cpu(cpu);
    let mut debuggee = Debuggee::start(boot, cpus);
    let mut session = debuggee.attach();
    session.set_pace(0);
    let mut last = session.counters();
    let mut rounds = last.rounds;
    for stop in 1..=stops {
        // What a client does meanwhile is of any length.
        let pause = Duration::from_micros(stop as u64 * 7919 % 3001);
        let counters = run(&mut session, pause);
        assert!(counters.follow(&last), "{counters:?} after {last:?}");
        last = counters;
        if stop % WINDOW == 0 {
            // All CPUs meet twice a round, so all of them came further.
            rounds = run_on(&mut session, rounds);
        }
    }
    session.set_pace(4);
    session.client.order("D");
    debuggee.wait_for_rounds(rounds + 2);
}

/// Lets CPUs run for as long as that, and stops them.
fn run(session: &mut Session<'_>, time: Duration) -> Counters {
    session.resume();
    thread::sleep(time);
    let stop = session.interrupt();
    assert!(stop.starts_with("T02"), "{stop}");
    let registers = session.all_registers();
    assert!(registers.iter().all(|cpu| matches!(cpu.el, 1 | 2)));
    session.counters()
}

/// Lets CPUs run until the host has done more than `before` rounds, and returns how many.
pub(crate) fn run_on(session: &mut Session<'_>, before: u64) -> u64 {
    let deadline = Instant::now() + LIMIT;
    let mut time = Duration::ZERO;
    loop {
        let rounds = session.counters().rounds;
        if rounds > before {
            return rounds;
        }
        assert!(
            Instant::now() < deadline,
            "the host is stuck in round {before}"
        );
        time += Duration::from_millis(10);
        run(session, time);
    }
}

#[test]
fn qemu_a_thousand_stops_lose_nothing() {
    stop_and_continue(Cpu::CortexA57, 4, 1000);
}

#[test]
fn qemu_stops_of_one_cpu_lose_nothing() {
    stop_and_continue(Cpu::NeoverseN1, 1, 200);
}

#[test]
fn qemu_stops_of_eight_cpus_lose_nothing() {
    stop_and_continue(Cpu::Max, 8, 50);
}
