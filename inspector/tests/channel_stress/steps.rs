//! Steps, one by one and without a client's help: each executes one instruction, whatever it is and however busy the
//! computer is.

use crate::client::Client;
use crate::debuggee::{Debuggee, Registers, Session, cpu_of};
use crate::starting::run_into_host;
use fixtures::qemu::{Boot, Cpu};
use inspector::arch::disassembly::{Flow, flow};
use inspector::target::rsp;
use std::time::Duration;

/// Stops from which a CPU is stepped, and how far at most.
const STOPS: usize = 12;
const STEPS: usize = 60;

/// LDXR, LDAXR: a step of hyp's parts it from its store, so that it never ends.
fn begins_attempt(word: u32) -> bool {
    word & 0x3fff_7c00 == 0x085f_7c00
}

/// The instruction at `va`.
fn instruction(session: &mut Session<'_>, va: u64) -> u32 {
    (session.words(va & !7, 1)[0] >> (8 * (va & 4))) as u32
}

/// Whether one execution of `word` leads from one place to the other.
fn leads(word: u32, from: &Registers, to: u64) -> bool {
    let next = from.pc + 4;
    match flow(word, from.pc) {
        Flow::Next => to == next,
        Flow::Branch {
            target: Some(target),
            conditional,
        } => to == target || conditional && to == next,
        Flow::Call {
            target: Some(target),
        } => to == target,
        Flow::Return if word & 0xffff_fc1f == 0xd65f_0000 => {
            to == from.x[(word >> 5 & 31) as usize]
        }
        // Where another register says.
        _ => true,
    }
}

/// The inside of hyp, with a client that says something meanwhile. No CPU is interrupted by that.
#[test]
fn qemu_each_step_executes_one_instruction() {
    for (model, cpus) in [(Cpu::CortexA57, 4), (Cpu::Max, 2)] {
        let boot = Boot::hyp().expect("the image builds").cpu(model);
        let mut debuggee = Debuggee::start(boot, cpus);
        let share = debuggee.functions("Hyp>::pkvm_host_share_hyp")[0].0;
        let mut session = debuggee.attach();
        session.set_pace(0);
        for _ in 0..STOPS {
            session.client.order(&format!("Z0,{share:x},4"));
            session.resume();
            let cpu = cpu_of(&session.client.stop());
            session.client.order(&format!("z0,{share:x},4"));
            let mut from = session.registers(cpu).expect("it stands");
            for _ in 0..STEPS {
                let word = instruction(&mut session, from.pc);
                if begins_attempt(word) || from.el != 2 {
                    break;
                }
                session.client.send(&format!("vCont;s:{:x}", cpu + 1));
                session.client.send_raw(b"++");
                let stop = session.client.stop();
                assert!(stop.starts_with("T05") && cpu_of(&stop) == cpu, "{stop}");
                let to = session.registers(cpu).expect("it stands");
                assert!(
                    leads(word, &from, to.pc),
                    "{word:#x} {from:x?} {:#x}",
                    to.pc
                );
                from = to;
            }
        }
        session.set_pace(4);
        session.client.order("D");
        debuggee.wait_for_rounds(1);
    }
}

/// QEMU's own server does not: it ends a step before the instruction where another CPU comes late to what `Z` and `z` have
/// it do. The inspector steps again then, which is right as long as nothing was executed.
#[test]
fn qemu_a_step_of_qemus_that_leads_nowhere_has_executed_nothing() {
    let boot = Boot::hyp().expect("the image builds").cpu(Cpu::CortexA57);
    let debuggee = Debuggee::start(boot, 4);
    let share = debuggee.functions("Hyp>::pkvm_host_share_hyp")[0].0;
    let mut session = debuggee.session(Client::connect(debuggee.machine.gdb()));
    session.client.order("Hg1");
    session.client.order(&format!("Z1,{share:x},4"));
    session.resume();
    let cpu = cpu_of(&session.client.stop());
    session.client.order(&format!("z1,{share:x},4"));
    let mut from = session.registers(cpu).expect("it stands");
    // It goes on until it has seen one, which was every other.
    let (mut steps, mut nowhere) = (0, 0);
    while steps < STEPS || nowhere == 0 {
        let word = instruction(&mut session, from.pc);
        session.client.send("Z1,1000,4");
        session.client.send("z1,1000,4");
        session.client.send(&format!("vCont;s:{:x}", cpu + 1));
        for _ in 0..2 {
            assert_eq!(session.client.packet(), b"OK");
        }
        session.client.stop();
        let to = session.registers(cpu).expect("it stands");
        if to.pc == from.pc {
            assert_eq!((to.x, to.sp), (from.x, from.sp), "{word:#x}");
            nowhere += 1;
        } else {
            assert!(
                leads(word, &from, to.pc),
                "{word:#x} {from:x?} {:#x}",
                to.pc
            );
        }
        steps += 1;
        from = to;
    }
    session.client.order("D");
}

/// A CPU in the host executes one instruction of a test's, with that in `x0`: where it then is, behind which a second one
/// would be.
pub(crate) fn step_in_host(session: &mut Session<'_>, word: u32, x0: u64) -> u64 {
    const NOP: u64 = 0xd503_201f;
    let from = run_into_host(session, 0);
    session.registers(0);
    let at = from.pc;
    let old = session.words(at, 2);
    let code = u64::from(word) | NOP << 32;
    write(session, at, &[code, NOP << 32 | NOP]);
    set(session, 0, x0);
    session.client.send("vCont;s:1");
    let stop = session.client.stop();
    assert!(stop.starts_with("T05thread:01"), "{stop}");
    let to = session.registers(0).expect("it stands").pc;
    write(session, at, &old);
    for (number, value) in from.x.into_iter().enumerate() {
        set(session, number, value);
    }
    set(session, 0x20, at);
    to.wrapping_sub(at)
}

pub(crate) fn write(session: &mut Session<'_>, va: u64, words: &[u64]) {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let data = rsp::to_hex(&bytes);
    session
        .client
        .order(&format!("M{va:x},{:x}:{data}", bytes.len()));
}

/// PC is register 0x20.
pub(crate) fn set(session: &mut Session<'_>, number: usize, value: u64) {
    let value = rsp::to_hex(&value.to_le_bytes());
    session.client.order(&format!("P{number:x}={value}"));
}

/// What hyp does in the place of an instruction is not followed by the next one.
#[test]
fn qemu_a_step_of_what_hyp_does_for_the_host_is_one() {
    let boot = Boot::hyp().expect("the image builds");
    let mut debuggee = Debuggee::start(boot, 2);
    let mut session = debuggee.attach();
    for (name, word, x0) in [
        ("NOP", 0xd503_201f, 0),
        ("HVC, which is no hypercall", 0xd400_0002, 0),
        ("SMC: PSCI_VERSION", 0xd400_0003, 0x8400_0000),
        ("LDR W1, [X0] of GICD_CTLR", 0xb940_0001, 0x0800_0000),
        ("STR WZR, [X0] to GICD_STATUSR", 0xb900_001f, 0x0800_0010),
        ("MRS X1, ICC_PMR_EL1", 0xd538_4601, 0),
        ("MRS X1, MDSCR_EL1", 0xd530_0241, 0),
        ("LDR W1, [X0] of RAM", 0xb940_0001, 0x4900_0000),
    ] {
        assert_eq!(step_in_host(&mut session, word, x0), 4, "{name}");
    }
    session.client.order("D");
    debuggee.wait_for_rounds(2);
}

/// What a CPU reads from a system register in the host, by this instruction, which reads it to `x1`.
pub(crate) fn read_in_host(session: &mut Session<'_>, cpu: u64, read: u32) -> u64 {
    let from = run_into_host(session, cpu);
    session.registers(cpu);
    let old = session.words(from.pc, 1);
    write(session, from.pc, &[old[0] & !0xffff_ffff | u64::from(read)]);
    session.client.send(&format!("vCont;s:{:x}", cpu + 1));
    session.client.stop();
    let value = session.registers(cpu).expect("it stands").x[1];
    write(session, from.pc, &old);
    set(session, 1, from.x[1]);
    set(session, 0x20, from.pc);
    value
}

/// The host's virtual clock stands with its CPUs; the physical one goes on.
#[test]
fn qemu_the_hosts_time_is_not_the_debuggers() {
    /// MRS X1, CNTVCT_EL0, and CNTPCT_EL0.
    const VIRTUAL: u32 = 0xd53b_e041;
    const PHYSICAL: u32 = 0xd53b_e021;
    for model in [Cpu::CortexA57, Cpu::NeoverseN1, Cpu::Max] {
        let boot = Boot::hyp().expect("the image builds").cpu(model);
        let mut debuggee = Debuggee::start(boot, 2);
        let mut session = debuggee.attach();
        let both = |session: &mut Session<'_>| {
            [VIRTUAL, PHYSICAL].map(|read| read_in_host(session, 0, read))
        };
        let before = both(&mut session);
        std::thread::sleep(Duration::from_secs(2));
        let after = both(&mut session);
        let [virtual_time, physical_time] = [0, 1].map(|n| after[n].wrapping_sub(before[n]));
        assert!(
            virtual_time < physical_time / 4,
            "{virtual_time} of {physical_time} ticks"
        );
        session.client.order("D");
        debuggee.wait_for_rounds(3);
    }
}
