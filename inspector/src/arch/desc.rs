//! One word of a table as the walker reads it.
//!
//! Layouts (DDI 0487, sections D8.3.1 for tables and D8.3.2 for blocks and pages). `n` is the lowest
//! address bit that the level resolves:
//!
//! ```text
//!        63   59 58  55 54 53 52 51 50 49  48 47           n      16 15   12 11 10 9  8 7  6 5     2 1 0
//! stage 2       |  SW  |  XN |C |DBM|  |0  0 |  OA[47:n]   |..|nT|   0   |Fn|AF| SH  |S2AP|MemAttr|b|1
//! stage 1 |PBHA |  SW  |XN|PX|C |DBM|GP|0  0 |  OA[47:n]   |..|nT|   0   |nG|AF| SH  | AP |NS|Idx |b|1
//! DS=1                                |OA[49:n]                                 |51:50|
//! 64K, 52 bits                               |  OA[47:n]   |   | OA[51:48]
//! ```

mod memory;

pub use memory::{Memory, Shareability};

use super::regime::{Granule, Regime, Stage};
use std::fmt;

/// What a word is at its level.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Shape {
    /// Bit 0 clear: the walk ends in a translation fault. The other bits are software's.
    Invalid,
    /// Valid, but in a form that the architecture reserves or that faults by its address.
    Reserved,
    /// Points to a table of the next level.
    Table,
    /// Valid leaf above level 3.
    Block,
    /// Valid leaf at level 3.
    Page,
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

/// What is wrong with a valid word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// Bits 1:0 are 0b01 at level 3.
    Level3Block,
    /// Bits 1:0 are 0b01 at a level that has no blocks.
    NoBlockHere {
        /// The level.
        level: i8,
        /// The granule.
        granule: Granule,
    },
    /// The output address, or the next table's, does not fit the regime's output size.
    Beyond {
        /// The address.
        address: u64,
        /// The regime's output size in bits.
        oa_bits: u32,
    },
    /// Address bits below the size of the block are set.
    Misaligned {
        /// The address as written.
        address: u64,
        /// What the leaf covers, in bytes.
        size: u64,
    },
    /// Bits that are RES0 in this form are set; the walker ignores them.
    Res0(u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level3Block => {
                f.write_str("bits 1:0 are 0b01, which is reserved at level 3; behaves as invalid")
            }
            Self::NoBlockHere { level, granule } => write!(
                f,
                "bits 1:0 are 0b01, but there are no blocks at level {level} of the {} KiB granule; \
                 behaves as invalid",
                granule.bytes() >> 10
            ),
            Self::Beyond { address, oa_bits } => write!(
                f,
                "address {address:#x} is beyond the {oa_bits} bits of output address; address size fault"
            ),
            Self::Misaligned { address, size } => write!(
                f,
                "output address {address:#x} is not aligned to the {size:#x} bytes it covers"
            ),
            Self::Res0(bits) => write!(f, "bits {bits:#x} are RES0 and set"),
        }
    }
}

/// A decoded word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// The word.
    pub raw: u64,
    /// What it is.
    pub shape: Shape,
    /// Output address of a leaf, or address of the next table; also of a reserved word that has one.
    pub oa: Option<u64>,
    /// Attributes of a leaf.
    pub attributes: Option<Attributes>,
    /// Software bits 58:55.
    pub sw: u8,
    /// What is wrong with it. A leaf or table with RES0 bits set keeps its shape.
    pub fault: Option<Fault>,
}

/// What the table descriptors above a stage-1 leaf take away (APTable, XNTable, PXNTable).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Limits {
    no_write: bool,
    no_el0: bool,
    no_execute: bool,
    no_execute_el0: bool,
}

impl Limits {
    /// The limits below `table`, a valid table descriptor under these limits.
    #[must_use]
    pub fn below(self, regime: &Regime, table: u64) -> Self {
        let Stage::One { e2h } = regime.stage else {
            return self;
        };
        if regime.hpd {
            return self;
        }
        let bit = |n: u32| table >> n & 1 != 0;
        // With one privilege level APTable[0] and PXNTable are RES0, and bit 60 is XNTable.
        Self {
            no_write: self.no_write | bit(62),
            no_el0: self.no_el0 | e2h & bit(61),
            no_execute: self.no_execute | if e2h { bit(59) } else { bit(60) },
            no_execute_el0: self.no_execute_el0 | bit(60),
        }
    }
}

/// Decodes a word that stands in a table of `level` (−1…3), by itself.
pub fn decode(regime: &Regime, level: i8, raw: u64) -> Descriptor {
    decode_below(regime, Limits::default(), level, raw)
}

/// Decodes a word that stands in a table of `level` (−1…3), below tables with these limits.
pub fn decode_below(regime: &Regime, limits: Limits, level: i8, raw: u64) -> Descriptor {
    let mut descriptor = Descriptor {
        raw,
        shape: Shape::Invalid,
        oa: None,
        attributes: None,
        sw: (raw >> 55 & 0xf) as u8,
        fault: None,
    };
    if raw & 1 == 0 {
        return descriptor;
    }
    descriptor.shape = match (level, raw & 2 != 0) {
        (3, true) => Shape::Page,
        (3, false) => Shape::Reserved,
        (_, true) => Shape::Table,
        (_, false) if regime.has_blocks(level) => Shape::Block,
        (_, false) => Shape::Reserved,
    };
    if descriptor.shape == Shape::Reserved {
        descriptor.fault = Some(match level {
            3 => Fault::Level3Block,
            _ => Fault::NoBlockHere {
                level,
                granule: regime.granule,
            },
        });
        return descriptor;
    }

    let form = Form::new(regime, level, descriptor.shape);
    let address = form.address(raw);
    descriptor.oa = Some(address);
    if descriptor.shape != Shape::Table {
        descriptor.attributes = Some(attributes(regime, limits, raw));
    }
    descriptor.fault = if address >> regime.oa_bits != 0 {
        Some(Fault::Beyond {
            address,
            oa_bits: regime.oa_bits,
        })
    } else if raw & form.below != 0 {
        Some(Fault::Misaligned {
            address: address | raw & form.below,
            size: regime.entry_size(level),
        })
    } else if raw & form.res0 != 0 {
        Some(Fault::Res0(raw & form.res0))
    } else {
        None
    };
    if matches!(
        descriptor.fault,
        Some(Fault::Beyond { .. } | Fault::Misaligned { .. })
    ) {
        descriptor.shape = Shape::Reserved;
    }
    descriptor
}

/// Where the address of a valid word stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Form {
    /// Lowest bit of the address: log2 of what a leaf covers, of the granule for a table.
    pub(crate) low: u32,
    /// Highest address bit that stands in its own place: 47, or 49 with DS=1.
    pub(crate) high: u32,
    /// Bits 9:8 are OA\[51:50\].
    pub(crate) high_in_9_8: bool,
    /// Bits 15:12 are OA\[51:48\].
    pub(crate) high_in_15_12: bool,
    /// Bits that would be address, were the leaf smaller.
    pub(crate) below: u64,
    /// Other bits that are RES0.
    pub(crate) res0: u64,
}

impl Form {
    pub(crate) fn new(regime: &Regime, level: i8, shape: Shape) -> Self {
        let page = regime.granule.shift();
        let low = match shape {
            Shape::Block => regime.granule.level_shift(level),
            _ => page,
        };
        let high_in_15_12 = regime.has_high_bits_15_12();
        let high = if regime.lpa2 { 49 } else { 47 };
        // From bit 12 (or 16, where 15:12 are address) up to the address; a block has nT at bit 16,
        // of which a page has no need.
        let from = if high_in_15_12 { 16 } else { 12 };
        let mut below = ones(from, low);
        if shape == Shape::Block {
            below &= !(1 << 16);
        }
        if shape == Shape::Table {
            // Bits 11:2 are ignored in a table, and 9:8 are address with DS=1.
            return Self {
                low,
                high,
                high_in_9_8: regime.lpa2,
                high_in_15_12,
                below: 0,
                res0: below | ones(high + 1, 51) | table_res0(regime.stage),
            };
        }
        let guarded = if regime.stage == Stage::Two { 51 } else { 50 };
        Self {
            low,
            high,
            high_in_9_8: regime.lpa2,
            high_in_15_12,
            below,
            res0: ones(high + 1, guarded) | leaf_res0(regime.stage),
        }
    }

    /// The address in `raw`.
    pub(crate) fn address(&self, raw: u64) -> u64 {
        let mut address = raw & ones(self.low, self.high + 1);
        if self.high_in_9_8 {
            address |= (raw >> 8 & 3) << 50;
        }
        if self.high_in_15_12 {
            address |= (raw >> 12 & 0xf) << 48;
        }
        address
    }
}

/// Bits `from..to`; none when `to <= from`. Both at most 63.
fn ones(from: u32, to: u32) -> u64 {
    ((1u64 << to) - 1) & !((1u64 << from.min(to)) - 1)
}

/// Bits 63:59 of a table descriptor: attributes for stage 1, of which EL2's stage 1 with one
/// privilege level lacks APTable\[0\] and PXNTable; RES0 for stage 2.
fn table_res0(stage: Stage) -> u64 {
    match stage {
        Stage::One { e2h: true } => 0,
        Stage::One { e2h: false } => 1 << 61 | 1 << 59,
        Stage::Two => 0x1f << 59,
    }
}

/// With one privilege level PXN (53) and nG (11) are RES0.
fn leaf_res0(stage: Stage) -> u64 {
    match stage {
        Stage::One { e2h: false } => 1 << 53 | 1 << 11,
        Stage::One { e2h: true } | Stage::Two => 0,
    }
}

/// The attributes of a leaf.
fn attributes(regime: &Regime, limits: Limits, raw: u64) -> Attributes {
    let bit = |n: u32| raw >> n & 1 != 0;
    // With HD=1, DBM=1 says "writable, and clean as long as the write permission is absent".
    let clean = regime.hd && bit(51);
    let (read, write, execute, execute_el0) = match regime.stage {
        Stage::Two => {
            // XN[1:0]: 0 both may execute, 1 EL0 only, 2 neither, 3 EL1 only. Without FEAT_XNX bit 53
            // is not looked at.
            let (el1, el0) = match (regime.xnx, bit(54), bit(53)) {
                (_, false, false) | (false, false, true) => (true, true),
                (true, false, true) => (false, true),
                (_, true, false) | (false, true, true) => (false, false),
                (true, true, true) => (true, false),
            };
            (bit(6), bit(7) || clean, el1, el0)
        }
        Stage::One { e2h } => {
            // AP[2] (bit 7) takes writes away; AP[1] (bit 6) gives EL0 access where there is an EL0.
            let write = (!bit(7) || clean) && !limits.no_write;
            let wxn = regime.wxn && write;
            let el0_writes = write && bit(6) && !limits.no_el0;
            if e2h {
                // What EL0 may write, EL2 does not execute.
                let el2_never = bit(53) || limits.no_execute || wxn || el0_writes;
                let el0_never = bit(54) || limits.no_execute_el0 || regime.wxn && el0_writes;
                (true, write, !el2_never, !el0_never)
            } else {
                let execute = !(bit(54) || limits.no_execute || wxn);
                (true, write, execute, execute)
            }
        }
    };
    let memory = match regime.stage {
        Stage::One { .. } => Memory::from_mair(regime.mair, (raw >> 2 & 7) as u8),
        Stage::Two => Memory::from_stage2((raw >> 2 & 0xf) as u8, regime.fwb),
    };
    let sh = if regime.lpa2 {
        regime.sh0
    } else {
        (raw >> 8 & 3) as u8
    };
    Attributes {
        read,
        write,
        execute,
        execute_el0,
        memory,
        shareability: Shareability::from_sh(sh),
        af: bit(10),
        contiguous: bit(52),
    }
}

#[cfg(test)]
mod tests;
