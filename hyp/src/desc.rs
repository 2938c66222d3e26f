//! VMSAv8-64 descriptors: how hyp encodes them, and what it reads back.
//!
//! Field positions are those of the Arm Architecture Reference Manual (DDI 0487), "Translation table descriptor
//! formats". The walker uses the 4 KiB granule; the address helpers know all three.

use core::fmt;
use core::ops::{BitOr, BitOrAssign};

use crate::addr::Pa;
use crate::errno::Errno;
use crate::page_state::OwnerId;

/// The last level, whose leaves are pages.
pub const LAST_LEVEL: u8 = 3;

/// Bits 58:55, ignored by hardware in the leaves of both stages: left to software.
pub const SW_BITS: u64 = 0xf << 55;

/// Bit 0: the descriptor is valid.
const VALID: u64 = 1 << 0;
/// Bit 1: a table, or at the last level a page.
const TABLE: u64 = 1 << 1;
/// Bit 10, AF: without it the first access would fault.
const AF: u64 = 1 << 10;
/// Bits 9:8, SH: inner shareable.
const SH_INNER: u64 = 3 << 8;
/// Bit 54, XN: no execution (stage 2, and stage 1 of EL2 with one VA range).
const XN: u64 = 1 << 54;

/// Stage 2, bits 5:2, MemAttr: Normal, write-back cacheable both inner and outer.
const S2_MEMATTR_NORMAL: u64 = 0xf << 2;
/// Stage 2, bits 5:2, MemAttr: Device-nGnRE.
const S2_MEMATTR_DEVICE: u64 = 0x1 << 2;
/// Stage 2, bit 6, S2AP\[0\]: the host may read.
const S2AP_R: u64 = 1 << 6;
/// Stage 2, bit 7, S2AP\[1\]: the host may write.
const S2AP_W: u64 = 1 << 7;

/// Stage 1, bits 4:2, AttrIndx: MAIR_EL2 attribute 1, which must be Device-nGnRE. Attribute 0 is Normal.
const S1_ATTR_DEVICE: u64 = 1 << 2;
/// Stage 1, bits 7:6, AP\[2:1\]: read and write. AP\[1\] is RES1 in a regime of one exception level.
const S1_AP_RW: u64 = 1 << 6;
/// Stage 1, bits 7:6, AP\[2:1\]: read only.
const S1_AP_RO: u64 = 3 << 6;
/// Stage 1, AP\[2:1\] as a field.
const S1_AP: u64 = 3 << 6;

/// Bits 9:2 of an invalid descriptor: the owner's id. Below the software bits, so that both can be used.
const OWNER_SHIFT: u32 = 2;

/// A translation granule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granule {
    /// 4 KiB pages, 9 bits a level.
    K4,
    /// 16 KiB pages, 11 bits a level.
    K16,
    /// 64 KiB pages, 13 bits a level.
    K64,
}

impl Granule {
    /// log2 of the page size.
    pub const fn shift(self) -> u32 {
        match self {
            Self::K4 => 12,
            Self::K16 => 14,
            Self::K64 => 16,
        }
    }

    /// log2 of the bytes one entry of a table at `level` (0 to 3) covers.
    pub const fn level_shift(self, level: u8) -> u32 {
        self.shift() + (LAST_LEVEL - level) as u32 * (self.shift() - 3)
    }

    /// The bytes one entry of a table at `level` (0 to 3) covers.
    pub const fn level_size(self, level: u8) -> u64 {
        1 << self.level_shift(level)
    }

    /// Whether a table at `level` may hold a block or page: never at level 0, at level 1 only with 4 KiB pages.
    pub const fn supports_leaf(self, level: u8) -> bool {
        match level {
            0 => false,
            1 => matches!(self, Self::K4),
            _ => level <= LAST_LEVEL,
        }
    }

    /// The output address of a valid descriptor, up to bit 47; with 64 KiB pages up to bit 51, whose top bits
    /// 51:48 stand in bits 15:12.
    pub const fn output_address(self, word: u64) -> Pa {
        let low = word & ((1 << 48) - (1 << self.shift()));
        match self {
            Self::K64 => Pa::new(low | (word >> 12 & 0xf) << 48),
            Self::K4 | Self::K16 => Pa::new(low),
        }
    }

    /// The bits of a descriptor that hold the output address `pa`, aligned to the granule:
    /// what [`Granule::output_address`] undoes.
    pub const fn address_bits(self, pa: Pa) -> u64 {
        let low = pa.get() & ((1 << 48) - (1 << self.shift()));
        match self {
            Self::K64 => low | (pa.get() >> 48 & 0xf) << 12,
            Self::K4 | Self::K16 => low,
        }
    }
}

/// What a mapping allows, and the software bits it carries. Software bits stand where they do in the descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Prot(u64);

impl Prot {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Execute.
    pub const X: Self = Self(1 << 0);
    /// Write.
    pub const W: Self = Self(1 << 1);
    /// Read.
    pub const R: Self = Self(1 << 2);
    /// Device memory instead of Normal. Written, never read back.
    pub const DEVICE: Self = Self(1 << 3);
    /// Software bit 0: bit 55.
    pub const SW0: Self = Self(1 << 55);
    /// Software bit 1: bit 56.
    pub const SW1: Self = Self(1 << 56);
    /// Software bit 2: bit 57.
    pub const SW2: Self = Self(1 << 57);
    /// Software bit 3: bit 58.
    pub const SW3: Self = Self(1 << 58);
    /// Read and write.
    pub const RW: Self = Self(Self::R.0 | Self::W.0);
    /// Read and execute.
    pub const RX: Self = Self(Self::R.0 | Self::X.0);
    /// Read, write and execute.
    pub const RWX: Self = Self(Self::RW.0 | Self::X.0);

    /// All of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The software bits, in place.
    pub const fn sw_bits(self) -> u64 {
        self.0 & SW_BITS
    }

    /// The same without what is in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Prot {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for Prot {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl fmt::Debug for Prot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |bit, letter| if self.contains(bit) { letter } else { '-' };
        write!(
            f,
            "{}{}{}",
            letter(Self::R, 'R'),
            letter(Self::W, 'W'),
            letter(Self::X, 'X')
        )?;
        if self.contains(Self::DEVICE) {
            write!(f, " device")?;
        }
        for bit in (0..4).filter(|bit| self.0 >> (55 + bit) & 1 != 0) {
            write!(f, " SW{bit}")?;
        }
        Ok(())
    }
}

/// One 64-bit descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Desc(u64);

impl Desc {
    /// Nothing there, and the host's if it is RAM.
    pub const ZERO: Self = Self(0);

    /// The descriptor with this value.
    pub const fn from_raw(word: u64) -> Self {
        Self(word)
    }

    /// The value.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// A descriptor of the next level's table at `table`.
    pub const fn table(table: Pa) -> Self {
        Self(Granule::K4.address_bits(table) | TABLE | VALID)
    }

    /// An invalid descriptor that says who owns the page. The host's is [`Desc::ZERO`].
    pub const fn annotation(owner: OwnerId) -> Self {
        Self((owner as u64) << OWNER_SHIFT)
    }

    /// A stage-2 leaf of `level`. `-EINVAL` for device memory that may be executed.
    pub fn stage2_leaf(oa: Pa, level: u8, prot: Prot) -> Result<Self, Errno> {
        let device = prot.contains(Prot::DEVICE);
        if device && prot.contains(Prot::X) {
            return Err(Errno::Inval);
        }
        let mut attributes = if device {
            S2_MEMATTR_DEVICE
        } else {
            S2_MEMATTR_NORMAL
        };
        attributes |= if prot.contains(Prot::R) { S2AP_R } else { 0 };
        attributes |= if prot.contains(Prot::W) { S2AP_W } else { 0 };
        Ok(Self::leaf(oa, level, attributes, prot))
    }

    /// A leaf of EL2's stage 1 at `level`. `-EINVAL` for one that cannot be read, that may be both written and
    /// executed, or for device memory that may be executed.
    pub fn hyp_leaf(oa: Pa, level: u8, prot: Prot) -> Result<Self, Errno> {
        let device = prot.contains(Prot::DEVICE);
        let write = prot.contains(Prot::W);
        if !prot.contains(Prot::R) || prot.contains(Prot::X) && (write || device) {
            return Err(Errno::Inval);
        }
        let mut attributes = if device { S1_ATTR_DEVICE } else { 0 };
        attributes |= if write { S1_AP_RW } else { S1_AP_RO };
        Ok(Self::leaf(oa, level, attributes, prot))
    }

    fn leaf(oa: Pa, level: u8, attributes: u64, prot: Prot) -> Self {
        let kind = if level == LAST_LEVEL {
            TABLE | VALID
        } else {
            VALID
        };
        let xn = if prot.contains(Prot::X) { 0 } else { XN };
        Self(Granule::K4.address_bits(oa) | attributes | AF | SH_INNER | xn | prot.sw_bits() | kind)
    }

    /// Whether hardware translates through it.
    pub const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    /// Whether it leads to another table, in a table of `level`.
    pub const fn is_table(self, level: u8) -> bool {
        level < LAST_LEVEL && self.0 & (TABLE | VALID) == TABLE | VALID
    }

    /// The output address, or the next table's.
    pub const fn output_address(self) -> Pa {
        Granule::K4.output_address(self.0)
    }

    /// Whether `self` and `other` are equal but for the software bits.
    pub const fn differs_only_in_sw(self, other: Self) -> bool {
        (self.0 ^ other.0) & !SW_BITS == 0
    }

    /// What a stage-2 leaf allows. Software bits always; nothing else if it is invalid. Device is not read back.
    pub fn stage2_prot(self) -> Prot {
        let mut prot = Prot(self.0 & SW_BITS);
        if self.is_valid() {
            prot |= if self.0 & S2AP_R != 0 {
                Prot::R
            } else {
                Prot::NONE
            };
            prot |= if self.0 & S2AP_W != 0 {
                Prot::W
            } else {
                Prot::NONE
            };
            prot |= if self.0 & XN == 0 {
                Prot::X
            } else {
                Prot::NONE
            };
        }
        prot
    }

    /// What a leaf of EL2's stage 1 allows. Software bits always; nothing else if it is invalid. Device is not
    /// read back.
    pub fn hyp_prot(self) -> Prot {
        let mut prot = Prot(self.0 & SW_BITS);
        if self.is_valid() {
            prot |= match self.0 & S1_AP {
                S1_AP_RO => Prot::R,
                S1_AP_RW => Prot::RW,
                _ => Prot::NONE,
            };
            prot |= if self.0 & XN == 0 {
                Prot::X
            } else {
                Prot::NONE
            };
        }
        prot
    }

    /// The same stage-2 leaf, also allowing what `prot` allows.
    #[must_use]
    pub const fn stage2_relaxed(self, prot: Prot) -> Self {
        let mut word = self.0;
        if prot.contains(Prot::R) {
            word |= S2AP_R;
        }
        if prot.contains(Prot::W) {
            word |= S2AP_W;
        }
        if prot.contains(Prot::X) {
            word &= !XN;
        }
        Self(word)
    }
}

impl fmt::Debug for Desc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

#[cfg(test)]
mod tests;
