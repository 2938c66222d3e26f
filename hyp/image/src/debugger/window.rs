//! The debugger's tables: hyp's, and a window on all RAM.
//!
//! hyp maps only what is its own or shared with it, and the debugger must not change that: what it shows would be its
//! own doing. So it has a root of its own, in use on the leading CPU while the others stand. Hyp's entries are copied
//! each time; the window is made once.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use hyp::addr::{PAGE_SIZE, Pa, PageRange};

use super::Shared;
use crate::arch::{isb, read_register, write_register};
use crate::layout::{OFFSET, va};

/// VA − PA of the window. EL2 maps nothing from entry 2 of its root on, up to its stacks.
const WINDOW: u64 = 0x8000_0000;
/// The entries of the root that are the window's: RAM up to 189 GiB.
const WINDOW_ENTRIES: core::ops::Range<usize> = 2..191;

/// Bits 1:0 of a descriptor: a table, and at level 3 a page; and a block.
const TABLE: u64 = 3;
const BLOCK: u64 = 1;
/// AF (10), SH inner (9:8), AP RW with its RES1 bit (7:6), attribute 0 of MAIR_EL2 (Normal), and XN (54).
const LEAF: u64 = 1 << 10 | 3 << 8 | 1 << 6 | 1 << 54;

const ENTRIES: usize = 512;

#[repr(C, align(4096))]
struct Table([u64; ENTRIES]);

const EMPTY: Table = Table([0; ENTRIES]);

/// Where a region of RAM begins and ends inside a block, smaller ones are needed: two levels at each end.
const SPARE: usize = 32;

#[unsafe(link_section = ".bss.debugger")]
static ROOT: Shared<Table> = Shared::new(EMPTY);
#[unsafe(link_section = ".bss.debugger")]
static TABLES: Shared<[Table; SPARE]> = Shared::new([EMPTY; SPARE]);

/// Hyp's own root.
#[unsafe(link_section = ".bss.debugger")]
static HYP_ROOT: AtomicU64 = AtomicU64::new(0);

/// Where the debugger sees the byte at `pa`, which is RAM.
#[inline(always)]
pub(super) fn window(pa: u64) -> *mut u8 {
    pa.wrapping_add(WINDOW) as *mut u8
}

/// Makes the window, over all RAM. CPU 0, once, before others run; `hyp_root` is what EL2 translates by.
pub(super) fn make(regions: &[PageRange<Pa>], hyp_root: Pa) {
    HYP_ROOT.store(hyp_root.get(), Ordering::Relaxed);
    let mut spare = 0;
    for region in regions {
        // SAFETY: CPU 0 is alone, and no CPU translates by these tables yet.
        unsafe {
            fill(
                &mut (*ROOT.get()).0,
                1,
                region.base().get() + WINDOW,
                region.end().get() + WINDOW,
                &mut spare,
            );
        }
    }
}

/// Maps VAs `start` to `end` in a table of `level`, in the largest blocks that fit.
fn fill(table: &mut [u64; ENTRIES], level: u32, start: u64, end: u64, spare: &mut usize) {
    let size = PAGE_SIZE << (9 * (3 - level));
    let mut at = start;
    while at < end {
        let base = at & !(size - 1);
        let next = end.min(base + size);
        let entry = &mut table[(base / size) as usize % ENTRIES];
        if at == base && next == base + size {
            let kind = if level == 3 { TABLE } else { BLOCK };
            *entry = (base - WINDOW) | LEAF | kind;
        } else {
            if *entry == 0 {
                assert!(
                    *spare < SPARE,
                    "RAM has more ends than there are tables for"
                );
                *entry = table_pa(*spare) | TABLE;
                *spare += 1;
            }
            let below = va(Pa::new(*entry & !(PAGE_SIZE - 1))).get() as *mut [u64; ENTRIES];
            // SAFETY: one of `TABLES`, which `table` is not: it was taken for this entry alone.
            fill(unsafe { &mut *below }, level + 1, at, next, spare);
        }
        at = next;
    }
}

fn table_pa(index: usize) -> u64 {
    let first = TABLES.get().cast::<Table>();
    (first.wrapping_add(index) as u64).wrapping_sub(OFFSET)
}

/// Has this CPU translate by the debugger's tables. Returns the root it used.
#[inline(always)]
pub(super) fn open() -> u64 {
    let hyp = va(Pa::new(HYP_ROOT.load(Ordering::Relaxed))).get() as *const u64;
    let own = ROOT.get().cast::<u64>();
    for index in (0..WINDOW_ENTRIES.start).chain(WINDOW_ENTRIES.end..ENTRIES) {
        // SAFETY: both are tables of 512 words, mapped for good; only the leading CPU is here. Volatile, so that it does
        // not become a call.
        unsafe {
            let entry = hyp.add(index).read_volatile();
            own.add(index).write_volatile(entry);
        }
    }
    let old = read_register!(ttbr0_el2);
    // SAFETY: it maps all that hyp's does, just so.
    unsafe { translate_by((own as u64).wrapping_sub(OFFSET)) }
    old
}

/// Has this CPU translate by `root` again: the window is gone.
#[inline(always)]
pub(super) fn close(root: u64) {
    // SAFETY: it was in use when this CPU stopped.
    unsafe { translate_by(root) }
}

/// # Safety
/// The tables at `root` map the code, data and stacks in use where they are.
#[inline(always)]
unsafe fn translate_by(root: u64) {
    // SAFETY: says the caller. Tables written before are seen; nothing of the old tables is kept.
    unsafe {
        asm!("dsb ishst", options(nostack, preserves_flags));
        write_register!(ttbr0_el2, root);
        isb();
        asm!(
            "tlbi alle2",
            "dsb nsh",
            "isb",
            options(nostack, preserves_flags)
        );
    }
}
