//! Page tables: what is common to both stages, reading. `stage1` and `stage2` write.
//!
//! ```text
//! host stage 2: 40-bit IPA, start level 1, two concatenated root pages        hyp stage 1: 39-bit VA, start level 1
//!
//!  39        30 29    21 20    12 11       0
//! |  level 1   | level 2| level 3|  offset  |   10 bits at level 1: 1024 entries, two pages
//! ```
//! Tables are trusted: only hyp writes them. Callers hold the lock of the component the table belongs to.

mod stage1;
mod stage2;

use core::marker::PhantomData;

use crate::addr::{InputAddress, PAGE_SIZE, Pa, PageRange};
use crate::cpu::{Cpu, TableMemory};
use crate::desc::{Desc, Granule, LAST_LEVEL};
use crate::errno::Errno;
use crate::pool::Pool;

/// The granule of all of hyp's tables.
pub const GRANULE: Granule = Granule::K4;
/// Most root tables the architecture lets be concatenated.
const MAX_ROOTS: u64 = 16;

/// A page table whose input addresses are of type `A`.
#[derive(Debug)]
pub struct PageTable<A> {
    root: Pa,
    geometry: Geometry,
    input: PhantomData<A>,
}

/// What a table translates: the size of its input addresses and the level its walk starts at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bits of an input address.
    pub ia_bits: u8,
    /// Level of the root table, 0 to 3.
    pub start_level: u8,
}

impl Geometry {
    /// The host's stage 2: VTCR_EL2.T0SZ 24, SL0 1. 40 bits, because QEMU's `virt` has devices that high.
    pub const HOST_STAGE2: Self = Self {
        ia_bits: 40,
        start_level: 1,
    };
    /// EL2's stage 1: TCR_EL2.T0SZ 25.
    pub const HYP_STAGE1: Self = Self {
        ia_bits: 39,
        start_level: 1,
    };

    /// Concatenated pages of the root table; `None` where the walk cannot start at that level.
    pub fn root_pages(self) -> Option<u64> {
        if self.start_level > LAST_LEVEL || self.ia_bits > 48 {
            return None;
        }
        let entries =
            1_u64 << u32::from(self.ia_bits).checked_sub(GRANULE.level_shift(self.start_level))?;
        let pages = entries.div_ceil(PAGE_SIZE / 8);
        (pages <= MAX_ROOTS).then_some(pages)
    }

    /// An upper bound of the table pages needed to map all of `regions` page by page, root included:
    /// how big a pool must be that never runs dry. The host's needs some more for what is not RAM.
    pub fn pages_needed(self, regions: &[PageRange<Pa>]) -> u64 {
        let tables = |&region: &PageRange<Pa>| {
            (self.start_level..LAST_LEVEL).map(move |level| {
                let shift = GRANULE.level_shift(level);
                let end = region.end().get().div_ceil(1 << shift);
                end - (region.base().get() >> shift)
            })
        };
        regions.iter().flat_map(tables).sum::<u64>() + self.root_pages().unwrap_or(0)
    }
}

/// Where a table's functions find descriptors and further table pages.
#[derive(Clone, Copy)]
pub struct Mm<'a> {
    /// The CPU that executes, and the memory it sees.
    pub cpu: &'a dyn Cpu,
    /// The pool the table's pages come from.
    pub pool: &'a Pool<'a>,
}

/// The entry a walk ended at: a block, a page, or an invalid entry of any level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Physical address of the entry.
    pub slot: Pa,
    /// The entry.
    pub desc: Desc,
    /// The level of the table that holds it, 0 to 3.
    pub level: u8,
}

impl<A: InputAddress> PageTable<A> {
    /// An empty table, its root taken from `mm.pool`. `-EINVAL` if `geometry` cannot be, `-ENOMEM` if the pool
    /// cannot hold the root.
    pub fn new(mm: Mm<'_>, geometry: Geometry) -> Result<Self, Errno> {
        let pages = geometry.root_pages().ok_or(Errno::Inval)?;
        let root = mm.pool.alloc(mm.cpu, pages.next_power_of_two())?;
        Ok(Self {
            root,
            geometry,
            input: PhantomData,
        })
    }

    /// Physical address of the root table: TTBR0_EL2.BADDR or VTTBR_EL2.BADDR.
    pub fn root(&self) -> Pa {
        self.root
    }

    /// What the table translates.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The bytes of input addresses the table translates.
    pub fn input_size(&self) -> u64 {
        1 << self.geometry.ia_bits
    }

    /// The entry that decides about the page of `address`; invalid entries count. Where in the page the
    /// address lies does not matter. `-ERANGE` beyond the table's input addresses.
    pub fn get_leaf(&self, memory: &dyn TableMemory, address: A) -> Result<Leaf, Errno> {
        let ia = address.get();
        if ia >= self.input_size() {
            return Err(Errno::Range);
        }
        let mut table = self.root;
        let mut level = self.geometry.start_level;
        loop {
            let slot = self.slot(table, level, ia);
            let desc = Desc::from_raw(memory.read(slot));
            if !desc.is_table(level) {
                return Ok(Leaf { slot, desc, level });
            }
            table = desc.output_address();
            level += 1;
        }
    }

    /// Calls `visit` with every leaf that decides about a page of `range`, and the first input address it decides
    /// about, lowest first; stops at the first error.
    pub fn for_each_leaf(
        &self,
        memory: &dyn TableMemory,
        range: PageRange<A>,
        mut visit: impl FnMut(A, Leaf) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        self.check(range)?;
        let mut ia = range.base().get();
        while ia < range.end().get() {
            let leaf = self.get_leaf(memory, A::from_u64(ia))?;
            let size = GRANULE.level_size(leaf.level);
            let first = ia & !(size - 1);
            visit(A::from_u64(first), leaf)?;
            ia = first + size;
        }
        Ok(())
    }

    /// `-ERANGE` unless the table translates all of `range`.
    fn check(&self, range: PageRange<A>) -> Result<(), Errno> {
        if range.end().get() <= self.input_size() {
            Ok(())
        } else {
            Err(Errno::Range)
        }
    }

    /// Where the entry for `ia` stands in the table of `level` at `table`.
    fn slot(&self, table: Pa, level: u8, ia: u64) -> Pa {
        let mut index = ia >> GRANULE.level_shift(level);
        if level != self.geometry.start_level {
            // Concatenated roots are one table with more entries, and `ia` is within it.
            index %= PAGE_SIZE / 8;
        }
        table.wrapping_add(index * 8)
    }
}
