use super::*;
use crate::arch::regime::Stage;
use crate::model::testing::{regime, system};
use crate::model::{JointOwner, Owner, State, Tickets};
use proptest::prelude::*;

const ROOT: u64 = 0x4031_0000;

fn table(pa: u64, level: i8, ia: u64, words: &[(usize, u64)]) -> Table {
    let mut table = Table {
        pa,
        level,
        ia,
        parent: None,
        words: vec![0; 512],
    };
    for (index, word) in words {
        table.words[*index] = *word;
    }
    table
}

fn compared(before: &[Table], after: &[Table]) -> Written {
    let regime = regime(Stage::Two, ROOT);
    written(&Tables {
        name: "host-s2",
        regime: &regime,
        before,
        after,
        meaning: [None, None],
    })
}

#[test]
fn a_block_that_is_split_by_a_share() {
    let root = |word| table(ROOT, 1, 0, &[(1, word)]);
    let before = [
        root(0x4032_0003),
        table(0x4032_0000, 2, 0x4000_0000, &[(16, 0x4200_07fd)]),
    ];
    let after = [
        root(0x4032_0003),
        table(0x4032_0000, 2, 0x4000_0000, &[(16, 0x4033_0003)]),
        table(0x4033_0000, 3, 0x4200_0000, &[(3, 0x0080_0000_4200_37ff)]),
    ];
    let found = compared(&before, &after);
    assert_eq!((found.linked, found.freed), (vec![0x4033_0000], vec![]));
    let [split, page] = &found.writes[..] else {
        panic!("{:?}", found.writes);
    };
    assert_eq!(
        (split.at, split.level, split.ia, split.size),
        (0x4032_0080, 2, 0x4200_0000, 2 << 20)
    );
    let shapes = [&split.old, &split.new].map(|word| word.map(|word| word.descriptor.shape));
    assert_eq!(shapes, [Some(Shape::Block), Some(Shape::Table)]);
    assert_eq!(
        (page.at, page.level, page.ia, page.old),
        (0x4033_0018, 3, 0x4200_3000, None)
    );
    let new = page.new.expect("it is there").descriptor;
    assert_eq!(
        (new.shape, new.oa, new.sw),
        (Shape::Page, Some(0x4200_3000), 1)
    );
}

#[test]
fn a_page_that_is_used_elsewhere_is_freed_and_linked() {
    let before = [table(ROOT, 3, 0, &[(0, 0x7ff)])];
    // For other addresses; for the same ones on another level.
    let old = (0, true, false);
    for (level, ia, expected) in [
        (3, 0x20_0000, [old, (0x20_1000, false, true)]),
        (2, 0, [(0x20_0000, false, true), old]),
    ] {
        let after = [table(ROOT, level, ia, &[(1, 0x20_07fd)])];
        let found = compared(&before, &after);
        assert_eq!(
            (&found.linked[..], &found.freed[..]),
            (&[ROOT][..], &[ROOT][..])
        );
        let sides = found.writes.iter();
        let sides = sides.map(|write| (write.ia, write.old.is_some(), write.new.is_some()));
        assert_eq!(sides.collect::<Vec<_>>(), expected, "{level}");
    }
}

proptest! {
    /// Two random sets of table pages; the model compares them address by address.
    #[test]
    fn every_word_that_differs_is_found_once(
        before in prop::collection::btree_map(0u64..4, prop::collection::vec((0usize..512, 0u64..3), 0..6), 0..4),
        after in prop::collection::btree_map(0u64..4, prop::collection::vec((0usize..512, 0u64..3), 0..6), 0..4),
    ) {
        let tables = |pages: &BTreeMap<u64, Vec<(usize, u64)>>| -> Vec<Table> {
            pages.iter().map(|(page, words)| table(ROOT + page * 4096, 3, page << 21, words)).collect()
        };
        let (before, after) = (tables(&before), tables(&after));
        let flat = |tables: &[Table]| -> BTreeMap<u64, u64> {
            let words = |table: &Table| table.words.iter().enumerate().map(|(at, word)| (table.pa + at as u64 * 8, *word)).collect::<Vec<_>>();
            tables.iter().flat_map(words).collect()
        };
        let (old, new) = (flat(&before), flat(&after));
        let addresses: BTreeSet<u64> = old.keys().chain(new.keys()).copied().collect();
        let word = |words: &BTreeMap<u64, u64>, at| words.get(at).copied().unwrap_or(0);
        let model: Vec<(u64, u64, u64)> = addresses.iter()
            .map(|at| (*at, word(&old, at), word(&new, at)))
            .filter(|(_, old, new)| old != new)
            .collect();
        let raw = |word: Option<Word>| word.map_or(0, |word| word.descriptor.raw);
        let found = compared(&before, &after).writes;
        let found: Vec<_> = found.iter().map(|write| (write.at, raw(write.old), raw(write.new))).collect();
        prop_assert_eq!(found, model);
    }
}

#[test]
fn owners_counts_and_locks_are_compared() {
    let before = system();
    let mut after = before.clone();
    // Two pages out of the middle of a range.
    let shared = |range: &OwnerRange, start| OwnerRange {
        pa: Span::new(start, 0x2000),
        host: Some(State::SharedOwned),
        hyp: Some(State::SharedBorrowed),
        ..range.clone()
    };
    let big = before.owners[2].clone();
    let start = big.pa.start + 0x4000;
    let cut = |pa: Span| big.clip(pa).expect("inside");
    after.owners.splice(
        2..3,
        [
            cut(Span::new(big.pa.start, 0x4000)),
            shared(&big, start),
            cut(Span::new(start + 0x2000, big.pa.size - 0x6000)),
        ],
    );
    after.locks[0].tickets = before.locks[0].tickets.map(|tickets| Tickets {
        owner: tickets.owner + 1,
        ..tickets
    });
    let counts = after.pools[0].refcounts.as_mut().expect("it has counts");
    counts[0] += 2;
    let found = changes(&before, &after, None);
    let [change] = &found.owners[..] else {
        panic!("{:?}", found.owners);
    };
    assert_eq!(change.pa, Span::new(start, 0x2000));
    let states = [&change.before, &change.after]
        .map(|side| side.as_ref().map(|side| (side.owner, side.host)));
    let host = JointOwner::One(Owner::Host);
    assert_eq!(
        states,
        [
            Some((host, Some(State::Owned))),
            Some((host, Some(State::SharedOwned)))
        ]
    );
    assert_eq!(
        (found.counts.len(), found.counts[0].pa),
        (1, before.pools[0].pages.start)
    );
    assert_eq!(found.locks.len(), 1);

    // What another CPU did is left out, but for locks.
    let elsewhere = Own::default();
    let own = changes(&before, &after, Some(&elsewhere));
    assert_eq!(
        (own.owners.len(), own.counts.len(), own.locks.len()),
        (0, 0, 1)
    );
    assert_eq!(changes(&before, &before, None), Changes::default());
}
