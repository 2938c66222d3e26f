//! The emulation on this machine: what the vectors call.

use core::ptr::{read_volatile, write_volatile};
use core::sync::atomic::Ordering;

use hyp::abort::Trap;
use hyp::addr::Pa;

use super::{Bus, CpuInterface, View, gic, registers};
use crate::arch::{isb, read_register, write_register};
use crate::el2::hypervisor;
use crate::layout::va;

/// Where the host believes that it is alone.
static VIEW: View = View::new();

/// CPU `cpu` is about to start the host: its registers are what they are after a reset.
pub(crate) fn start(cpu: usize) {
    let view = &VIEW.cpus[cpu];
    view.priority_mask.store(0, Ordering::Relaxed);
    view.debug_control.store(0, Ordering::Relaxed);
    view.os_unlocked.store(false, Ordering::Relaxed);
}

/// Carries out the load or store that trapped, if it was to a device of hyp's own. Then the host goes on after it.
pub(crate) fn device(trap: &Trap, x: &mut [u64; 31]) -> bool {
    let sections = hypervisor().sections();
    trap.access()
        .is_some_and(|access| gic::access(&ThisMachine, &VIEW, sections, &access, x))
}

/// Carries out the access of CPU `cpu` to a system register that trapped, if it is one that hyp has taken. Then the host
/// goes on after it.
pub(crate) fn system_register(cpu: usize, trap: &Trap, x: &mut [u64; 31]) -> bool {
    trap.system_register()
        .is_some_and(|access| registers::access(&ThisMachine, &VIEW.cpus[cpu], &access, x))
}

struct ThisMachine;

impl Bus for ThisMachine {
    fn load(&self, pa: Pa, size: u64) -> u64 {
        let register = va(pa).get();
        // SAFETY: a register in a page of the GIC's that is hyp's own section, mapped for good, aligned to its size.
        // QEMU's answers any width, so that nothing faults.
        unsafe {
            match size {
                1 => read_volatile(register as *const u8).into(),
                2 => read_volatile(register as *const u16).into(),
                4 => read_volatile(register as *const u32).into(),
                _ => read_volatile(register as *const u64),
            }
        }
    }

    fn store(&self, pa: Pa, size: u64, value: u64) {
        let register = va(pa).get();
        // SAFETY: as above. What would touch hyp's interrupts is not in `value` any more.
        unsafe {
            match size {
                1 => write_volatile(register as *mut u8, value as u8),
                2 => write_volatile(register as *mut u16, value as u16),
                4 => write_volatile(register as *mut u32, value as u32),
                _ => write_volatile(register as *mut u64, value),
            }
        }
    }
}

// Not every assembler knows these registers by name.
impl CpuInterface for ThisMachine {
    fn control(&self) -> u64 {
        read_register!(S3_0_C12_C12_4)
    }

    fn set_control(&self, value: u64) {
        // SAFETY: how priorities are grouped, and whether an interrupt that has ended is still active; hyp asks.
        unsafe { write_register!(S3_0_C12_C12_4, value) }
        isb();
    }

    fn running_priority(&self) -> u64 {
        read_register!(S3_0_C12_C11_3)
    }

    fn set_priority_mask(&self, value: u64) {
        // SAFETY: the host's, and hyp's priority passes whatever it is, says the caller.
        unsafe { write_register!(S3_0_C4_C6_0, value) }
        isb();
    }

    fn deactivate(&self, value: u64) {
        // SAFETY: the host's own interrupt, says the caller.
        unsafe { write_register!(S3_0_C12_C11_1, value) }
        isb();
    }

    fn send(&self, value: u64) {
        // SAFETY: an interrupt of the host's for the host, says the caller.
        unsafe { write_register!(S3_0_C12_C11_5, value) }
        isb();
    }
}
