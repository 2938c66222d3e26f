use super::*;
use crate::abort::testing::{before, mapped};

fn follower() -> Follower {
    let system = before();
    let plan = Plan::default();
    Follower {
        boot: Boot::of(&system, &plan),
        plan,
        wanted: Wanted::default(),
        by_hand: false,
        seen: false,
        has_panicked: false,
        last_step: None,
        refused: Vec::new(),
        on_the_way: Vec::new(),
        following: BTreeMap::new(),
        mapped: VecDeque::new(),
        puzzles: VecDeque::new(),
        armed: system,
    }
}

#[test]
fn the_faster_cpu_is_the_last_other_one_that_mapped_the_same() {
    let leaf = Span::new(0x4120_0000, 2 << 20);
    let other = Span::new(0x4140_0000, 2 << 20);
    // The story is of CPU 1.
    for (mappings, expected) in [
        (vec![], None),
        (vec![(2, leaf)], Some(2)),
        (vec![(2, leaf), (3, leaf)], Some(3)),
        (vec![(2, leaf), (1, leaf), (3, other)], Some(2)),
        (vec![(1, leaf)], None),
    ] {
        let mut follower = follower();
        for (cpu, leaf) in &mappings {
            let mut story = mapped();
            story.cpu = *cpu;
            story.outcome = Outcome::Mapped {
                leaf: *leaf,
                level: 2,
            };
            follower.remember(&story);
        }
        let mut story = mapped();
        let late = |by| Outcome::AlreadyMapped {
            leaf: Some(leaf),
            by,
        };
        story.outcome = late(None);
        follower.name_the_faster(&mut story);
        assert_eq!(story.outcome, late(expected), "{mappings:?}");
    }
}
