//! The two programs as their files have them, so that no test knows an address.

use object::{Object, ObjectSegment, ObjectSymbol};
use std::path::{Path, PathBuf};

/// An instruction: what it looks like, and in which bits.
type Pattern = (u32, u32);

/// HVC #0.
pub(crate) const HVC: Pattern = (0xd400_0002, u32::MAX);
/// WFI.
pub(crate) const WFI: Pattern = (0xd503_207f, u32::MAX);
/// BL.
pub(crate) const BL: Pattern = (0x9400_0000, 0xfc00_0000);
/// LDR of 32 bits without an offset: address register in bits 9:5, the other in 4:0.
pub(crate) const LDR: Pattern = (0xb940_0000, 0xffff_fc00);
/// STR, likewise.
pub(crate) const STR: Pattern = (0xb900_0000, 0xffff_fc00);
/// MSR CNTV_TVAL_EL0: register in bits 4:0.
pub(crate) const MSR_CNTV_TVAL: Pattern = (0xd51b_e300, !0x1f);

/// A program's symbols and memory.
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    symbols: Vec<(String, u64)>,
    segments: Vec<(u64, Vec<u8>)>,
}

impl Program {
    /// Reads an ELF file.
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("the program");
        let elf = object::File::parse(&*bytes).expect("an ELF");
        let symbol = |symbol: object::Symbol<'_, '_>| {
            let name = rustc_demangle::demangle(symbol.name().ok()?);
            Some((format!("{name:#}"), symbol.address()))
        };
        let segment = |segment: object::Segment<'_, '_>| {
            let data = segment.data().expect("in the file");
            (segment.address(), data.to_vec())
        };
        Self {
            path: path.to_owned(),
            symbols: elf.symbols().filter_map(symbol).collect(),
            segments: elf.segments().map(segment).collect(),
        }
    }

    /// The address of the one symbol with this name.
    pub(crate) fn address(&self, name: &str) -> u64 {
        let mut found = self.symbols.iter().filter(|(known, _)| known == name);
        match (found.next(), found.next()) {
            (Some((_, address)), None) => *address,
            (first, _) => panic!("{name} is there {}", first.map_or("never", |_| "twice")),
        }
    }

    /// Where it begins.
    pub(crate) fn begin(&self) -> u64 {
        let begins = self.segments.iter().map(|(base, _)| *base);
        begins.min().expect("it has segments")
    }

    /// The instruction at `address`.
    pub(crate) fn instruction(&self, address: u64) -> u32 {
        let mut found = self.segments.iter().filter_map(|(base, data)| {
            let offset = usize::try_from(address.checked_sub(*base)?).ok()?;
            data.get(offset..)?.first_chunk()
        });
        u32::from_le_bytes(*found.next().expect("in the program"))
    }

    /// Where the first instruction is that looks like this, at `from` or later.
    pub(crate) fn find(&self, (pattern, mask): Pattern, from: u64) -> u64 {
        let mut places = (from..).step_by(4);
        let found = places.find(|&place| self.instruction(place) & mask == pattern);
        found.expect("addresses go on")
    }

    /// Whether `to` is where the instruction at `from` may lead. Those that go where a register says are not known.
    pub(crate) fn leads(&self, from: u64, to: u64) -> bool {
        let word = self.instruction(from);
        let relative = |bits: u32, shift: u32| {
            let offset = (u64::from(word >> shift) << (64 - bits)).cast_signed() >> (62 - bits);
            from.wrapping_add_signed(offset)
        };
        match word {
            // B and BL: imm26.
            _ if word & 0x7c00_0000 == 0x1400_0000 => to == relative(26, 0),
            // B.cond, CBZ and CBNZ: imm19.
            _ if word & 0xff00_0000 == 0x5400_0000 || word & 0x7e00_0000 == 0x3400_0000 => {
                to == from + 4 || to == relative(19, 5)
            }
            // TBZ and TBNZ: imm14.
            _ if word & 0x7e00_0000 == 0x3600_0000 => to == from + 4 || to == relative(14, 5),
            _ => to == from + 4,
        }
    }
}
