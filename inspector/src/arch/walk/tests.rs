use super::*;
use crate::arch::regime::{IdRegisters, Regime};
use std::collections::BTreeMap;

/// Physical memory of single words; what stands nowhere reads as zero, pages in `bad` not at all.
#[derive(Default)]
struct Memory {
    words: BTreeMap<u64, u64>,
    bad: Vec<u64>,
    batches: Vec<usize>,
}

impl Memory {
    fn put(&mut self, table: u64, index: u64, word: u64) {
        self.words.insert(table + index * 8, word);
    }

    fn read(&mut self, spans: &[Span]) -> Result<Vec<Result<Vec<u8>, ReadError>>, TargetError> {
        self.batches.push(spans.len());
        Ok(spans
            .iter()
            .map(|&span| {
                if self.bad.iter().any(|&page| span.contains(page)) {
                    return Err(ReadError::Unbacked(span));
                }
                let mut bytes = vec![0; usize::try_from(span.size).unwrap()];
                for (&at, word) in self.words.range(span.start..span.start + span.size) {
                    let at = usize::try_from(at - span.start).unwrap();
                    bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
                }
                Ok(bytes)
            })
            .collect())
    }

    fn walk(&mut self, regime: &Regime) -> Walk {
        walk_all(regime, &mut |spans| self.read(spans)).unwrap()
    }

    fn translate(&mut self, regime: &Regime, ia: u64) -> Translation {
        translate(regime, &mut |spans| self.read(spans), ia).unwrap()
    }
}

const ROOT: u64 = 0x4800_0000;
const L2: u64 = 0x4810_0000;
const L3: u64 = 0x4810_1000;
const PAGE: u64 = 0x7ff;
const BLOCK: u64 = 0x7fd;

/// 40 bits from level 1, two roots.
fn regime() -> Regime {
    Regime::stage2(ROOT, 0x8005_3558, 0, IdRegisters::default()).unwrap()
}

/// A page, a block, an annotation, and a block below the second root.
fn sample() -> Memory {
    let mut memory = Memory::default();
    memory.put(ROOT, 1, L2 | 3);
    memory.put(L2, 0, L3 | 3);
    memory.put(L2, 1, 0x4020_0000 | BLOCK);
    memory.put(L3, 0, 0x4000_0000 | PAGE);
    memory.put(L3, 2, 4);
    memory.put(ROOT + 0x1000, 0, 0x80_0000_0000 | BLOCK);
    memory
}

/// Whether nothing is wrong anywhere.
fn clean(walk: &Walk) -> bool {
    walk.problems.is_empty() && walk.entries.iter().all(|entry| entry.problem.is_none())
}

fn rows(walk: &Walk) -> Vec<(u64, u64, i8, Kind)> {
    walk.entries
        .iter()
        .map(|entry| (entry.ia, entry.size, entry.level, entry.kind))
        .collect()
}

#[test]
fn entries_in_order_of_input_address() {
    let mut memory = sample();
    let walk = memory.walk(&regime());
    assert_eq!(
        rows(&walk),
        [
            (0x4000_0000, 0x1000, 3, Kind::Page),
            (0x4000_2000, 0x1000, 3, Kind::Invalid),
            (0x4020_0000, 0x20_0000, 2, Kind::Block),
            (0x80_0000_0000, 0x4000_0000, 1, Kind::Block),
        ]
    );
    assert_eq!(walk.entries[1].at, L3 + 16);
    assert_eq!(walk.entries[1].oa, None);
    assert_eq!(walk.entries[2].oa, Some(0x4020_0000));
    assert!(clean(&walk));
    assert_eq!(memory.batches, [2, 1, 1], "one batch a level");
    let tables: Vec<_> = walk
        .tables
        .iter()
        .map(|t| (t.pa, t.level, t.ia, t.parent))
        .collect();
    assert_eq!(
        tables,
        [
            (ROOT, 1, 0, None),
            (ROOT + 0x1000, 1, 0x80_0000_0000, None),
            (L2, 2, 0x4000_0000, Some(ROOT)),
            (L3, 3, 0x4000_0000, Some(L2)),
        ]
    );
}

#[test]
fn a_table_among_its_own_ancestors() {
    let mut memory = sample();
    memory.put(L2, 5, L2 | 3);
    memory.put(L2, 6, ROOT | 3);
    let walk = memory.walk(&regime());
    let loops: Vec<_> = walk
        .entries
        .iter()
        .filter(|e| e.kind == Kind::Loop)
        .collect();
    assert_eq!(loops.len(), 2);
    assert_eq!(
        (loops[0].ia, loops[0].level, loops[0].oa),
        (0x40a0_0000, 2, Some(L2))
    );
    assert_eq!(
        loops[0].problem.as_deref(),
        Some("points back to table 0x48100000, its own ancestor at level 2")
    );
    assert_eq!(
        loops[1].problem.as_deref(),
        Some("points back to table 0x48000000, its own ancestor at level 1")
    );
    assert_eq!(walk.entries.len(), 6, "all the rest still stands");
    assert!(!clean(&walk));
}

#[test]
fn a_table_reached_twice() {
    let mut memory = sample();
    memory.put(L2, 9, L3 | 3);
    let walk = memory.walk(&regime());
    let entry = walk.entries.iter().find(|e| e.kind == Kind::Loop).unwrap();
    assert_eq!(entry.ia, 0x4120_0000);
    assert_eq!(
        entry.problem.as_deref(),
        Some("points to table 0x48101000, which stands at level 3 for 0x40000000 already")
    );
    assert_eq!(walk.tables.len(), 4);
}

#[test]
fn unreadable_tables() {
    let mut memory = sample();
    memory.bad = vec![L3];
    let walk = memory.walk(&regime());
    let entry = &walk.entries[0];
    assert_eq!(
        (
            entry.ia,
            entry.size,
            entry.level,
            entry.kind,
            entry.raw,
            entry.at,
            entry.oa
        ),
        (
            0x4000_0000,
            0x20_0000,
            2,
            Kind::Unreadable,
            L3 | 3,
            L2,
            Some(L3)
        )
    );
    let problem = entry.problem.as_deref().unwrap();
    assert!(problem.starts_with("table 0x48101000 cannot be read: nothing is backed"));
    assert_eq!(walk.entries.len(), 3);
    assert!(!clean(&walk));

    memory.bad = vec![ROOT];
    let walk = memory.walk(&regime());
    assert_eq!(
        rows(&walk),
        [
            (0, 0x80_0000_0000, 1, Kind::Unreadable),
            (0x80_0000_0000, 0x4000_0000, 1, Kind::Block),
        ]
    );
}

#[test]
fn reserved_descriptors() {
    let mut memory = sample();
    memory.put(L3, 7, 0x4000_7000 | BLOCK);
    memory.put(L2, 7, 0x4000_1000 | BLOCK);
    memory.put(L3, 8, 1 << 49 | 0x4000_8000 | PAGE);
    let walk = memory.walk(&regime());
    let find = |at| walk.entries.iter().find(|entry| entry.at == at).unwrap();
    let wrong = find(L3 + 7 * 8);
    assert_eq!(
        (wrong.kind, wrong.oa, wrong.attributes),
        (Kind::Reserved, None, None)
    );
    assert!(
        wrong
            .problem
            .as_deref()
            .unwrap()
            .contains("reserved at level 3")
    );
    let askew = find(L2 + 7 * 8);
    assert_eq!((askew.kind, askew.oa), (Kind::Reserved, Some(0x4000_0000)));
    assert!(
        askew
            .problem
            .as_deref()
            .unwrap()
            .contains("0x40001000 is not aligned")
    );
    let odd = find(L3 + 8 * 8);
    assert_eq!((odd.kind, odd.oa), (Kind::Page, Some(0x4000_8000)));
    assert!(odd.problem.as_deref().unwrap().contains("RES0"));
}

#[test]
fn a_limit_that_is_said() {
    let mut memory = sample();
    let within = |memory: &mut Memory, bytes| {
        all::walk_within(&regime(), bytes, &mut |spans| memory.read(spans)).unwrap()
    };
    let whole = within(&mut memory, 4 << 12);
    assert!(clean(&whole));
    let cut = within(&mut memory, 3 << 12);
    assert_eq!(cut.entries[0].kind, Kind::Unreadable);
    assert!(cut.entries[0].problem.as_deref().unwrap().contains("limit"));
    assert_eq!(
        cut.problems,
        ["1 tables were not read: one walk reads at most 0x3000 bytes of tables"]
    );
}

/// A regime of three levels, one of which only the root is there, and one whose root is nowhere.
#[test]
fn regimes_are_walked_side_by_side() {
    let mut memory = sample();
    let [full, empty, lost] = [ROOT, 0x4900_0000, 0x4a00_0000]
        .map(|root| Regime::stage2(root, 0x8005_3558, 0, IdRegisters::default()).unwrap());
    memory.bad.push(lost.root);
    let alone = [&full, &empty, &lost].map(|regime| memory.walk(regime));
    memory.batches.clear();
    let regimes = [&full, &empty, &lost, &full];
    let walks = walk_together(&regimes, &mut |spans| memory.read(spans)).unwrap();
    assert_eq!(walks[..3], alone);
    assert_eq!(walks[3], alone[0]);
    assert_eq!(memory.batches, [8, 2, 2], "one batch a level");
}

#[test]
fn answers_that_are_short_or_missing() {
    let regime = regime();
    let mut short = |_: &[Span]| Ok::<_, TargetError>(vec![Ok(vec![0; 4095])]);
    let walk = walk_all(&regime, &mut short).unwrap();
    let problems: Vec<_> = walk
        .entries
        .iter()
        .map(|e| e.problem.as_deref().unwrap())
        .collect();
    assert!(problems[0].contains("4095 bytes, not 4096"));
    assert!(problems[1].contains("no answer"));
}

#[test]
fn a_failed_target_is_an_error() {
    let error = || TargetError::Lost {
        target: "t".to_owned(),
        doing: "reading".to_owned(),
        reason: "closed".to_owned(),
    };
    assert!(walk_all(&regime(), &mut |_| Err(error())).is_err());
    assert!(translate(&regime(), &mut |_| Err(error()), 0).is_err());
}

#[test]
fn translations_and_how_they_end() {
    let mut memory = sample();
    let regime = regime();
    let way = memory.translate(&regime, 0x4000_0abc);
    let steps: Vec<_> = way
        .steps
        .iter()
        .map(|s| (s.level, s.table, s.index, s.at))
        .collect();
    assert_eq!(
        steps,
        [(1, ROOT, 1, ROOT + 8), (2, L2, 0, L2), (3, L3, 0, L3)]
    );
    assert!(matches!(
        way.end,
        End::Mapped {
            oa: 0x4000_0abc,
            size: 0x1000,
            ..
        }
    ));

    let second_root = memory.translate(&regime, 0x80_1234_5678);
    assert_eq!(second_root.steps[0].at, ROOT + 0x1000);
    assert!(matches!(
        second_root.end,
        End::Mapped {
            oa: 0x80_1234_5678,
            ..
        }
    ));

    let end = |memory: &mut Memory, ia| memory.translate(&regime, ia).end;
    assert_eq!(
        end(&mut memory, 0x4000_2008),
        End::Invalid {
            raw: 4,
            size: 0x1000
        }
    );
    assert_eq!(
        end(&mut memory, 0x8765_4321),
        End::Hole {
            ia: 0x8000_0000,
            size: 0x4000_0000
        }
    );
    assert_eq!(end(&mut memory, 1 << 40), End::OutOfRange { ia_bits: 40 });
    memory.put(L3, 1, 0x4000_1000 | BLOCK);
    assert!(matches!(
        end(&mut memory, 0x4000_1000),
        End::Reserved { .. }
    ));
    memory.bad = vec![L3];
    let blind = memory.translate(&regime, 0x4000_0000);
    assert_eq!(blind.steps.len(), 3);
    assert_eq!(blind.steps[2].descriptor, None);
    assert!(matches!(blind.end, End::Unreadable { .. }));
}

#[test]
fn a_loop_is_walked_as_the_hardware_does() {
    let mut memory = Memory::default();
    memory.put(ROOT, 0, ROOT | 3);
    let way = memory.translate(&regime(), 0);
    assert_eq!(way.steps.len(), 3);
    assert!(
        matches!(way.end, End::Mapped { oa: ROOT, .. }),
        "{:?}",
        way.end
    );
}
