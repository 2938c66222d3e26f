//! What hyp needs from the machine it runs on: memory that holds tables, and the CPU that executes.
//!
//! The image implements these with volatile accesses and instructions, the simulated machine with
//! its own RAM and scheduler. Every function that needs them takes a `&dyn Cpu`, so that one [`crate::Hyp`]
//! can be shared by all CPUs.

use crate::addr::{Ipa, PAGE_SIZE, Pa};

/// Physical memory as table pages are read and written: 64-bit words at multiples of 8.
///
/// hyp only passes addresses inside the pools it was given.
pub trait TableMemory {
    /// Reads one descriptor in a single access.
    fn read(&self, at: Pa) -> u64;

    /// Writes one descriptor in a single access, with store-release: a table walk that sees it also sees
    /// everything written before it.
    fn write(&self, at: Pa, word: u64);

    /// Fills one page with zeros.
    fn zero_page(&self, page: Pa) {
        for offset in (0..PAGE_SIZE).step_by(8) {
            self.write(page.wrapping_add(offset), 0);
        }
    }
}

/// The CPU that executes hyp, and the memory it sees.
pub trait Cpu: TableMemory {
    /// This CPU's number: 0 up to the number of CPUs, never `u32::MAX`.
    fn id(&self) -> u32;

    /// Called once before each ticket is drawn. Returns the address of the code that takes the lock, as a
    /// debugger finds it in the symbol table, or 0 if that cannot be known.
    /// A simulated CPU lets others have their turn here.
    fn lock_taker(&self) -> u64;

    /// Waits a moment while another CPU holds a lock (`WFE`).
    fn relax(&self);

    /// Wakes CPUs that wait in [`Cpu::relax`], after everything written before is visible (`DSB; SEV`).
    fn wake(&self);

    /// Makes descriptors written before visible to table walks (`DSB ISHST; ISB`).
    fn publish(&self);

    /// Forgets the host's stage-2 translation of the leaf at `ipa` and `level` on all CPUs, and stage-1
    /// translations that were combined with it; complete on return (`TLBI IPAS2E1IS; DSB; TLBI VMALLE1IS; DSB; ISB`).
    fn invalidate_ipa(&self, ipa: Ipa, level: u8);

    /// Forgets all of the host's translations on all CPUs, cached table descriptors included; complete on
    /// return (`TLBI VMALLS12E1IS; DSB; ISB`).
    fn invalidate_vmid(&self);
}
