//! The host's own stage 1, from its registers: what its virtual addresses mean.

/// The registers of a CPU that say how its EL1&0 translates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostStage1 {
    /// SCTLR_EL1.
    pub sctlr: u64,
    /// TCR_EL1.
    pub tcr: u64,
    /// TTBR0_EL1.
    pub ttbr0: u64,
    /// TTBR1_EL1.
    pub ttbr1: u64,
}

/// SCTLR_EL1.M.
const MMU: u64 = 1;
/// TTBRn_EL1.BADDR and the address in a descriptor, bits 47:1; alignment clears the rest.
const ADDRESS: u64 = 0x0000_ffff_ffff_fffe;

/// Half of a TCR_EL1: how one of the two ranges of addresses translates.
struct Half {
    /// Bits of the input address.
    bits: u32,
    /// log2 of the granule.
    page: u32,
    disabled: bool,
    /// Bits 63:56 of an address are anything.
    top_byte_ignored: bool,
    root: u64,
}

impl HostStage1 {
    /// The address that the host's stage 1 gives for `va`: an IPA, and so physical in hyp's identity map. `read` gives the
    /// word at a physical address, or `None` where there is no RAM. Features beyond Armv8.0 (52 bits) are not known.
    pub fn translate(&self, read: impl Fn(u64) -> Option<u64>, va: u64) -> Option<u64> {
        if self.sctlr & MMU == 0 {
            return Some(va);
        }
        let half = self.half(va)?;
        let stride = half.page - 3;
        let levels = (half.bits - half.page).div_ceil(stride);
        let mut table = half.root;
        for level in (4 - levels.min(4))..4 {
            let shift = half.page + stride * (3 - level);
            // The first table may be smaller than a page.
            let index_bits = (half.bits.saturating_sub(shift)).min(stride);
            let index = va >> shift & ((1 << index_bits) - 1);
            let word = read((table & !((8 << index_bits) - 1)).wrapping_add(index * 8))?;
            let output = |word: u64| (word & ADDRESS) >> shift << shift | va & ((1 << shift) - 1);
            match (word & 3, level) {
                (1, 1 | 2) | (3, 3) => return Some(output(word)),
                (3, _) => table = (word & ADDRESS) >> half.page << half.page,
                _ => return None,
            }
        }
        None
    }

    /// The half of TCR_EL1 for `va`; bit 55 chooses. `None` where an address of neither half is meant.
    fn half(&self, va: u64) -> Option<Half> {
        let tcr = self.tcr;
        let upper = va >> 55 & 1 != 0;
        let half = if upper {
            Half {
                bits: 64 - (tcr >> 16 & 0x3f) as u32,
                // TCR_EL1.TG1.
                page: [0, 14, 12, 16][(tcr >> 30 & 3) as usize],
                disabled: tcr >> 23 & 1 != 0,
                top_byte_ignored: tcr >> 38 & 1 != 0,
                root: self.ttbr1 & ADDRESS,
            }
        } else {
            Half {
                bits: 64 - (tcr & 0x3f) as u32,
                // TCR_EL1.TG0.
                page: [12, 16, 14, 0][(tcr >> 14 & 3) as usize],
                disabled: tcr >> 7 & 1 != 0,
                top_byte_ignored: tcr >> 37 & 1 != 0,
                root: self.ttbr0 & ADDRESS,
            }
        };
        let known = half.page != 0 && !half.disabled && (half.page + 1..=48).contains(&half.bits);
        let top = if half.top_byte_ignored { 56 } else { 64 };
        // The bits between must all be as bit 55.
        let between = (va ^ if upper { u64::MAX } else { 0 }) << (64 - top) >> (64 - top);
        (known && between >> half.bits == 0).then_some(half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// 4 KiB granule, 39 bits in both halves.
    const TCR: u64 = 25 | 25 << 16 | 2 << 30;

    fn lookup(stage1: HostStage1, words: &[(u64, u64)], va: u64) -> Option<u64> {
        let words: BTreeMap<_, _> = words.iter().copied().collect();
        stage1.translate(|pa| words.get(&pa).copied(), va)
    }

    #[test]
    fn without_an_mmu_addresses_are_what_they_are() {
        assert_eq!(lookup(HostStage1::default(), &[], 0x1234), Some(0x1234));
    }

    #[test]
    fn blocks_and_pages_of_every_granule() {
        let cases = [
            // 4 KiB, 39 bits: level 1 block, level 2 block, page.
            (TCR, vec![(0x1008, 0x8000_0001)], 0x4567_8abc, 0x8567_8abc),
            (
                TCR,
                vec![(0x1008, 0x2003), (0x2010, 0x9000_0001)],
                0x4050_0123,
                0x9010_0123,
            ),
            (
                TCR,
                vec![(0x1008, 0x2003), (0x2010, 0x3003), (0x3018, 0x9000_7003)],
                0x4040_3fff,
                0x9000_7fff,
            ),
            // 4 KiB, 48 bits: four levels; the software bits and permissions are no address.
            (
                16 | 2 << 30,
                vec![
                    (0x1000, 0x2003),
                    (0x2008, 0x3003),
                    (0x3000, 0x4003),
                    (0x4008, 0x0060_0000_9000_0783),
                ],
                0x4000_1008,
                0x9000_0008,
            ),
            // 16 KiB, 36 bits: levels 2 and 3.
            (
                28 | 2 << 14,
                vec![(0x8000 + 8 * 0x20, 0xc003), (0xc008, 0x9000_4003)],
                0x4000_4010,
                0x9000_4010,
            ),
            // 64 KiB, 42 bits: levels 2 and 3.
            (
                22 | 1 << 14,
                vec![(0x1_0000 + 8 * 2, 0x2_0003), (0x2_0008, 0x9001_0003)],
                0x4001_0004,
                0x9001_0004,
            ),
        ];
        for (tcr, words, va, pa) in cases {
            let ttbr0 = words[0].0 & !0xfff;
            let stage1 = HostStage1 {
                sctlr: 1,
                tcr,
                ttbr0,
                ttbr1: 0,
            };
            assert_eq!(lookup(stage1, &words, va), Some(pa), "{tcr:#x} {va:#x}");
        }
    }

    #[test]
    fn the_upper_half_has_a_root_of_its_own() {
        let stage1 = HostStage1 {
            sctlr: 1,
            tcr: TCR,
            ttbr0: 0x1000,
            // The ASID is no address.
            ttbr1: 0x7 << 48 | 0x5000,
        };
        let words = [(0x1000, 0x4000_0001), (0x5000, 0x8000_0001)];
        assert_eq!(lookup(stage1, &words, 0x10), Some(0x4000_0010));
        assert_eq!(
            lookup(stage1, &words, 0xffff_ff80_0000_0010),
            Some(0x8000_0010)
        );
        // Between the halves, and tagged.
        assert_eq!(lookup(stage1, &words, 0x80_0000_0000), None);
        assert_eq!(lookup(stage1, &words, 0xab00_0000_0000_0010), None);
        let tagged = HostStage1 {
            tcr: TCR | 1 << 37,
            ..stage1
        };
        assert_eq!(
            lookup(tagged, &words, 0xab00_0000_0000_0010),
            Some(0x4000_0010)
        );
    }

    #[test]
    fn what_is_not_mapped_has_no_address() {
        let on = HostStage1 {
            sctlr: 1,
            tcr: TCR,
            ttbr0: 0x1000,
            ttbr1: 0,
        };
        let cases = [
            (on, vec![], "no table"),
            (on, vec![(0x1000, 0)], "invalid"),
            (on, vec![(0x1000, 0x2003)], "no second table"),
            (
                on,
                vec![(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x9000_0001)],
                "reserved at level 3",
            ),
            (
                HostStage1 {
                    tcr: TCR | 1 << 7,
                    ..on
                },
                vec![(0x1000, 0x4000_0001)],
                "EPD0",
            ),
            (
                HostStage1 {
                    tcr: TCR | 3 << 14,
                    ..on
                },
                vec![(0x1000, 0x4000_0001)],
                "reserved granule",
            ),
        ];
        for (stage1, words, what) in cases {
            assert_eq!(lookup(stage1, &words, 0x10), None, "{what}");
        }
    }

    proptest! {
        /// Any registers and any tables: it ends, and says something about the page at most.
        #[test]
        fn anything_ends(sctlr: u64, tcr: u64, ttbr0: u64, ttbr1: u64, va: u64, word: u64) {
            let stage1 = HostStage1 { sctlr, tcr, ttbr0, ttbr1 };
            if let Some(pa) = stage1.translate(|_| Some(word), va) {
                prop_assert!(sctlr & 1 == 0 || pa & 0xfff == va & 0xfff);
            }
        }
    }
}
