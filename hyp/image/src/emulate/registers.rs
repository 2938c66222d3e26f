//! System registers: the GIC's CPU interface, as far as both groups use it (ICH_HCR_EL2.TC, HCR_EL2.FMO), and debug
//! registers (MDCR_EL2.{TDA, TDOSA, TDRA}).

use core::sync::atomic::Ordering;

use hyp::abort::{SystemAccess, SystemRegister};

use super::{CpuInterface, CpuView, SGI, TIMER};

const ICC_PMR_EL1: SystemRegister = SystemRegister::new(3, 0, 4, 6, 0);
const ICC_DIR_EL1: SystemRegister = SystemRegister::new(3, 0, 12, 11, 1);
const ICC_RPR_EL1: SystemRegister = SystemRegister::new(3, 0, 12, 11, 3);
const ICC_SGI1R_EL1: SystemRegister = SystemRegister::new(3, 0, 12, 11, 5);
const ICC_ASGI1R_EL1: SystemRegister = SystemRegister::new(3, 0, 12, 11, 6);
const ICC_SGI0R_EL1: SystemRegister = SystemRegister::new(3, 0, 12, 11, 7);
const ICC_CTLR_EL1: SystemRegister = SystemRegister::new(3, 0, 12, 12, 4);
const MDSCR_EL1: SystemRegister = SystemRegister::new(2, 0, 0, 2, 2);
const OSLAR_EL1: SystemRegister = SystemRegister::new(2, 0, 1, 0, 4);
const OSLSR_EL1: SystemRegister = SystemRegister::new(2, 0, 1, 1, 4);

/// ICC_SGI1R_EL1.INTID, bits 27:24.
const SGI_INTID_SHIFT: u32 = 24;
const SGI_INTID: u64 = 0xf;
/// ICC_DIR_EL1.INTID, bits 23:0.
const DIR_INTID: u64 = 0xff_ffff;
/// ICC_CTLR_EL1.PRIbits, bits 10:8: bits of a priority, less one; they are the upper ones of eight.
const PRIBITS_SHIFT: u32 = 8;
const PRIBITS: u64 = 0x7;
/// OSLSR_EL1.OSLM, bits 3 and 0: 0b10, there is an OS lock. OSLSR_EL1.OSLK, bit 1: it is locked.
const OSLM: u64 = 1 << 3;
const OSLK_SHIFT: u32 = 1;
/// OSLAR_EL1.OSLK, bit 0.
const OSLAR_LOCK: u64 = 1 << 0;

/// Carries out the host's access to a system register; true if it did.
pub(super) fn access(
    gic: &impl CpuInterface,
    view: &CpuView,
    access: &SystemAccess,
    x: &mut [u64; 31],
) -> bool {
    if access.write {
        return write(gic, view, access.register, access.value(x));
    }
    let value = read(gic, view, access.register);
    if let Some(value) = value {
        access.load(x, value);
    }
    value.is_some()
}

fn read(gic: &impl CpuInterface, view: &CpuView, register: SystemRegister) -> Option<u64> {
    Some(match register {
        ICC_PMR_EL1 => view.priority_mask.load(Ordering::Relaxed),
        ICC_CTLR_EL1 => gic.control(),
        ICC_RPR_EL1 => gic.running_priority(),
        MDSCR_EL1 => view.debug_control.load(Ordering::Relaxed),
        OSLSR_EL1 => {
            let locked = !view.os_unlocked.load(Ordering::Relaxed);
            OSLM | u64::from(locked) << OSLK_SHIFT
        }
        OSLAR_EL1 => return None,
        _ if is_debug(register) => 0,
        _ => return None,
    })
}

fn write(gic: &impl CpuInterface, view: &CpuView, register: SystemRegister, value: u64) -> bool {
    match register {
        ICC_PMR_EL1 => mask_priorities(gic, view, value),
        ICC_CTLR_EL1 => gic.set_control(value),
        ICC_DIR_EL1 if is_hyps(value & DIR_INTID) => {}
        ICC_DIR_EL1 => gic.deactivate(value),
        ICC_SGI1R_EL1 if is_hyps(value >> SGI_INTID_SHIFT & SGI_INTID) => {}
        ICC_SGI1R_EL1 => gic.send(value),
        // For group 0 and for the other security state, in neither of which the host has interrupts.
        ICC_SGI0R_EL1 | ICC_ASGI1R_EL1 => {}
        MDSCR_EL1 => view.debug_control.store(value, Ordering::Relaxed),
        OSLAR_EL1 => view
            .os_unlocked
            .store(value & OSLAR_LOCK == 0, Ordering::Relaxed),
        OSLSR_EL1 => return false,
        _ => return is_debug(register),
    }
    true
}

/// Writes ICC_PMR_EL1: the host's value, but that it always lets priority 0 through, which is hyp's.
fn mask_priorities(gic: &impl CpuInterface, view: &CpuView, value: u64) {
    let bits = (gic.control() >> PRIBITS_SHIFT & PRIBITS) + 1;
    let lowest = 1 << (8 - bits);
    let mask = value & 0xff & !(lowest - 1);
    view.priority_mask.store(mask, Ordering::Relaxed);
    gic.set_priority_mask(mask.max(lowest));
}

fn is_hyps(interrupt: u64) -> bool {
    interrupt == SGI.into() || interrupt == TIMER.into()
}

/// Whether it is a debug register: Op0 2; with Op1 1 it would be a trace unit's.
fn is_debug(register: SystemRegister) -> bool {
    register.op0() == 2 && matches!(register.op1(), 0 | 3)
}

#[cfg(test)]
mod tests;
