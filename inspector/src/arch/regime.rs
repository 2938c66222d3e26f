//! A translation regime as its registers describe it.

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
}
