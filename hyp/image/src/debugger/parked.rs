//! What a CPU was doing when it stopped, and what it is to do when it goes on.

use core::arch::asm;
use core::ptr::{addr_of, addr_of_mut};

use super::Shared;
use crate::arch::{read_register, write_register};
use crate::dtb::MAX_CPUS;
use crate::layout::{is_unbroken, stack_top};
use crate::vectors::Frame;

/// What a CPU was doing when it stopped. The inspector reads this by its name and its members' names.
#[repr(C)]
pub(super) struct Parked {
    /// 1 while the CPU stands and the rest holds.
    pub(super) parked: u32,
    pub(super) x: [u64; 31],
    pub(super) sp: u64,
    pub(super) pc: u64,
    pub(super) pstate: u64,
    pub(super) elr_el2: u64,
    pub(super) esr_el2: u64,
    pub(super) far_el2: u64,
    pub(super) hcr_el2: u64,
    pub(super) hpfar_el2: u64,
    pub(super) mair_el2: u64,
    pub(super) sctlr_el2: u64,
    pub(super) spsr_el2: u64,
    pub(super) tcr_el2: u64,
    pub(super) tpidr_el2: u64,
    pub(super) ttbr0_el2: u64,
    /// 0 where there is no VHE.
    pub(super) ttbr1_el2: u64,
    pub(super) vbar_el2: u64,
    pub(super) vtcr_el2: u64,
    pub(super) vttbr_el2: u64,
    pub(super) id_aa64mmfr0_el1: u64,
    pub(super) id_aa64mmfr1_el1: u64,
    pub(super) id_aa64mmfr2_el1: u64,
    pub(super) sctlr_el1: u64,
    pub(super) tcr_el1: u64,
    pub(super) ttbr0_el1: u64,
    pub(super) ttbr1_el1: u64,
}

/// Each CPU writes its own while it stops and reads it when it goes on; the debugger's in between.
#[unsafe(no_mangle)]
static PARKED: Shared<[Parked; MAX_CPUS]> = Shared::new(
    // SAFETY: it is numbers only.
    unsafe { core::mem::zeroed() },
);

/// PSTATE.M, bits 3:0: EL2 on SP_EL2; EL1 on SP_EL1.
const EL2H: u64 = 0x9;
const EL1H: u64 = 0x5;
/// PSTATE.D, PSTATE.I and PSTATE.SS in SPSR_EL2.
const PSTATE_D: u64 = 1 << 9;
const PSTATE_I: u64 = 1 << 7;
const PSTATE_SS: u64 = 1 << 21;

/// The pointer to what a CPU was doing.
#[inline(always)]
pub(super) fn parked(cpu: usize) -> *mut Parked {
    PARKED.get().cast::<Parked>().wrapping_add(cpu)
}

#[inline(always)]
pub(super) fn set_parked(cpu: usize, value: u32) {
    // SAFETY: `cpu` is this CPU, and it is its own. The others see the rest before the flag.
    unsafe {
        asm!("dmb ish", options(nostack, preserves_flags));
        addr_of_mut!((*parked(cpu)).parked).write_volatile(value);
    }
}

/// The frame of the host's exception that this CPU is in while it is inside EL2.
#[inline(always)]
fn host_frame(cpu: usize) -> *mut Frame {
    (stack_top(cpu) as *mut Frame).wrapping_sub(1)
}

/// Whether PSTATE is of EL2.
#[inline(always)]
fn is_el2(pstate: u64) -> bool {
    pstate & 0xc == EL2H & 0xc
}

/// Copies registers word by word: a copy as a whole could become a call.
///
/// # Safety
/// Both are there, and nobody else uses them.
#[inline(always)]
unsafe fn copy(from: *const [u64; 31], to: *mut [u64; 31]) {
    for n in 0..31 {
        // SAFETY: says the caller.
        unsafe {
            let value = from.cast::<u64>().add(n).read_volatile();
            to.cast::<u64>().add(n).write_volatile(value);
        }
    }
}

/// Writes down what this CPU was doing.
#[inline(always)]
pub(super) fn write_down(cpu: usize, frame: &mut Frame) {
    let to = parked(cpu);
    macro_rules! set {
        ($($field:ident = $value:expr;)*) => {$(
            addr_of_mut!((*to).$field).write_volatile($value);
        )*};
    }
    let inside = is_el2(frame.spsr);
    let has_vhe = read_register!(id_aa64mmfr1_el1) >> 8 & 0xf != 0;
    let host_stack = |pstate: u64| match pstate & 0xf {
        EL1H => read_register!(sp_el1),
        _ => read_register!(sp_el0),
    };
    // SAFETY: it is this CPU's own, and the debugger does not read it before this CPU is counted as standing. The host's
    // frame is on this CPU's stack, always at the same place.
    unsafe {
        copy(addr_of!(frame.x), addr_of_mut!((*to).x));
        set! {
            pc = frame.elr;
            pstate = frame.spsr;
            sp = if inside { frame as *mut Frame as u64 + size_of::<Frame>() as u64 } else { host_stack(frame.spsr) };
            elr_el2 = frame.elr;
            spsr_el2 = frame.spsr;
            esr_el2 = read_register!(esr_el2);
            far_el2 = read_register!(far_el2);
            hpfar_el2 = read_register!(hpfar_el2);
            hcr_el2 = read_register!(hcr_el2);
            mair_el2 = read_register!(mair_el2);
            sctlr_el2 = read_register!(sctlr_el2);
            tcr_el2 = read_register!(tcr_el2);
            tpidr_el2 = read_register!(tpidr_el2);
            ttbr0_el2 = read_register!(ttbr0_el2);
            ttbr1_el2 = if has_vhe { read_register!(S3_4_C2_C0_1) } else { 0 };
            vbar_el2 = read_register!(vbar_el2);
            vtcr_el2 = read_register!(vtcr_el2);
            vttbr_el2 = read_register!(vttbr_el2);
            id_aa64mmfr0_el1 = read_register!(id_aa64mmfr0_el1);
            id_aa64mmfr1_el1 = read_register!(id_aa64mmfr1_el1);
            id_aa64mmfr2_el1 = read_register!(S3_0_C0_C7_2);
            sctlr_el1 = read_register!(sctlr_el1);
            tcr_el1 = read_register!(tcr_el1);
            ttbr0_el1 = read_register!(ttbr0_el1);
            ttbr1_el1 = read_register!(ttbr1_el1);
        }
        if inside {
            // What the interrupted code would read, and not what the exception just now has written.
            let host = host_frame(cpu);
            set! {
                elr_el2 = addr_of!((*host).elr).read_volatile();
                spsr_el2 = addr_of!((*host).spsr).read_volatile();
            }
            if addr_of!((*host).saved).read_volatile() != 0 {
                set! {
                    esr_el2 = addr_of!((*host).esr).read_volatile();
                    far_el2 = addr_of!((*host).far).read_volatile();
                    hpfar_el2 = addr_of!((*host).hpfar).read_volatile();
                }
                // A step that was under way in the host is over.
                addr_of_mut!((*host).step).write_volatile(0);
            }
            let stack = host_stack(addr_of!((*host).spsr).read_volatile());
            addr_of_mut!((*host).host_sp).write_volatile(stack);
        } else {
            frame.host_sp = host_stack(frame.spsr);
        }
    }
    set_parked(cpu, 1);
}

/// Gives this CPU the registers that the debugger left; with `step`, it is to stop after one instruction. While a client is
/// `attached`, a debug exception may then overwrite those that say why the host trapped, also if that was before the
/// client came: an interrupt stopped the CPU, and has left them as they were.
#[inline(always)]
pub(super) fn take_up(cpu: usize, frame: &mut Frame, step: bool, attached: bool) {
    set_parked(cpu, 0);
    let from = parked(cpu);
    // SAFETY: it is this CPU's own again. EL2's registers are what they were when the interrupted code could read them;
    // the host's stack pointers are the host's.
    unsafe {
        copy(addr_of!((*from).x), addr_of_mut!(frame.x));
        let host = host_frame(cpu);
        // Stale, it would mislead QEMU's gdb server's clients.
        addr_of_mut!((*host).host_sp).write_volatile(0);
        frame.elr = addr_of!((*from).pc).read_volatile();
        frame.spsr = addr_of!((*from).pstate).read_volatile();
        let inside = is_el2(frame.spsr);
        addr_of_mut!((*host).saved).write_volatile((inside && attached).into());
        if inside {
            write_register!(esr_el2, addr_of!((*from).esr_el2).read_volatile());
            write_register!(far_el2, addr_of!((*from).far_el2).read_volatile());
            addr_of_mut!((*host).esr).write_volatile(addr_of!((*from).esr_el2).read_volatile());
            addr_of_mut!((*host).far).write_volatile(addr_of!((*from).far_el2).read_volatile());
            addr_of_mut!((*host).hpfar).write_volatile(addr_of!((*from).hpfar_el2).read_volatile());
        } else if frame.spsr & 0xf == EL1H {
            write_register!(sp_el1, addr_of!((*from).sp).read_volatile());
        } else {
            write_register!(sp_el0, addr_of!((*from).sp).read_volatile());
        }
    }
    let inside = is_el2(frame.spsr);
    if step {
        frame.spsr |= PSTATE_SS;
    } else {
        frame.spsr &= !PSTATE_SS;
    }
    if inside && is_unbroken(frame.elr) {
        // A stop on the way out of EL2 would overwrite ELR_EL2 and SPSR_EL2, which are in use there. A step that leads
        // here ends in the host.
        frame.spsr |= PSTATE_D;
    } else if inside && step {
        frame.spsr &= !PSTATE_D;
    }
}

/// Takes a mask of the host's interrupts away again, wherever the CPU's step has led.
pub(super) fn unmask_interrupts(cpu: usize, parked: &mut Parked) {
    if is_el2(parked.pstate) {
        // SAFETY: that CPU waits inside EL2, so its host's frame is there.
        unsafe { (*host_frame(cpu)).spsr &= !PSTATE_I }
    } else {
        parked.pstate &= !PSTATE_I;
    }
}
