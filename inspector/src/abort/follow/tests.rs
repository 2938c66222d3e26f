use super::*;
use crate::abort::testing::{Machine, before, mapped};
use crate::model::{Symbol, Symbols};

/// The handler of aborts, and where it panics.
pub(in crate::abort) const HANDLER: u64 = 0x40_4020_0100;
/// VA − PA of EL2's text.
pub(in crate::abort) const LINEAR: u64 = 0x40_0000_0000;
const PANIC: u64 = 0x40_4020_0f00;
const TEXT: Span = Span {
    start: 0x40_4020_0000,
    size: 0x1000,
};

/// What there is to stop at in a text of one page, of which physical memory has the same.
pub(in crate::abort) fn plan() -> Plan {
    let mut system = before();
    let functions = [("handle_host_mem_abort", HANDLER), ("hyp_panic", PANIC)];
    let symbols = functions.map(|(name, address)| Symbol {
        name: name.to_owned(),
        address,
        size: 0x100,
    });
    system.symbols = Symbols::new(symbols.into());
    let mut plan = Plan {
        text: vec![TEXT],
        physical: vec![TEXT.start - LINEAR],
        ..Plan::default()
    };
    plan.find_functions(&system);
    plan
}

pub(in crate::abort) fn follower(plan: Plan) -> Follower {
    let system = before();
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

impl Follower {
    /// A CPU is in an abort from now on.
    pub(in crate::abort) fn follow(&mut self, cpu: usize) {
        let cause = [
            ("ESR_EL2", 0x9200_0046),
            ("ELR_EL2", 0x4100_0888),
            ("FAR_EL2", 0x4120_0000),
            ("HPFAR_EL2", 0x41_2000),
        ];
        let registers = Registers(cause.map(|(name, word)| (name.to_owned(), word)).into());
        let following = Following::begin(before(), cpu, &registers, Road::default(), true, None);
        self.following.insert(cpu, following.expect("a trap"));
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
        let mut follower = follower(Plan::default());
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

#[test]
fn nothing_is_followed_after_a_panic() {
    // CPU 1 is followed up to there, or another one's trap is of no interest.
    for stepped in [true, false] {
        let mut machine = Machine::at(&[HANDLER, PANIC - 4]);
        let mut images = Images::default();
        let mut follower = follower(plan());
        follower.check_panic(&machine).expect("it goes on");
        let stories = match stepped {
            true => {
                follower.follow(1);
                follower.step(&mut machine, &mut images, 1)
            }
            false => {
                machine.step(1).expect("it steps");
                follower.stopped(&mut machine, &mut images)
            }
        };
        let stories = stories.expect("it is seen");
        let panics = |story: &Story| matches!(story.outcome, Outcome::Panic { .. });
        assert_eq!(
            stories.iter().filter(|story| panics(story)).count(),
            usize::from(stepped)
        );
        let next = follower.next(&mut machine, &mut images, Duration::ZERO);
        for result in [follower.check_panic(&machine), next.map(|_| ())] {
            let error = result.expect_err("it is over").to_string();
            assert!(error.contains("has panicked"), "{error}");
        }
    }
}
