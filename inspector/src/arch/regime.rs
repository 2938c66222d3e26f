//! A translation regime as its registers describe it.

mod registers;

pub use registers::{El1Stage1, El2Stage1, IdRegisters, RegimeError, vmid};

use crate::addr::Span;

/// Size of the smallest page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Granule {
    /// 4 KiB
    Kib4,
    /// 16 KiB
    Kib16,
    /// 64 KiB
    Kib64,
}

impl Granule {
    /// log2 of the page size in bytes.
    pub fn shift(self) -> u32 {
        match self {
            Self::Kib4 => 12,
            Self::Kib16 => 14,
            Self::Kib64 => 16,
        }
    }

    /// Page size, and size of a table, in bytes.
    pub fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// Bits of address that one level resolves.
    pub fn index_bits(self) -> u32 {
        self.shift() - 3
    }

    /// Lowest input address bit that a table at `level` (−1…3) resolves: log2 of what one of its
    /// descriptors covers.
    pub fn level_shift(self, level: i8) -> u32 {
        self.shift() + u32::from((3 - level).unsigned_abs()) * self.index_bits()
    }
}

/// Which stage of translation, and for EL2 stage 1 which descriptor format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    /// EL2 stage 1 with `HCR_EL2.E2H` as given: with E2H=0 one privilege level (AP\[1\] is RES1, XN
    /// is bit 54), with E2H=1 two (UXN bit 54, PXN bit 53).
    One {
        /// `HCR_EL2.E2H`
        e2h: bool,
    },
    /// Stage 2 of EL1&0.
    Two,
}

/// Everything needed to walk and decode one set of tables.
///
/// The constructors check what the architecture asks of the registers; use them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Regime {
    /// Stage and format.
    pub stage: Stage,
    /// Physical address of the first root table.
    pub root: u64,
    /// Number of concatenated root tables: 1, 2, 4, 8 or 16.
    pub root_pages: u64,
    /// First level walked: −1…3.
    pub start_level: i8,
    /// Granule of the tables.
    pub granule: Granule,
    /// Input address size in bits.
    pub ia_bits: u32,
    /// Output address size in bits.
    pub oa_bits: u32,
    /// FEAT_LPA2 descriptor format (`DS`=1).
    pub lpa2: bool,
    /// `MAIR_EL2`; stage 1 only.
    pub mair: u64,
    /// `HCR_EL2.FWB`: the other meaning of stage-2 MemAttr.
    pub fwb: bool,
    /// FEAT_XNX: stage-2 XN\[1:0\] tells EL1 from EL0.
    pub xnx: bool,
    /// Shareability of `DS`=1 descriptors, which have no SH field: `SH0`.
    pub sh0: u8,
    /// `HD`: hardware manages dirty state, so that DBM=1 makes a read-only leaf writable.
    pub hd: bool,
    /// `SCTLR_EL2.WXN`: what is writable is not executable; stage 1 only.
    pub wxn: bool,
    /// `HPD`/`HPD0`: table descriptors restrict nothing below them; stage 1 only.
    pub hpd: bool,
    /// What is wrong with the registers though the tables can be read, in one sentence.
    pub problem: Option<String>,
}

impl Regime {
    /// Bytes of input address that one descriptor at `level` covers.
    pub fn entry_size(&self, level: i8) -> u64 {
        1 << self.granule.level_shift(level)
    }

    /// Number of descriptors in all root tables together.
    pub fn root_entries(&self) -> u64 {
        1 << (self.ia_bits - self.granule.level_shift(self.start_level))
    }

    /// The root tables; less than a page where the input address needs fewer descriptors.
    pub fn root_span(&self) -> Span {
        Span::new(self.root, self.root_entries() * 8)
    }

    /// Which descriptor of its table (of all root tables, for the start level) resolves `ia` at
    /// `level`. `ia` must lie within `ia_bits`.
    pub fn index(&self, level: i8, ia: u64) -> u64 {
        let index = ia >> self.granule.level_shift(level);
        if level == self.start_level {
            index
        } else {
            index & ((1 << self.granule.index_bits()) - 1)
        }
    }

    /// Whether a valid descriptor with bit 1 clear is a block at `level` (DDI 0487 table D8-14 ff.).
    pub fn has_blocks(&self, level: i8) -> bool {
        match self.granule {
            Granule::Kib4 => level == 1 || level == 2 || level == 0 && self.lpa2,
            Granule::Kib16 => level == 2 || level == 1 && self.lpa2,
            Granule::Kib64 => level == 2 || level == 1 && self.has_high_bits_15_12(),
        }
    }

    /// FEAT_LPA: 64 KiB descriptors carry address bits 51:48 in bits 15:12.
    pub(crate) fn has_high_bits_15_12(&self) -> bool {
        self.granule == Granule::Kib64 && self.oa_bits == 52
    }
}

#[cfg(test)]
mod tests;
