//! Clients that are there while CPUs come up.

use crate::debuggee::{Debuggee, LIMIT, Session, cpu_of};
use fixtures::qemu::{Boot, Cpu};
use std::thread;
use std::time::{Duration, Instant};

fn paused(cpu: Cpu, cpus: u32) -> Debuggee {
    let boot = Boot::hyp().expect("the image builds").cpu(cpu).paused();
    Debuggee::early(boot, cpus)
}

/// Lets the machine run on by itself: all of its host comes up.
fn leave(mut session: Session<'_>) {
    session.client.order("D");
}

/// Stops the machine, which runs as `resume` says, again and again until all CPUs stand.
fn stop_until_all_are_up(session: &mut Session<'_>, cpus: u64, resume: &str) {
    let deadline = Instant::now() + LIMIT;
    let mut up = 0;
    while up < cpus {
        assert!(Instant::now() < deadline, "only {up} CPUs came up");
        session.client.send(resume);
        thread::sleep(Duration::from_micros(200));
        session.interrupt();
        let standing = (0..cpus).filter(|cpu| session.registers(*cpu).is_some());
        let standing = standing.count() as u64;
        assert!(standing >= up, "of {up} CPUs only {standing} stand");
        up = standing;
    }
}

#[test]
fn qemu_a_client_that_was_there_first_sees_each_cpu_come_up() {
    for (cpu, cpus) in [(Cpu::CortexA57, 4), (Cpu::NeoverseN1, 2), (Cpu::Max, 8)] {
        let mut debuggee = paused(cpu, cpus);
        let mut session = debuggee.attach_first();
        let (start, _) = debuggee.functions("host_start")[0];
        let first = session.registers(0).map(|cpu| (cpu.el, cpu.pc));
        assert_eq!(first, Some((1, start)), "before the host has done anything");
        for cpu in 1..debuggee.cpus {
            assert!(session.registers(cpu).is_none(), "CPU {cpu} is not up");
        }
        // Of all CPUs only one is to run that is off: Ctrl-C helps out of that, too, also when all have gone to sleep.
        session.client.send("vCont;c:2");
        thread::sleep(Duration::from_millis(50));
        session.interrupt();
        stop_until_all_are_up(&mut session, debuggee.cpus, "vCont;c");
        leave(session);
        debuggee.wait_for_rounds(2);
    }
}

#[test]
fn qemu_a_cpu_stops_where_it_comes_up() {
    let mut debuggee = paused(Cpu::CortexA57, 4);
    let mut session = debuggee.attach_first();
    let [main, print] = [
        "secondary_main",
        "uart::Uart as core::fmt::Write>::write_str",
    ]
    .map(|name| debuggee.functions(name)[0].0);

    // In its first function, where it has no host yet and its interrupts are not set up.
    session.client.order(&format!("Z0,{main:x},4"));
    session.resume();
    let cpu = cpu_of(&session.client.stop());
    session.client.order(&format!("z0,{main:x},4"));
    assert_eq!(session.registers(cpu).map(|cpu| cpu.pc), Some(main));
    session.client.send(&format!("vCont;s:{:x}", cpu + 1));
    assert_eq!(cpu_of(&session.client.stop()), cpu);
    assert_eq!(session.registers(cpu).map(|cpu| cpu.pc), Some(main + 4));

    // While it prints under the console's lock, for which the others then wait: they can be stopped there, too.
    session.client.order(&format!("Z0,{print:x},4"));
    session.resume();
    let printing = cpu_of(&session.client.stop());
    session.client.order(&format!("z0,{print:x},4"));
    let others = (0..4).filter(|cpu| *cpu != printing);
    let run: String = others.map(|cpu| format!(";c:{:x}", cpu + 1)).collect();
    stop_until_all_are_up(&mut session, 4, &format!("vCont{run}"));
    let locks = session.monitor("locks");
    let console = locks.lines().find(|line| line.starts_with("console"));
    let holder = format!("by CPU {printing} ");
    assert!(
        console.is_some_and(|line| line.contains(&holder)),
        "{locks}"
    );
    let (start, size) = debuggee.functions("secondary_main")[0];
    for cpu in (1..4).filter(|cpu| *cpu != printing) {
        let registers = session.registers(cpu).expect("it stands");
        let calls = session.calls(&registers);
        assert!(
            registers.el == 1 || calls.iter().any(|at| (start..start + size).contains(at)),
            "CPU {cpu}: {calls:x?}"
        );
    }
    leave(session);
    debuggee.wait_for_rounds(2);
}
