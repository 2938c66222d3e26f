//! Stops and continues: each stops every CPU, and nothing gets lost.

use crate::debuggee::{Counters, Debuggee, Session, cpu_of};
use crate::steps::read_in_host;
use fixtures::qemu::{Boot, Cpu};
use std::thread;
use std::time::Duration;

/// So many stops apart, the host must have come further.
const WINDOW: usize = 50;

/// Stops CPUs that contend all the time, and lets them go on, as often as that; then has the host go on alone.
fn stop_and_continue(boot: Boot, cpus: u32, stops: usize) {
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
    for cpu in 0..debuggee.cpus {
        // ICC_IGRPEN1_EL1: while CPUs stand, the host's interrupts are kept from them.
        const MRS: u32 = 0xd538_cce1;
        assert_eq!(read_in_host(&mut session, cpu, MRS), 1, "CPU {cpu}");
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
    session.run_until("another round of the host", |session| {
        Some(session.counters().rounds).filter(|rounds| *rounds > before)
    })
}

fn boot(cpu: Cpu) -> Boot {
    Boot::hyp().expect("the image builds").cpu(cpu)
}

#[test]
fn qemu_a_thousand_stops_lose_nothing() {
    stop_and_continue(boot(Cpu::CortexA57), 4, 1000);
}

#[test]
fn qemu_stops_of_one_cpu_lose_nothing() {
    stop_and_continue(boot(Cpu::NeoverseN1), 1, 200);
}

#[test]
fn qemu_stops_of_eight_cpus_lose_nothing() {
    stop_and_continue(boot(Cpu::Max), 8, 50);
}

#[test]
fn qemu_stops_over_the_modern_transport_lose_nothing() {
    stop_and_continue(boot(Cpu::CortexA57).modern(), 2, 50);
}

/// One CPU steps through code while others run into a breakpoint.
fn step_beside_breakpoints(cpu: Cpu) {
    let mut debuggee = Debuggee::start(boot(cpu), 4);
    let mut session = debuggee.attach();
    session.set_pace(0);
    let [share, order] = ["Hyp>::pkvm_host_share_hyp", "Hyp>::check_order"]
        .map(|name| debuggee.functions(name)[0].0);
    session.client.order(&format!("Z0,{share:x},4"));
    session.resume();
    let stepping = cpu_of(&session.client.stop());
    session.client.order(&format!("z0,{share:x},4"));
    let mut before = share;
    let (mut steps, mut breaks) = (0, 0);
    while steps < 100 {
        session.client.order(&format!("Z0,{order:x},4"));
        session
            .client
            .send(&format!("vCont;s:{:x};c", stepping + 1));
        let stop = session.client.stop();
        session.client.order(&format!("z0,{order:x},4"));
        let cpu = cpu_of(&stop);
        let registers = session.all_registers();
        let pc = |cpu: u64| registers[cpu as usize].pc;
        if stop.contains("swbreak") {
            assert_eq!(pc(cpu), order, "{stop}");
            breaks += 1;
        } else {
            assert!(stop.starts_with("T05") && cpu == stepping, "{stop}");
            assert_ne!(pc(stepping), before);
            steps += 1;
        }
        if pc(stepping) == order {
            // It is its turn to get out of the way.
            session.client.send(&format!("vCont;s:{:x}", stepping + 1));
            session.client.stop();
        }
        before = session.registers(stepping).expect("it stands").pc;
    }
    assert!(breaks > 0, "no other CPU got there");
    session.set_pace(4);
    let rounds = session.counters().rounds;
    session.client.order("D");
    drop(session);
    debuggee.wait_for_rounds(rounds + 2);
}

#[test]
fn qemu_a_cpu_steps_while_others_meet_breakpoints() {
    for cpu in [Cpu::CortexA57, Cpu::NeoverseN1, Cpu::Max] {
        step_beside_breakpoints(cpu);
    }
}
