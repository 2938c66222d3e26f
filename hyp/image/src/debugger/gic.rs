//! Group 0 of the GICv3: hyp's own interrupts. They come as FIQ, which the host cannot mask.
//!
//! On this machine there is no EL3, so the GIC knows one security state (GICD_CTLR.DS) and group 0 is free. The host
//! keeps group 1; [`crate::emulate`] sees to it that it leaves these two alone.

use core::arch::asm;
use core::ptr::{read_volatile, write_volatile};

use hyp::addr::Pa;

use crate::arch::{isb, read_register, write_register};
use crate::emulate::{DISTRIBUTOR, SGI, TIMER, private_page, redistributor};
use crate::layout::va;

/// How often a CPU looks whether the client has said something, a second.
const TICKS: u64 = 100;

/// HCR_EL2.FMO: FIQ is taken to EL2.
const HCR_FMO: u64 = 1 << 3;
/// ICH_HCR_EL2.TC: the host's access to CPU interface registers that both groups use traps.
const ICH_HCR_TC: u64 = 1 << 10;
/// ICC_PMR_EL1 before the host has a say: hyp's priority, 0, passes.
const PMR: u64 = 0x08;

/// What an FIQ was.
pub(super) enum Interrupt {
    /// The timer.
    Tick,
    /// Another CPU asks this one to stop.
    Stop,
}

/// Makes two interrupts of each CPU hyp's, and all others the host's. CPU 0, before the others run.
pub(super) fn take(mpidrs: &[u64]) {
    let register = |page: Pa, offset: u64| va(page.wrapping_add(offset)).get() as *mut u32;
    let ours = 1 << SGI | 1 << TIMER;
    // SAFETY: the GIC's registers, mapped as a device from boot on. Nobody else uses it yet.
    unsafe {
        // GICD_CTLR: ARE (4), EnableGrp0 (0).
        let control = register(DISTRIBUTOR, 0);
        write_volatile(control, read_volatile(control) | 1 << 4 | 1);
        // GICD_IGROUPR<1> to <31>.
        for groups in (0x084..0x100).step_by(4) {
            write_volatile(register(DISTRIBUTOR, groups), u32::MAX);
        }
        for cpu in 0..mpidrs.len() {
            let page = private_page(cpu);
            // GICR_WAKER.ProcessorSleep (1) off.
            let waker = register(redistributor(cpu), 0x14);
            write_volatile(waker, read_volatile(waker) & !(1 << 1));
            // GICR_IGROUPR0, GICR_IPRIORITYR<3>, <6>, GICR_ISENABLER0.
            write_volatile(register(page, 0x080), !ours);
            for interrupt in [SGI, TIMER] {
                let priority = va(page.wrapping_add(0x400 + u64::from(interrupt))).get() as *mut u8;
                write_volatile(priority, 0);
            }
            write_volatile(register(page, 0x100), ours);
        }
    }
}

/// Has this CPU take FIQ at EL2, and tick.
#[inline(always)]
pub(super) fn start() {
    // SAFETY: these route interrupts and trap the host's registers; FIQ is masked at EL2. ICH_HCR_EL2, ICC_PMR_EL1,
    // ICC_IGRPEN0_EL1, which not every assembler knows by name.
    unsafe {
        write_register!(hcr_el2, read_register!(hcr_el2) | HCR_FMO);
        write_register!(S3_4_C12_C11_0, ICH_HCR_TC);
        write_register!(S3_0_C4_C6_0, PMR);
        write_register!(S3_0_C12_C12_6, 1);
    }
    // The first tick comes at once: a client may be waiting already.
    wake_in(u64::MAX, true);
}

/// Takes the FIQ that is pending, and is done with it.
#[inline(always)]
pub(super) fn acknowledge() -> Option<Interrupt> {
    // ICC_IAR0_EL1.
    let interrupt = read_register!(S3_0_C12_C8_0);
    let known = match interrupt as u32 {
        TIMER => {
            set_tick(true);
            Interrupt::Tick
        }
        SGI => Interrupt::Stop,
        // 1023: it is gone again. Nothing else is in group 0.
        _ => return None,
    };
    // SAFETY: a barrier: what the caller of this CPU wrote before is seen from here on.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) }
    // SAFETY: ends what was just taken: ICC_EOIR0_EL1, and ICC_DIR_EL1 where the host has split the two
    // (ICC_CTLR_EL1.EOImode, bit 1).
    unsafe {
        write_register!(S3_0_C12_C8_1, interrupt);
        if read_register!(S3_0_C12_C12_4) & 1 << 1 != 0 {
            write_register!(S3_0_C12_C11_1, interrupt);
        }
    }
    isb();
    Some(known)
}

/// Asks every other CPU to stop, or wakes those that wait.
#[inline(always)]
pub(super) fn call_others() {
    // SAFETY: ICC_SGI0R_EL1: IRM (40) for all but this CPU, INTID in bits 27:24. What was written before is seen first.
    unsafe {
        asm!("dsb ish", options(nostack, preserves_flags));
        write_register!(S3_0_C12_C11_7, 1 << 40 | u64::from(SGI) << 24);
        asm!("isb", options(nostack, preserves_flags));
    }
}

/// Keeps the host's interrupts from this CPU, which they would not let sleep. Returns what [`let_host`] is to undo.
#[inline(always)]
pub(super) fn keep_host() -> u64 {
    // ICC_IGRPEN1_EL1.
    let enabled = read_register!(S3_0_C12_C12_7);
    let_host(0);
    enabled
}

/// Lets the host have its interrupts as it had them.
#[inline(always)]
pub(super) fn let_host(enabled: u64) {
    // SAFETY: the host's own register, with its own value, or for as long as it does not run.
    unsafe { write_register!(S3_0_C12_C12_7, enabled) }
    isb();
}

/// Asks this very CPU to stop, when it can hear it.
#[inline(always)]
pub(super) fn call_this_cpu() {
    let mpidr = read_register!(mpidr_el1);
    let affinity =
        (mpidr >> 8 & 0xff) << 16 | (mpidr >> 16 & 0xff) << 32 | (mpidr >> 32 & 0xff) << 48;
    // SAFETY: ICC_SGI0R_EL1: Aff3, Aff2, Aff1, and a bit in the list for Aff0, which is below 16 on this machine.
    unsafe {
        write_register!(
            S3_0_C12_C11_7,
            affinity | u64::from(SGI) << 24 | 1 << (mpidr & 0xf)
        );
    }
    isb();
}

/// Sleeps for up to 1/`part` of a second.
pub(super) fn sleep(part: u64) {
    wake_in(part, true);
    // SAFETY: waits for an interrupt, which is not taken: FIQ is masked.
    unsafe { asm!("wfi", options(nostack, preserves_flags)) }
    acknowledge();
    set_tick(false);
}

/// Starts this CPU's next tick, or stops ticking.
#[inline(always)]
pub(super) fn set_tick(on: bool) {
    wake_in(TICKS, on);
}

/// Has the timer fire in 1/`part` of a second, or not at all.
#[inline(always)]
pub(super) fn wake_in(part: u64, on: bool) {
    // SAFETY: EL2's own timer. CNTHP_CTL_EL2.ENABLE is bit 0.
    unsafe {
        write_register!(cnthp_tval_el2, read_register!(cntfrq_el0) / part);
        write_register!(cnthp_ctl_el2, u64::from(on));
    }
    isb();
}
