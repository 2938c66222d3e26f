//! Looking an address up in the tables through physical reads, whatever somebody wrote into them.
//!
//! This is not the library's own walker: that one trusts its tables, and it may be stopped halfway
//! through changing them. Here a table that cannot be read or comes back to itself is an answer.

use super::{Facts, Inferior, read_u64};

/// A translation regime of hyp: 4 KiB granule, starting at level 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Regime {
    /// The host's stage 2: 40 bits, two concatenated root tables.
    HostS2,
    /// Hyp's stage 1: 39 bits, one root table.
    HypS1,
}

impl Regime {
    /// Both, in the order of documents.
    pub const ALL: [Self; 2] = [Self::HostS2, Self::HypS1];

    /// `host-s2`, `hyp-s1`.
    pub fn name(self) -> &'static str {
        match self {
            Self::HostS2 => "host-s2",
            Self::HypS1 => "hyp-s1",
        }
    }

    /// Size of the input address in bits: 64 less T0SZ.
    pub fn ia_bits(self) -> u32 {
        match self {
            Self::HostS2 => 40,
            Self::HypS1 => 39,
        }
    }

    /// How many root tables lie one behind the other.
    pub fn root_pages(self) -> u64 {
        1 << (self.ia_bits() - 39)
    }

    /// Physical address of the first root table.
    pub fn root(self, facts: &Facts<'_>) -> u64 {
        match self {
            Self::HostS2 => facts.host_s2.root,
            Self::HypS1 => facts.hyp_s1.root,
        }
    }
}

/// What a lookup ended at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Descriptor 0: nothing is mapped or said.
    Empty,
    /// Invalid, but not 0: it says something, in profile A who the owner is.
    Invalid,
    /// A block at level 1 or 2.
    Block,
    /// A page.
    Page,
    /// A form the architecture reserves: bits 1:0 are 0b01 at level 3.
    Reserved,
    /// A table that lies on the path to itself.
    Loop,
    /// A table, or for the root the descriptor itself, that is not in RAM.
    Unreadable,
    /// The address is beyond the regime's input size.
    OutOfRange,
}

/// Where a lookup ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What kind of end it is.
    pub kind: Kind,
    /// The descriptor.
    pub raw: u64,
    /// Its level, 1 to 3.
    pub level: u8,
    /// The first input address it covers.
    pub ia: u64,
    /// How many bytes it covers.
    pub size: u64,
}

/// Bits 47:12 of a descriptor: the next table's or the page's address.
pub const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

impl Entry {
    /// The address it gives to `ia`; `None` when it gives none.
    pub fn output(&self, ia: u64) -> Option<u64> {
        match self.kind {
            Kind::Block | Kind::Page => {
                Some((self.raw & ADDRESS & !(self.size - 1)) | (ia & (self.size - 1)))
            }
            _ => None,
        }
    }

    /// The first input address behind it.
    pub fn end(&self) -> u64 {
        self.ia.saturating_add(self.size)
    }
}

/// Looks up `ia` in a machine's tables.
pub fn lookup(inferior: &impl Inferior, regime: Regime, ia: u64) -> Entry {
    let root = regime.root(&inferior.facts());
    lookup_in(|pa| read_u64(inferior, pa), regime, root, ia)
}

/// Looks up `ia` in the tables at `root`; `read` gives the word at a physical address, or `None` where
/// there is no RAM.
pub fn lookup_in(read: impl Fn(u64) -> Option<u64>, regime: Regime, root: u64, ia: u64) -> Entry {
    let limit = 1u64 << regime.ia_bits();
    if ia >= limit {
        return Entry {
            kind: Kind::OutOfRange,
            raw: 0,
            level: 1,
            ia: limit,
            size: 0u64.wrapping_sub(limit),
        };
    }
    let mut table = root;
    let mut path = [u64::MAX; 3];
    let mut level = 1u8;
    loop {
        // Level 1 resolves bits 39:30 (concatenated tables take the high ones), 2: 29:21, 3: 20:12.
        let shift = 39 - 9 * u32::from(level);
        let size = 1u64 << shift;
        let mask = if level == 1 { limit / size - 1 } else { 511 };
        let at = table.wrapping_add((ia >> shift & mask) * 8);
        path[usize::from(level) - 1] = at & ADDRESS;
        let entry = |kind, raw| Entry {
            kind,
            raw,
            level,
            ia: ia & !(size - 1),
            size,
        };
        let Some(raw) = read(at) else {
            return entry(Kind::Unreadable, 0);
        };
        match (raw & 3, level) {
            _ if raw == 0 => return entry(Kind::Empty, raw),
            (0 | 2, _) => return entry(Kind::Invalid, raw),
            (1, 3) => return entry(Kind::Reserved, raw),
            (1, _) => return entry(Kind::Block, raw),
            (_, 3) => return entry(Kind::Page, raw),
            _ => {}
        }
        table = raw & ADDRESS;
        if path.contains(&table) {
            return entry(Kind::Loop, raw);
        }
        if read(table).is_none() {
            return entry(Kind::Unreadable, raw);
        }
        level += 1;
    }
}

/// Visits every table page of a regime that can be read, each before those below it, until `visit`
/// returns false. Tables that would come back to themselves are left out.
pub fn tables(inferior: &impl Inferior, regime: Regime, mut visit: impl FnMut(u64) -> bool) {
    let root = regime.root(&inferior.facts());
    for page in 0..regime.root_pages() {
        let path = [root.wrapping_add(page * super::PAGE), u64::MAX, u64::MAX];
        if !descend(inferior, path, 0, &mut visit) {
            return;
        }
    }
}

/// Visits the table at `path[depth]` and those below; depth 2 is level 3. False to end the visit.
fn descend(
    inferior: &impl Inferior,
    path: [u64; 3],
    depth: usize,
    visit: &mut impl FnMut(u64) -> bool,
) -> bool {
    let table = path[depth];
    if read_u64(inferior, table).is_none() {
        return true;
    }
    if !visit(table) {
        return false;
    }
    if depth == 2 {
        return true;
    }
    for index in 0..512 {
        let Some(raw) = read_u64(inferior, table.wrapping_add(index * 8)) else {
            return true;
        };
        let next = raw & ADDRESS;
        if raw & 3 == 3 && !path[..=depth].contains(&next) {
            let mut below = path;
            below[depth + 1] = next;
            if !descend(inferior, below, depth + 1, visit) {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, HOST_ROOT, HYP_ROOT};
    use super::*;
    use proptest::prelude::*;
    use std::prelude::rust_2024::*;

    #[test]
    fn every_kind_of_end_is_found() {
        let mut fake = Fake::with_tables();
        fake.words.extend([
            (HOST_ROOT + 16, 0x8000_07fd),      // block at level 1
            (0x4010_3008, 0x4020_07fd),         // block at level 2
            (0x4010_4028, 0x4000_57fd),         // 0b01 at level 3
            (0x4010_4030, 0x10),                // invalid, says nothing known
            (HOST_ROOT + 24, HOST_ROOT | 3),    // back to the root
            (HOST_ROOT + 32, 0x9000_0000 | 3),  // no RAM there
            (HOST_ROOT + 513 * 8, 0x4010_3003), // in the second root page
        ]);
        let cases = [
            (0x4000_0123, Kind::Page, 3, 0x4000_0000, 0x1000),
            (0x4000_2000, Kind::Invalid, 3, 0x4000_2000, 0x1000),
            (0x4000_5000, Kind::Reserved, 3, 0x4000_5000, 0x1000),
            (0x4000_6000, Kind::Invalid, 3, 0x4000_6000, 0x1000),
            (0x4000_7000, Kind::Empty, 3, 0x4000_7000, 0x1000),
            (0x4030_0000, Kind::Block, 2, 0x4020_0000, 0x20_0000),
            (0x4060_0000, Kind::Empty, 2, 0x4060_0000, 0x20_0000),
            (0x8765_4321, Kind::Block, 1, 0x8000_0000, 0x4000_0000),
            (0xc000_0000, Kind::Loop, 1, 0xc000_0000, 0x4000_0000),
            (
                0x1_0000_0000,
                Kind::Unreadable,
                1,
                0x1_0000_0000,
                0x4000_0000,
            ),
            (0x80_4000_0000, Kind::Page, 3, 0x80_4000_0000, 0x1000),
            (
                1 << 40,
                Kind::OutOfRange,
                1,
                1 << 40,
                (1u64 << 40).wrapping_neg(),
            ),
            (
                u64::MAX,
                Kind::OutOfRange,
                1,
                1 << 40,
                (1u64 << 40).wrapping_neg(),
            ),
        ];
        for (ia, kind, level, start, size) in cases {
            let entry = lookup(&fake, Regime::HostS2, ia);
            assert_eq!(
                (entry.kind, entry.level, entry.ia, entry.size),
                (kind, level, start, size),
                "{ia:#x}"
            );
        }
    }

    #[test]
    fn outputs_carry_the_offset() {
        let fake = Fake::with_tables();
        let entry = lookup(&fake, Regime::HypS1, 0x40_4000_2abc);
        assert_eq!(entry.output(0x40_4000_2abc), Some(0x4000_2abc));
        let empty = lookup(&fake, Regime::HypS1, 0x1000);
        assert_eq!(empty.output(0x1000), None);
    }

    #[test]
    fn each_table_is_visited_once_before_those_below() {
        let fake = Fake::with_tables();
        let mut seen = Vec::new();
        tables(&fake, Regime::HostS2, |table| {
            seen.push(table);
            true
        });
        assert_eq!(
            seen,
            [HOST_ROOT, 0x4010_3000, 0x4010_4000, HOST_ROOT + 0x1000]
        );
        seen.clear();
        tables(&fake, Regime::HypS1, |table| {
            seen.push(table);
            seen.len() < 2
        });
        assert_eq!(seen, [HYP_ROOT, 0x4010_5000], "the visit ends when told to");
    }

    proptest! {
        /// Tables full of anything: every lookup ends, covers its address, and the visit is finite.
        #[test]
        fn damaged_tables_end(
            words in prop::collection::vec(
                (0u64..4 * 512, prop_oneof![
                    any::<u64>(),
                    (0u64..4).prop_map(|page| (HOST_ROOT + page * 4096) | 3),
                ]),
                0..64,
            ),
            ia in 0u64..1 << 40,
        ) {
            let mut fake = Fake::new();
            fake.words.extend(words.iter().map(|(slot, word)| (HOST_ROOT + slot * 8, *word)));
            let entry = lookup(&fake, Regime::HostS2, ia);
            prop_assert!(entry.ia <= ia && ia < entry.end());
            let mut visited = 0;
            tables(&fake, Regime::HostS2, |_| {
                visited += 1;
                visited < 100
            });
            prop_assert!(visited >= 2);
        }
    }
}
