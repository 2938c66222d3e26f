//! Random tables: the whole walk, the walk of one address and the reference must agree everywhere.

use crate::memory::Memory;
use crate::reference::{Outcome, Setup, Way};
use inspector::arch::fields;
use inspector::arch::regime::{El2Stage1, Granule, IdRegisters, Regime};
use inspector::arch::walk::{self, End, Entry, Kind, Walk};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// T0SZ, SL0, TG0, PS, DS, SL2 of a stage 2, and its start level.
const STAGE2: &[([u64; 6], i32)] = &[
    ([12, 0, 0, 6, 1, 1], -1),
    ([12, 2, 0, 6, 1, 0], 0),
    ([20, 2, 0, 4, 0, 0], 0),
    ([24, 1, 0, 5, 0, 0], 1),
    ([25, 1, 0, 2, 0, 0], 1),
    ([34, 0, 0, 3, 0, 0], 2),
    ([43, 3, 0, 5, 0, 0], 3),
    ([12, 3, 2, 6, 1, 0], 0),
    ([16, 2, 2, 5, 0, 0], 1),
    ([29, 1, 2, 1, 0, 0], 2),
    ([36, 0, 2, 5, 0, 0], 3),
    ([12, 2, 1, 6, 0, 0], 1),
    ([24, 1, 1, 5, 0, 0], 2),
    ([35, 0, 1, 5, 0, 0], 3),
];

/// T0SZ, TG0, PS, DS of EL2's stage 1, and its start level.
const STAGE1: &[([u64; 4], i32)] = &[
    ([12, 0, 6, 1], -1),
    ([16, 0, 5, 0], 0),
    ([25, 0, 5, 0], 1),
    ([40, 0, 5, 0], 2),
    ([12, 2, 6, 1], 0),
    ([17, 2, 5, 0], 1),
    ([12, 1, 6, 0], 1),
    ([30, 1, 5, 0], 2),
];

const PAGES: [u128; 3] = [4096, 65536, 16384];
const SIZES: [u32; 7] = [32, 36, 40, 42, 44, 48, 52];

fn oa_bits(ps: u64, tg0: u64, ds: u64) -> u32 {
    let limit = if ds == 1 || tg0 == 1 { 52 } else { 48 };
    SIZES[usize::try_from(ps).unwrap()].min(limit)
}

fn stage2(([t0sz, sl0, tg0, ps, ds, sl2], start): ([u64; 6], i32)) -> (Setup, Regime) {
    let vtcr = 1 << 31 | t0sz | sl0 << 6 | 3 << 12 | tg0 << 14 | ps << 16 | ds << 32 | sl2 << 33;
    let setup = Setup {
        stage: 2,
        e2h: false,
        page: PAGES[usize::try_from(tg0).unwrap()],
        start,
        ia_bits: u32::try_from(64 - t0sz).unwrap(),
        oa_bits: oa_bits(ps, tg0, ds),
        ds: ds == 1,
        root: ROOT,
    };
    let regime = Regime::stage2(ROOT, vtcr, 0, IdRegisters::default()).unwrap();
    (setup, regime)
}

fn stage1(([t0sz, tg0, ps, ds], start): ([u64; 4], i32), e2h: bool) -> (Setup, Regime) {
    let (ps_at, ds_at) = if e2h { (32, 59) } else { (16, 32) };
    let registers = El2Stage1 {
        tcr: t0sz | tg0 << 14 | ps << ps_at | ds << ds_at,
        mair: 0x04ff,
        hcr: u64::from(e2h) << 34,
        sctlr: 0,
    };
    let setup = Setup {
        stage: 1,
        e2h,
        page: PAGES[usize::try_from(tg0).unwrap()],
        start,
        ia_bits: u32::try_from(64 - t0sz).unwrap(),
        oa_bits: oa_bits(ps, tg0, ds),
        ds: ds == 1,
        root: ROOT,
    };
    let regime = Regime::el2_stage1(ROOT, registers, IdRegisters::default()).unwrap();
    (setup, regime)
}

fn any_regime() -> impl Strategy<Value = (Setup, Regime)> {
    prop_oneof![
        prop::sample::select(STAGE2).prop_map(stage2),
        (prop::sample::select(STAGE1), any::<bool>()).prop_map(|(one, e2h)| stage1(one, e2h)),
    ]
}

/// Aligned to 16 tables of 64 KiB.
const ROOT: u64 = 0x4000_0000;
/// Tables other than roots: far from these, this far apart.
const OTHER: u64 = 0x5000_0000;
const STRIDE: u64 = 0x1_0000;

/// One word to be put into one table.
#[derive(Clone, Debug)]
struct Put {
    /// Which table, counted over all.
    table: prop::sample::Index,
    index: prop::sample::Index,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// A table descriptor, to one of the tables, with these upper attributes.
    Table(prop::sample::Index, u64),
    /// A table descriptor to where nothing is backed.
    Nowhere,
    /// A block or page of this address, aligned to the size of its level, with these other bits.
    Leaf(u64, u64),
    /// Anything.
    Word(u64),
}

fn any_put() -> impl Strategy<Value = Put> {
    let what = prop_oneof![
        5 => (any::<prop::sample::Index>(), prop_oneof![3 => Just(0), 1 => 0..32u64])
            .prop_map(|(table, upper)| What::Table(table, upper << 59)),
        1 => Just(What::Nowhere),
        5 => (any::<u64>(), any::<u64>()).prop_map(|(address, bits)| What::Leaf(address, bits)),
        2 => any::<u64>().prop_map(What::Word),
    ];
    (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        what,
    )
        .prop_map(|(table, index, what)| Put { table, index, what })
}

/// Builds tables: each put goes into the root or another table, wherever that hangs.
fn build(setup: &Setup, regime: &Regime, others: usize, puts: &[Put]) -> Memory {
    let mut memory = Memory::default();
    let roots = usize::try_from(regime.root_span().size / 8).unwrap();
    memory.tables.insert(ROOT, vec![0; roots]);
    let page = usize::try_from(setup.page / 8).unwrap();
    for n in 0..others as u64 {
        memory.tables.insert(OTHER + n * STRIDE, vec![0; page]);
    }
    let pas: Vec<u64> = memory.tables.keys().copied().collect();
    for put in puts {
        let words = memory.tables.get_mut(put.table.get(&pas)).unwrap();
        let index = put.index.index(words.len());
        words[index] = match put.what {
            What::Table(to, upper) => *to.get(&pas) | upper | 3,
            What::Nowhere => 0x7000_0000 | 3,
            What::Leaf(address, bits) => {
                // Below the smallest output size, aligned to the largest block of the granule that
                // is found at two levels above a page.
                let aligned =
                    address & 0xffff_ffff & !(u64::try_from(setup.covers(2)).unwrap() - 1);
                aligned | bits & !(0xf_ffff_ffff << 12) & !(0xf << 48) | 1
            }
            What::Word(word) => word,
        };
    }
    memory
}

fn check_way(setup: &Setup, way: &Way, translation: &walk::Translation) {
    let words: Vec<u64> = translation.steps.iter().map(|step| step.at).collect();
    assert_eq!(words, way.words);
    if let Some(last) = translation.steps.last() {
        assert_eq!(u128::from(last.size), way.size);
        assert!(last.level == 3 || u128::from(last.size) > setup.page);
    }
    let same = match (&translation.end, &way.outcome) {
        (
            End::Mapped {
                oa, attributes: at, ..
            },
            &Outcome::Mapped {
                oa: expected,
                read,
                write,
                execute,
                execute_el0,
            },
        ) => {
            *oa == expected
                && (at.read, at.write, at.execute, at.execute_el0)
                    == (read, write, execute, execute_el0)
        }
        (End::Hole { .. }, Outcome::Hole)
        | (End::Reserved { .. }, Outcome::Reserved)
        | (End::Unreadable { .. }, Outcome::Unreadable)
        | (End::OutOfRange { .. }, Outcome::OutOfRange) => true,
        (End::Invalid { raw, .. }, Outcome::Invalid) => *raw == way.raw,
        _ => false,
    };
    assert!(same, "{translation:#x?}\n{way:#x?}");
}

/// An entry against the reference's way of one address inside it.
fn check_entry(entry: &Entry, way: &Way, offset: u64) {
    let on_the_way = way.words.contains(&entry.at);
    match (entry.kind, &way.outcome) {
        (
            Kind::Block | Kind::Page,
            &Outcome::Mapped {
                oa,
                read,
                write,
                execute,
                execute_el0,
            },
        ) => {
            let at = entry.attributes.unwrap();
            assert_eq!(entry.oa, Some(oa - offset), "{entry:#x?}");
            assert_eq!(
                (at.read, at.write, at.execute, at.execute_el0),
                (read, write, execute, execute_el0)
            );
            assert_eq!((entry.raw, u128::from(entry.size)), (way.raw, way.size));
        }
        (Kind::Invalid, Outcome::Invalid) | (Kind::Reserved, Outcome::Reserved) => {
            assert_eq!((entry.raw, u128::from(entry.size)), (way.raw, way.size));
        }
        // The hardware goes on through a loop, so the reference does too.
        (Kind::Loop, _) => assert!(on_the_way, "{entry:#x?}"),
        (Kind::Unreadable, Outcome::Unreadable) => assert!(on_the_way),
        _ => panic!("{entry:#x?}\n{way:#x?}"),
    }
    assert!(on_the_way, "{entry:#x?}\n{way:#x?}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn all_three_walks_agree(
        (setup, regime) in any_regime(),
        others in 0..7usize,
        puts in prop::collection::vec(any_put(), 0..40),
        addresses in prop::collection::vec(any::<u64>(), 20),
    ) {
        prop_assert_eq!(regime.granule, match setup.page {
            4096 => Granule::Kib4,
            16384 => Granule::Kib16,
            _ => Granule::Kib64,
        });
        prop_assert_eq!(i32::from(regime.start_level), setup.start);
        let memory = build(&setup, &regime, others, &puts);
        let mut read = |spans: &[inspector::addr::Span]| memory.read(spans);
        let Walk { tables, entries, .. } = walk::walk_all(&regime, &mut read).unwrap();
        prop_assert!(tables.len() <= memory.tables.len() + 16);
        for pair in entries.windows(2) {
            prop_assert!(pair[0].ia + pair[0].size <= pair[1].ia, "{:#x?}", pair);
        }

        // Every entry, at its first and last address.
        for entry in &entries {
            for offset in [0, entry.size - 1] {
                let way = setup.walk(&memory, entry.ia + offset);
                check_entry(entry, &way, offset);
                check_way(&setup, &way, &walk::translate(&regime, &mut read, entry.ia + offset).unwrap());
            }
            prop_assert_eq!(entry.problem.is_some(), match entry.kind {
                Kind::Reserved | Kind::Loop | Kind::Unreadable => true,
                Kind::Invalid => false,
                Kind::Block | Kind::Page => fields::descriptor(&regime, entry.level, entry.raw)
                    .iter()
                    .any(|field| field.name == "RES0"),
            });
        }

        // Any address: in an entry, or a hole.
        for address in addresses {
            let ia = address >> (63 - setup.ia_bits);
            let way = setup.walk(&memory, ia);
            check_way(&setup, &way, &walk::translate(&regime, &mut read, ia).unwrap());
            let after = entries.partition_point(|entry| entry.ia <= ia);
            let entry = after.checked_sub(1).map(|n| &entries[n]);
            match entry.filter(|entry| ia - entry.ia < entry.size) {
                Some(entry) => check_entry(entry, &way, ia - entry.ia),
                None => prop_assert!(matches!(way.outcome, Outcome::Hole | Outcome::OutOfRange)),
            }
        }
    }
}

#[test]
fn the_regimes_cover_all_granules_and_start_levels() {
    let mut seen: Vec<_> = STAGE2
        .iter()
        .map(|&one| stage2(one).1)
        .map(|regime| (regime.granule.bytes(), regime.start_level))
        .collect();
    seen.sort_unstable();
    seen.dedup();
    let expected = [
        (0x1000, -1),
        (0x1000, 0),
        (0x1000, 1),
        (0x1000, 2),
        (0x1000, 3),
        (0x4000, 0),
        (0x4000, 1),
        (0x4000, 2),
        (0x4000, 3),
        (0x1_0000, 1),
        (0x1_0000, 2),
        (0x1_0000, 3),
    ];
    assert_eq!(seen, expected);
}
