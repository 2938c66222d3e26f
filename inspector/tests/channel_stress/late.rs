//! BRK in the host: of a breakpoint that is gone when a CPU has come to it, and of the host's own.

use crate::client::Client;
use crate::debuggee::{Debuggee, Session, cpu_of};
use crate::starting::{find_in_host, run_into_host};
use fixtures::qemu::{Boot, Cpu};
use inspector::target::rsp;

/// hyp's own breakpoint: `brk #0xe12`.
pub(crate) const BRK: u32 = 0xd421_c240;

/// What a client does while a CPU is on its way to a stop that it does not come to.
type Deed = fn(&mut Session<'_>, u64);

/// Holds a CPU back, by QEMU's gdb server, between the breakpoint at `place`, which hyp's client has set and waits for,
/// and what hyp does about it, for as long as `deed` takes.
fn come_late(debuggee: &Debuggee, session: &mut Session<'_>, place: u64, deed: Deed) {
    const FRAME_ELR: u64 = 248;
    let [exception, loops] =
        ["debugger_host_exception", "park_here"].map(|name| debuggee.functions(name)[0].0);
    let mut qemu = debuggee.session(Client::connect(debuggee.machine.gdb()));
    // Registers have numbers only for those who know their names.
    qemu.client.ask("qXfer:features:read:target.xml:0,ffb");
    qemu.client.order(&format!("Z1,{exception:x},4"));
    qemu.client.send("c");
    session.resume();
    let late = loop {
        let cpu = cpu_of(&qemu.client.stop());
        let frame = qemu.registers(cpu).expect("it stands").x[0];
        if qemu.words(frame + FRAME_ELR, 1) == [place] {
            break cpu;
        }
        // A breakpoint of the host's own.
        qemu.client.order(&format!("z1,{exception:x},4"));
        qemu.client.send(&format!("vCont;s:{:x}", cpu + 1));
        qemu.client.stop();
        qemu.client.order(&format!("Z1,{exception:x},4"));
        qemu.client.send("c");
    };
    qemu.client.order(&format!("z1,{exception:x},4"));
    // With all its interrupts masked.
    qemu.set_pc(late, loops);
    qemu.client.send("c");
    session.interrupt();
    assert!(session.registers(late).is_none(), "it came");
    deed(session, place);
    qemu.interrupt();
    qemu.set_pc(late, exception);
    qemu.client.order("D");
}

#[test]
fn qemu_a_breakpoint_that_is_gone_before_a_cpu_comes_is_nothing_to_the_host() {
    const HVC: u32 = 0xd400_0002;
    const TAKE_AWAY: Deed = |session, place| {
        session.client.order(&format!("z0,{place:x},4"));
        session.resume();
    };
    const LEAVE: Deed = |session, _| session.client.order("D");
    for cpu in [Cpu::CortexA57, Cpu::NeoverseN1, Cpu::Max] {
        let boot = Boot::hyp().expect("the image builds").cpu(cpu);
        let mut debuggee = Debuggee::start(boot, 2);
        let mut rounds = 0;
        for deed in [TAKE_AWAY, LEAVE] {
            let mut session = debuggee.attach();
            // Where all CPUs come in every round.
            let place = find_in_host(&mut session, HVC);
            session.client.order(&format!("Z0,{place:x},4"));
            come_late(&debuggee, &mut session, place, deed);
            rounds += 3;
            debuggee.wait_for_rounds(rounds);
        }
    }
}

/// Also where its number is that of hyp's own: whether a CPU runs into it or steps over it, and then runs on.
#[test]
fn qemu_a_breakpoint_of_the_hosts_own_is_the_hosts_whatever_its_number() {
    /// ESR_EL1 of it: EC 0x3c, IL, and the immediate.
    const ESR: u64 = 0xf200_0e12;
    for orders in [&["vCont;c:1"][..], &["vCont;s:1", "vCont;c:1"]] {
        let debuggee = Debuggee::start(Boot::hyp().expect("the image builds"), 2);
        // It gets both from ESR_EL1 and ELR_EL1.
        let (unexpected, _) = debuggee.functions("host_unexpected")[0];
        let mut session = debuggee.attach();
        let from = run_into_host(&mut session, 0).pc;
        session.registers(0);
        let data = rsp::to_hex(&BRK.to_le_bytes());
        session.client.order(&format!("M{from:x},4:{data}"));
        session.client.order(&format!("Z1,{unexpected:x},4"));
        let mut stop = String::new();
        for order in orders {
            assert_ne!(session.registers(0).expect("it stands").pc, unexpected);
            session.client.send(order);
            stop = session.client.stop();
        }
        assert!(stop.contains("hwbreak") && cpu_of(&stop) == 0, "{stop}");
        let to = session.registers(0).expect("it stands");
        assert_eq!((to.pc, to.x[0], to.x[1]), (unexpected, ESR, from));
    }
}
