//! The descriptors of a whole regime, and the way of one address through it.

/// What a descriptor turned out to be, other than a pointer to a good table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Valid leaf above level 3.
    Block,
    /// Valid leaf at level 3.
    Page,
    /// Bit 0 clear and not zero. Whether that is an owner's annotation the hypervisor layer says.
    Invalid,
    /// A form that the architecture reserves: behaves as invalid.
    Reserved,
    /// Points to a table that is among its own ancestors, or was walked already.
    Loop,
    /// Points to a table that cannot be read.
    Unreadable,
}

/// Memory type of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Memory {
    /// Normal, inner write-back.
    NormalWb,
    /// Normal, inner write-through.
    NormalWt,
    /// Normal, non-cacheable.
    NormalNc,
    /// Normal, inner and outer differ: the raw attribute byte (MAIR) or nibble (MemAttr).
    NormalMixed(u8),
    /// Device-nGnRnE
    DeviceNGnRnE,
    /// Device-nGnRE
    DeviceNGnRE,
    /// Device-nGRE
    DeviceNGRE,
    /// Device-GRE
    DeviceGRE,
    /// Stage 2 with FWB: what stage 1 says.
    Stage1,
    /// An encoding that the architecture reserves: the raw attribute.
    Reserved(u8),
}

/// Shareability of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Shareability {
    /// Non-shareable.
    None,
    /// Outer shareable.
    Outer,
    /// Inner shareable.
    Inner,
    /// Reserved encoding 0b01.
    Reserved,
}

/// What a valid leaf says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Attributes {
    /// Reads are allowed.
    pub read: bool,
    /// Writes are allowed.
    pub write: bool,
    /// Execution at EL1 (stage 2) or at EL2 (stage 1) is allowed.
    pub execute: bool,
    /// Execution at EL0 is allowed; equal to `execute` where there is no difference.
    pub execute_el0: bool,
    /// Memory type.
    pub memory: Memory,
    /// Shareability.
    pub shareability: Shareability,
    /// Access flag.
    pub af: bool,
    /// Contiguous hint.
    pub contiguous: bool,
}

/// One descriptor that is not zero and does not lead to a good table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// First input address it covers.
    pub ia: u64,
    /// Bytes of input address it covers.
    pub size: u64,
    /// Level it stands at: −1…3.
    pub level: i8,
    /// What it is.
    pub kind: Kind,
    /// The word.
    pub raw: u64,
    /// Physical address of the word itself.
    pub at: u64,
    /// Output address, for leaves; the table's address for `Loop` and `Unreadable`.
    pub oa: Option<u64>,
    /// Attributes, for leaves.
    pub attributes: Option<Attributes>,
    /// Software bits 58:55.
    pub sw: u8,
    /// What is wrong with it, in one sentence.
    pub problem: Option<Box<str>>,
}

/// One page of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// Its physical address.
    pub pa: u64,
    /// Its level: −1…3.
    pub level: i8,
    /// First input address it resolves.
    pub ia: u64,
    /// Physical address of the table that points here; `None` for a root.
    pub parent: Option<u64>,
    /// Its words.
    pub words: Vec<u64>,
}
