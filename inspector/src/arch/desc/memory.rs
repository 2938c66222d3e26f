//! Memory types and shareability.

use std::fmt;

/// Memory type of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Memory {
    /// Normal, inner and outer write-back.
    NormalWb,
    /// Normal, inner and outer write-through.
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

/// How one of the two cacheability nibbles reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cacheability {
    NonCacheable,
    WriteThrough,
    WriteBack,
}

impl Memory {
    /// The type that `MAIR` holds at `index` (0…7).
    pub fn from_mair(mair: u64, index: u8) -> Self {
        let byte = (mair >> (u32::from(index & 7) * 8)) as u8;
        match byte {
            // 0b0000dd01 is the same device type without the XS attribute (FEAT_XS).
            0x00 | 0x01 => Self::DeviceNGnRnE,
            0x04 | 0x05 => Self::DeviceNGnRE,
            0x08 | 0x09 => Self::DeviceNGRE,
            0x0c | 0x0d => Self::DeviceGRE,
            // FEAT_XS: Normal without XS, non-cacheable and write-through; FEAT_MTE2: Tagged Normal.
            0x40 => Self::NormalNc,
            0xa0 => Self::NormalWt,
            0xf0 => Self::NormalWb,
            _ => match (mair_nibble(byte >> 4), mair_nibble(byte & 0xf)) {
                (Some(outer), Some(inner)) => Self::normal(outer, inner, byte),
                _ => Self::Reserved(byte),
            },
        }
    }

    /// The type of a stage-2 leaf by MemAttr\[3:0\], with `HCR_EL2.FWB` as given.
    pub fn from_stage2(mem_attr: u8, fwb: bool) -> Self {
        // FWB=1: the fourth bit is RES0 or, with FEAT_MTE_PERM, NoTagAccess; it is no part of the type.
        match (fwb, if fwb { mem_attr & 7 } else { mem_attr & 0xf }) {
            (_, 0) => Self::DeviceNGnRnE,
            (_, 1) => Self::DeviceNGnRE,
            (_, 2) => Self::DeviceNGRE,
            (_, 3) => Self::DeviceGRE,
            (true, 5) => Self::NormalNc,
            (true, 6) => Self::NormalWb,
            (true, 7) => Self::Stage1,
            (true, _) => Self::Reserved(mem_attr),
            (false, bits) => match (stage2_pair(bits >> 2), stage2_pair(bits & 3)) {
                (Some(outer), Some(inner)) => Self::normal(outer, inner, bits),
                _ => Self::Reserved(bits),
            },
        }
    }

    fn normal(outer: Cacheability, inner: Cacheability, raw: u8) -> Self {
        match (outer, inner) {
            (Cacheability::WriteBack, Cacheability::WriteBack) => Self::NormalWb,
            (Cacheability::WriteThrough, Cacheability::WriteThrough) => Self::NormalWt,
            (Cacheability::NonCacheable, Cacheability::NonCacheable) => Self::NormalNc,
            _ => Self::NormalMixed(raw),
        }
    }
}

/// `MAIR` nibble of Normal memory: 0b0100 is non-cacheable; else bits 3:2 give transient (0, 1) or
/// not (2, 3) and write-through (even) or write-back (odd), and bits 1:0 the allocation hints, of
/// which 0b00 is only for the non-transient forms.
fn mair_nibble(nibble: u8) -> Option<Cacheability> {
    match nibble {
        0b0000 => None,
        0b0100 => Some(Cacheability::NonCacheable),
        0b0001..=0b0011 | 0b1000..=0b1011 => Some(Cacheability::WriteThrough),
        _ => Some(Cacheability::WriteBack),
    }
}

/// MemAttr\[3:2\] (outer) or \[1:0\] (inner) of Normal memory.
fn stage2_pair(pair: u8) -> Option<Cacheability> {
    match pair {
        1 => Some(Cacheability::NonCacheable),
        2 => Some(Cacheability::WriteThrough),
        3 => Some(Cacheability::WriteBack),
        _ => None,
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NormalWb => f.pad("normal-wb"),
            Self::NormalWt => f.pad("normal-wt"),
            Self::NormalNc => f.pad("normal-nc"),
            Self::NormalMixed(raw) => f.pad(&format!("normal-mixed:{raw:#x}")),
            Self::DeviceNGnRnE => f.pad("device-nGnRnE"),
            Self::DeviceNGnRE => f.pad("device-nGnRE"),
            Self::DeviceNGRE => f.pad("device-nGRE"),
            Self::DeviceGRE => f.pad("device-GRE"),
            Self::Stage1 => f.pad("stage1"),
            Self::Reserved(raw) => f.pad(&format!("reserved:{raw:#x}")),
        }
    }
}

/// Shareability of a leaf. Device and non-cacheable memory is outer shareable whatever it says.
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

impl Shareability {
    /// From an SH field, whose low two bits are looked at.
    pub fn from_sh(sh: u8) -> Self {
        match sh & 3 {
            0 => Self::None,
            1 => Self::Reserved,
            2 => Self::Outer,
            _ => Self::Inner,
        }
    }
}

impl fmt::Display for Shareability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Outer => "outer",
            Self::Inner => "inner",
            Self::Reserved => "reserved",
        })
    }
}
