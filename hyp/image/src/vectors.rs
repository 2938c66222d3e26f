//! What the vectors in `vectors.s` call, and which of them are in use.

#[cfg(feature = "channel")]
use hyp::Cpu;
use hyp::abort::{Injection, Outcome, Trap};

use crate::arch::{read_register, write_register};
use crate::cpu::ThisCpu;
use crate::el2::hypervisor;
#[cfg(feature = "channel")]
use crate::emulate;
use crate::panic::{stop_if_asked, unexpected};
use crate::psci;

/// ESR_EL2.EC: SMC from AArch64, trapped by HCR_EL2.TSC.
const EC_SMC64: u64 = 0x17;
/// ESR_EL2.EC: BRK, and AArch32's BKPT, trapped by MDCR_EL2.TDE.
#[cfg(feature = "channel")]
const EC_BRK: u64 = 0x3c;
#[cfg(feature = "channel")]
const EC_BKPT32: u64 = 0x38;

/// The registers of what was interrupted, as `vectors.s` stores them. The inspector has the same numbers.
#[repr(C)]
pub(crate) struct Frame {
    pub(crate) x: [u64; 31],
    pub(crate) elr: u64,
    pub(crate) spsr: u64,
    /// ESR_EL2, FAR_EL2 and HPFAR_EL2, where `saved` says so.
    pub(crate) esr: u64,
    pub(crate) far: u64,
    pub(crate) hpfar: u64,
    /// MDSCR_EL1.SS, to be set again on return to the host.
    pub(crate) step: u64,
    /// 1 while a CPU is inside EL2 by way of `attached_vectors`, or since a client that attached has stopped it inside.
    pub(crate) saved: u64,
    /// The host's stack pointer, while the debugger has stopped the CPU inside EL2.
    pub(crate) host_sp: u64,
    _align: u64,
}

/// What each entry of the vector table stands for, and after them what `own_sync` adds.
const SLOTS: [&str; 17] = [
    "synchronous exception on SP_EL0",
    "IRQ on SP_EL0",
    "FIQ on SP_EL0",
    "SError on SP_EL0",
    "synchronous exception at EL2",
    "IRQ at EL2",
    "FIQ at EL2",
    "SError at EL2",
    "synchronous exception from the host",
    "IRQ from the host",
    "FIQ from the host",
    "SError from the host",
    "synchronous exception from AArch32",
    "IRQ from AArch32",
    "FIQ from AArch32",
    "SError from AArch32",
    "EL2's stack ran out",
];

/// The host's synchronous exceptions. Changes to the frame are what it resumes with.
#[unsafe(no_mangle)]
extern "C" fn host_sync(frame: &mut Frame) {
    stop_if_asked();
    let trap = Trap {
        esr: read_register!(esr_el2),
        far: read_register!(far_el2),
        hpfar: read_register!(hpfar_el2),
        elr: frame.elr,
        spsr: frame.spsr,
        sctlr_el1: read_register!(sctlr_el1),
    };
    match hypervisor().handle_trap(&ThisCpu, &trap, &mut frame.x) {
        Outcome::Resume => {}
        outcome => take_over(frame, &trap, outcome),
    }
}

/// What hyp's library leaves to the platform. Out of line: most aborts and hypercalls end before.
#[cold]
#[inline(never)]
fn take_over(frame: &mut Frame, trap: &Trap, outcome: Outcome) {
    match outcome {
        Outcome::Resume => {}
        #[cfg(feature = "channel")]
        Outcome::Inject(_) if emulate::device(trap, &mut frame.x) => step_over(frame),
        Outcome::Inject(injection) => inject(frame, &injection),
        Outcome::Unhandled if trap.exception_class() == EC_SMC64 => {
            psci::handle_host_smc(&mut frame.x);
            step_over(frame);
        }
        #[cfg(feature = "channel")]
        Outcome::Unhandled
            if emulate::system_register(ThisCpu.id() as usize, trap, &mut frame.x) =>
        {
            step_over(frame);
        }
        #[cfg(feature = "channel")]
        Outcome::Unhandled if matches!(trap.exception_class(), EC_BRK | EC_BKPT32) => {
            inject(frame, &trap.reflect());
        }
        Outcome::Unhandled => inject(frame, &trap.undefined()),
    }
}

/// PSTATE.SS in SPSR_EL2: a step has yet to execute its instruction.
const PSTATE_SS: u64 = 1 << 21;

/// A trapped instruction has not been executed: the host continues after it. If it was stepped, that was its step.
fn step_over(frame: &mut Frame) {
    frame.elr = frame.elr.wrapping_add(4);
    frame.spsr &= !PSTATE_SS;
}

/// Makes the host take an exception at EL1.
fn inject(frame: &mut Frame, injection: &Injection) {
    // SAFETY: EL1's exception registers are the host's; hyp does not use them.
    unsafe {
        write_register!(esr_el1, injection.esr_el1);
        write_register!(far_el1, injection.far_el1);
        write_register!(elr_el1, injection.elr_el1);
        write_register!(spsr_el1, injection.spsr_el1);
    }
    frame.elr = read_register!(vbar_el1).wrapping_add(injection.vector);
    frame.spsr = injection.spsr_el2;
}

/// Everything else: hyp masks interrupts at EL2, routes the host's to EL1, and does not fault.
#[unsafe(no_mangle)]
extern "C" fn unexpected_exception(frame: &Frame, slot: usize) -> ! {
    let what = SLOTS.get(slot).copied().unwrap_or("exception");
    unexpected(what, frame.elr, frame.x[29])
}

/// Chooses this CPU's table, which was `el2_vectors` from the start: `attached` is for while a client is attached to the
/// debugger.
#[cfg(feature = "channel")]
#[inline(always)]
pub(crate) fn choose(attached: bool) {
    unsafe extern "C" {
        static el2_vectors: u8;
        static attached_vectors: u8;
    }
    let table = if attached {
        &raw const attached_vectors
    } else {
        &raw const el2_vectors
    };
    // SAFETY: both tables are what vectors.s says, aligned to 2 KiB, in code that is mapped for good.
    unsafe { write_register!(vbar_el2, table as u64) }
    crate::arch::isb();
}
