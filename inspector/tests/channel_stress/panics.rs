//! hyp's end: it stops every CPU, and a client finds them as they were.

use crate::client::Client;
use crate::debuggee::{Debuggee, LIMIT, Session, cpu_of};
use fixtures::qemu::{Boot, Cpu};

/// SIGABRT.
const ABORTED: &str = "T06";
/// PC, as the number of a register, and an address where nothing is.
const NOWHERE: &str = "P20=0010000000000000";

fn boot() -> Boot {
    Boot::hyp().expect("the image builds")
}

/// The client finds that hyp panicked on this CPU, with all CPUs standing, and that it does so whenever it goes on.
fn assert_panicked(debuggee: &Debuggee, session: &mut Session<'_>, cpu: u64) {
    let registers = session.all_registers();
    let calls = session.calls(&registers[cpu as usize]);
    for name in ["hyp_image::debugger::panicked", "unexpected_exception"] {
        let (start, size) = debuggee.functions(name)[0];
        assert!(
            calls.iter().any(|at| (start..start + size).contains(at)),
            "{name} is not in {calls:x?}"
        );
    }
    session.resume();
    let stop = session.client.stop();
    assert_eq!((&stop[..3], cpu_of(&stop)), (ABORTED, cpu));
}

/// Has one of the CPUs panic by the hand of QEMU's gdb server, which then is gone; returns which.
fn panic_by_qemu(debuggee: &Debuggee) -> u64 {
    let (place, _) = debuggee.functions("Hyp>::handle_host_mem_abort")[0];
    let mut qemu = Client::connect(debuggee.machine.gdb());
    // Registers have numbers only for those who know their names.
    qemu.ask("qXfer:features:read:target.xml:0,ffb");
    qemu.order(&format!("Z1,{place:x},4"));
    qemu.send("c");
    let cpu = cpu_of(&qemu.stop());
    qemu.order(&format!("z1,{place:x},4"));
    qemu.order(&format!("Hg{:x}", cpu + 1));
    qemu.order(NOWHERE);
    qemu.order("D");
    cpu
}

/// Has the first CPU that comes there go on where nothing is, with the others; returns which.
fn lead_astray(session: &mut Session<'_>, place: u64) -> u64 {
    session.client.order(&format!("Z0,{place:x},4"));
    session.resume();
    let cpu = cpu_of(&session.client.stop());
    session.client.order(&format!("z0,{place:x},4"));
    session.client.order(&format!("Hg{:x}", cpu + 1));
    session.client.order(NOWHERE);
    session.resume();
    cpu
}

#[test]
fn qemu_a_panic_that_nobody_saw_is_found_later() {
    for (model, cpus) in [(Cpu::CortexA57, 4), (Cpu::NeoverseN1, 1), (Cpu::Max, 8)] {
        let mut debuggee = Debuggee::start(boot().cpu(model), cpus);
        let cpu = panic_by_qemu(&debuggee);
        let end = debuggee.machine.wait_for("hyp: stopped", LIMIT);
        end.expect("hyp ends");
        let mut session = debuggee.attach();
        session.client.send("?");
        let stop = session.client.stop();
        assert_eq!((&stop[..3], cpu_of(&stop)), (ABORTED, cpu));
        assert_panicked(&debuggee, &mut session, cpu);
    }
}

#[test]
fn qemu_a_client_is_told_of_a_panic() {
    let mut debuggee = Debuggee::start(boot(), 4);
    let (place, _) = debuggee.functions("Hyp>::handle_host_mem_abort")[0];
    let mut session = debuggee.attach();
    let cpu = lead_astray(&mut session, place);
    let stop = session.client.stop();
    assert_eq!((&stop[..3], cpu_of(&stop)), (ABORTED, cpu));
    assert_panicked(&debuggee, &mut session, cpu);
    drop(session);
    let line = format!("hyp: PANIC on CPU {cpu}: synchronous exception at EL2");
    debuggee.machine.wait_for(&line, LIMIT).expect("a report");
}

/// What is printed is what the exception has left, not what the debugger's stop has.
#[test]
fn qemu_a_panic_that_is_stopped_reports_what_led_there() {
    let mut debuggee = Debuggee::start(boot(), 2);
    let [place, panic] =
        ["Hyp>::handle_host_mem_abort", "hyp_panic"].map(|name| debuggee.functions(name)[0].0);
    let mut session = debuggee.attach();
    session.client.order(&format!("Z0,{panic:x},4"));
    let cpu = lead_astray(&mut session, place);
    let stop = session.client.stop();
    assert!(stop.contains("swbreak") && cpu_of(&stop) == cpu, "{stop}");
    session.client.order(&format!("z0,{panic:x},4"));
    session.resume();
    let stop = session.client.stop();
    assert_eq!((&stop[..3], cpu_of(&stop)), (ABORTED, cpu));
    drop(session);
    // An instruction abort from EL2 itself: nothing is mapped there.
    let line = debuggee.machine.wait_for("hyp:   ESR_EL2 ", LIMIT);
    let line = line.expect("a report");
    assert!(line.contains("ESR_EL2 0x8600000"), "{line}");
    assert!(line.contains("ELR_EL2 0x1000 FAR_EL2 0x1000 "), "{line}");
}

/// It has not yet set up its interrupts, and has no host.
#[test]
fn qemu_a_cpu_that_panics_on_its_way_up_stops_the_others() {
    let (mut debuggee, client) = Debuggee::with_client_first(|| boot().paused(), 4, |_| ());
    let (main, _) = debuggee.functions("secondary_main")[0];
    let mut session = debuggee.session(client);
    let cpu = lead_astray(&mut session, main);
    let stop = session.client.stop();
    assert_eq!((&stop[..3], cpu_of(&stop)), (ABORTED, cpu));
    assert!(session.registers(0).is_some() && session.registers(cpu).is_some());
    drop(session);
    let line = format!("hyp: PANIC on CPU {cpu}: synchronous exception at EL2");
    debuggee.machine.wait_for(&line, LIMIT).expect("a report");
}
