use super::*;
use crate::arch::regime::Stage;
use crate::model::testing::regime;
use proptest::prelude::*;

fn host(granule: Granule, ia_bits: u32, start_level: i8) -> Regime {
    Regime {
        start_level,
        granule,
        ia_bits,
        ..regime(Stage::Two, 0x4031_0000)
    }
}

#[test]
fn the_largest_block_inside_hole_and_region_is_taken() {
    const RAM: Span = Span {
        start: 0x4000_0000,
        size: 512 << 20,
    };
    let odd = Span::new(0x4000_1000, 0x40_0000);
    let low = Span::new(0, 0x4000_0000);
    let kib4 = host(Granule::Kib4, 48, 0);
    let kib16 = host(Granule::Kib16, 48, 1);
    for (regime, ia, hole_level, region, range, level) in [
        // A gap of 1 GiB as a whole, from a hole above.
        (&kib4, 0x0900_0000, 0, low, Some((0, 1 << 30)), 1),
        (&kib4, 0x4800_0123, 1, RAM, Some((0x4800_0000, 2 << 20)), 2),
        (&kib4, 0x4800_0123, 3, RAM, Some((0x4800_0000, 4096)), 3),
        // The region begins a page after a block does.
        (&kib4, 0x4000_1000, 2, odd, Some((0x4000_1000, 4096)), 3),
        (&kib4, 0x4020_0000, 2, odd, Some((0x4020_0000, 2 << 20)), 2),
        // 16 KiB pages have blocks of 32 MiB only.
        (
            &kib16,
            0x4800_0000,
            1,
            RAM,
            Some((0x4800_0000, 32 << 20)),
            2,
        ),
        // Less than a page.
        (
            &kib4,
            0x4000_0000,
            3,
            Span::new(0x4000_0000, 0x800),
            None,
            3,
        ),
    ] {
        let choice = choose(regime, ia, hole_level, region);
        let expected = range.map(|(start, size)| Span::new(start, size));
        assert_eq!(choice.range(), expected, "{ia:#x}");
        assert_eq!(choice.level(), expected.map(|_| level), "{ia:#x}");
        assert!(choice.hole.contains(ia));
    }
}

#[test]
fn each_level_says_why_its_block_is_not_taken() {
    use Verdict::{LeavesRegion, NoLeaf, Taken};
    let kib4 = host(Granule::Kib4, 48, 0);
    let kib16 = host(Granule::Kib16, 48, 1);
    let ram = Span::new(0x4000_0000, 512 << 20);
    for (regime, hole_level, region, expected) in [
        (&kib4, 0, ram, vec![NoLeaf, LeavesRegion, Taken]),
        (&kib4, 3, ram, vec![Taken]),
        (&kib16, 1, ram, vec![NoLeaf, Taken]),
        (
            &kib4,
            2,
            Span::new(0x4800_0000, 0x800),
            vec![LeavesRegion; 2],
        ),
    ] {
        let choice = choose(regime, 0x4800_0123, hole_level, region);
        let verdicts = choice.candidates.iter().map(|candidate| candidate.verdict);
        assert_eq!(verdicts.collect::<Vec<_>>(), expected, "{region}");
    }
}

#[test]
fn addresses_are_in_a_region_or_between_two() {
    let ram = [
        Span::new(0x4000_0000, 0x1000),
        Span::new(0x8000_0000, 0x1000),
    ];
    for (pa, start, end, is_ram) in [
        (0, 0, 0x4000_0000, false),
        (0x4000_0fff, 0x4000_0000, 0x4000_1000, true),
        (0x4000_1000, 0x4000_1000, 0x8000_0000, false),
        (0x8000_1000, 0x8000_1000, 1 << 40, false),
    ] {
        let expected = (Span::new(start, end - start), is_ram);
        assert_eq!(region(&ram, pa, 40), expected, "{pa:#x}");
    }
    assert_eq!(region(&[], 5, 40), (Span::new(0, 1 << 40), false));
}

proptest! {
    /// Against all aligned blocks of every level, tried one by one.
    #[test]
    fn no_other_block_fits_and_is_larger(
        ia in 0u64..1 << 40,
        hole_level in 0i8..=3,
        before in 0u64..1 << 34,
        behind in 1u64..1 << 34,
        granule in prop_oneof![Just(Granule::Kib4), Just(Granule::Kib16), Just(Granule::Kib64)],
    ) {
        let regime = host(granule, 48, if granule == Granule::Kib4 { 0 } else { 1 });
        let hole_level = hole_level.max(regime.start_level);
        let start = ia.saturating_sub(before);
        let region = Span::new(start, ia - start + behind);
        let sizes: &[u64] = match granule {
            Granule::Kib4 => &[1 << 30, 2 << 20, 4 << 10],
            Granule::Kib16 => &[32 << 20, 16 << 10],
            Granule::Kib64 => &[512 << 20, 64 << 10],
        };
        let fits = |size: &&u64| {
            let first = ia / **size * **size;
            **size <= regime.entry_size(hole_level) && first >= region.start && first + **size <= region.start + region.size
        };
        let model = sizes.iter().find(fits).map(|size| Span::new(ia / size * size, *size));
        prop_assert_eq!(choose(&regime, ia, hole_level, region).range(), model);
    }
}
