//! The CPU that runs this, as hyp's library wants to see it.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use hyp::addr::{Ipa, Pa};
use hyp::{Cpu, TableMemory};

use crate::arch::read_register;
use crate::layout::va;
use crate::panic::stop_if_asked;

/// Whichever CPU executes: its number is in TPIDR_EL2 from its first instruction at EL2 on.
pub(crate) struct ThisCpu;

/// The descriptor at `at`, where EL2 maps it.
fn descriptor(at: Pa) -> &'static AtomicU64 {
    let pointer = va(at).get() as *const AtomicU64;
    // SAFETY: hyp only passes addresses inside its pools, which are mapped at the fixed offset from boot on, are
    // never unmapped, and are only accessed here and by table walks. Descriptors are aligned to 8.
    unsafe { &*pointer }
}

impl TableMemory for ThisCpu {
    fn read(&self, at: Pa) -> u64 {
        descriptor(at).load(Ordering::Relaxed)
    }

    fn write(&self, at: Pa, word: u64) {
        descriptor(at).store(word, Ordering::Release);
    }
}

impl Cpu for ThisCpu {
    fn id(&self) -> u32 {
        read_register!(tpidr_el2) as u32
    }

    // Not inlined, so that its caller's address is in its own frame record.
    #[inline(never)]
    fn lock_taker(&self) -> u64 {
        let caller: u64;
        // SAFETY: everything is built with frame pointers, so x29 points to this function's frame record, the
        // second word of which is the address it returns to.
        unsafe {
            asm!("ldr {}, [x29, #8]", out(reg) caller, options(readonly, nostack, preserves_flags));
        }
        caller
    }

    fn relax(&self) {
        stop_if_asked();
        #[cfg(feature = "channel")]
        crate::debugger::wait();
        // The debugger may stop a CPU that waits: its FIQ comes here, if it does not come anywhere. hyp's registers of
        // the trap it is in were read when it began.
        // SAFETY: a hint. Not `nomem`: the lock must be read after it, or a wake between the two would be lost; one
        // before it stays in the event register.
        unsafe {
            asm!(
                "mrs {masks}, daif",
                "msr daifclr, #1",
                "wfe",
                "msr daif, {masks}",
                masks = out(reg) _,
                options(nostack, preserves_flags)
            );
        }
    }

    fn wake(&self) {
        // SAFETY: a barrier and a hint.
        unsafe { asm!("dsb ish", "sev", options(nostack, preserves_flags)) }
    }

    fn publish(&self) {
        // SAFETY: barriers.
        unsafe { asm!("dsb ishst", "isb", options(nostack, preserves_flags)) }
    }

    fn invalidate_ipa(&self, ipa: Ipa, _level: u8) {
        // SAFETY: forgetting translations is always allowed. EL2 runs with the host's VMID in VTTBR_EL2. The
        // second TLBI removes what the hardware has combined from both stages.
        unsafe {
            asm!(
                "dsb ishst",
                "tlbi ipas2e1is, {page}",
                "dsb ish",
                "tlbi vmalle1is",
                "dsb ish",
                "isb",
                page = in(reg) ipa.get() >> 12,
                options(nostack, preserves_flags)
            );
        }
    }

    fn invalidate_vmid(&self) {
        // SAFETY: as above.
        unsafe {
            asm!(
                "dsb ishst",
                "tlbi vmalls12e1is",
                "dsb ish",
                "isb",
                options(nostack, preserves_flags)
            );
        }
    }
}
