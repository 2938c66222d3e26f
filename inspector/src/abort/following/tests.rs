//! Whose writes a story tells: blocks of the host's stage 2 stand for words that some CPU wrote.

use super::*;
use crate::abort::plan::Plan;
use crate::abort::testing::before;
use crate::arch::walk::Table;
use crate::model::testing::RAM;
use crate::model::{Symbol, Symbols};

/// Blocks of 2 MiB, by number: what the CPU that is followed writes, and what another one does.
const OWN: u64 = 9;
const OTHERS: u64 = 17;
const FUNCTIONS: [&str; 3] = ["get_leaf", "host_stage2_idmap_locked", "hyp_panic"];

/// The machine when these blocks are mapped.
fn mapped(blocks: &[u64]) -> System {
    let mut system = before();
    for block in blocks {
        system.regimes[0].tables[1].words[*block as usize] = (RAM + (block << 21)) | 0x7fd;
    }
    system
}

fn look(blocks: &[u64]) -> Look {
    let regimes = mapped(blocks).regimes.into_iter();
    let looks = regimes.map(|regime| Walk {
        tables: regime.tables,
        ..Default::default()
    });
    looks.collect()
}

/// What a story says was written: the blocks, and by which comparison.
fn told(story: &Story) -> (Vec<u64>, Comparison) {
    let blocks = story.writes.iter().map(|write| (write.ia - RAM) >> 21);
    (blocks.collect(), story.road.writes)
}

/// A hypercall.
const SHARE: [(&str, u64); 3] = [
    ("ESR_EL2", 0x5a00_0000),
    ("x0", 0xc600_0010),
    ("x1", RAM >> 12),
];

fn registers(own: &[(&str, u64)]) -> Registers {
    let common = [("pc", 0x40_4020_0400), ("ELR_EL2", 0x4100_0888)];
    let all = common.iter().chain(own);
    Registers(
        all.map(|(name, word)| ((*name).to_owned(), *word))
            .collect(),
    )
}

fn begin(system: System, own: &[(&str, u64)]) -> Following {
    let road = Road::default();
    Following::begin(system, 1, &registers(own), road, true, None).expect("a trap")
}

/// An abort that has come to where it maps, having looked the leaf up under the lock.
fn mapping() -> (Following, Plan) {
    mapping_in(before())
}

fn mapping_in(mut system: System) -> (Following, Plan) {
    let symbols = FUNCTIONS.iter().zip(1..).map(|(name, at)| Symbol {
        name: (*name).to_owned(),
        address: at * 0x1000,
        size: 0x100,
    });
    system.symbols = Symbols::new(symbols.collect());
    let mut plan = Plan::default();
    plan.find_functions(&system);
    let ipa = RAM + (OWN << 21);
    let lock = host_lock(&system).and_then(|lock| lock.tickets);
    let cause = [
        ("ESR_EL2", 0x9200_0046),
        ("FAR_EL2", ipa),
        ("HPFAR_EL2", ipa >> 12 << 4),
    ];
    let mut following = begin(system, &cause);
    for stop in &plan.functions[..2] {
        following.reach(stop, &registers(&[("x30", 0x1080)]), lock);
        if !following.has_looked() {
            following.look(look(&[]));
        }
    }
    (following, plan)
}

#[test]
fn the_range_is_chosen_by_the_time_it_is_mapped() {
    let (mut following, _) = mapping();
    let stages = |story: &Story| -> Vec<_> { story.steps.iter().map(|step| step.stage).collect() };
    let (look_up, choose, map) = (Stage::LookUp, Stage::Choose, Stage::Map);
    let before = stages(&following.story);
    assert!(before.ends_with(&[look_up, choose, map]), "{before:?}");
    // It is told of once.
    following.fill_choice();
    assert_eq!(stages(&following.story), before);
}

#[test]
fn a_story_without_end_is_told_up_to_a_limit() {
    let (mut following, plan) = mapping();
    let stop = &plan.functions[0];
    for _ in 0..2 * MAX_STOPS {
        following.reach(stop, &registers(&[]), None);
    }
    assert_eq!(following.story.road.functions.len(), MAX_STOPS);
    assert!(following.story.steps.len() < MAX_STOPS + 10);
    let [problem] = &following.story.problems[..] else {
        panic!("{:?}", following.story.problems);
    };
    assert!(problem.contains("more than 4096 times"), "{problem}");
}

/// Older kernels ask for all blocks of 1 GiB in a hole of 512 GiB.
#[test]
fn a_range_that_is_asked_for_is_the_one_that_is_chosen() {
    let (mut following, _) = mapping();
    following
        .story
        .steps
        .retain(|step| step.stage != Stage::Choose);
    following.see_choice(Span::new(RAM, 1 << 30));
    following.fill_choice();
    let mut steps = following.story.steps.iter();
    let chosen = steps.find(|step| step.stage == Stage::Choose);
    let chosen = chosen.map(|step| step.text.as_str());
    assert_eq!(
        chosen,
        Some("chooses 1G at 0x40000000, not the 2M of the rule")
    );
}

/// 6.1's kallsyms has no data symbols.
#[test]
fn what_is_written_under_an_unknown_lock_is_told() {
    let mut system = before();
    system.locks.clear();
    let (mut following, _) = mapping_in(system);
    let (_, stop) = following.returns.pop().expect("it is to return");
    following.returned(&stop, &registers(&[]));
    assert!(following.may_look(None));
    following.look(look(&[OWN]));
    let story = following.end(&mapped(&[OWN, OTHERS]), &registers(&[]), Seen::Returns);
    assert!(matches!(story.outcome, Outcome::Mapped { .. }));
    assert_eq!(told(&story), (vec![OWN], Comparison::UnderLock));
}

/// A lock that is another CPU's by what memory says.
#[test]
fn what_is_written_without_a_look_is_told() {
    let (mut following, _) = mapping();
    following.under_lock = None;
    following.returns.clear();
    let story = following.end(&mapped(&[OWN]), &registers(&[]), Seen::Returns);
    assert!(matches!(story.outcome, Outcome::Mapped { .. }));
    assert_eq!(told(&story), (vec![OWN], Comparison::EntryToEnd));
}

#[test]
fn a_panic_in_the_function_that_maps_hides_no_write() {
    let (mut following, plan) = mapping();
    following.reach(&plan.functions[2], &registers(&[]), None);
    let story = following.end(&mapped(&[OWN]), &registers(&[]), Seen::Panic);
    assert!(matches!(story.outcome, Outcome::Panic { .. }));
    assert_eq!(told(&story), (vec![OWN], Comparison::EntryToEnd));
    assert!(!lets_go(&story));
}

fn lets_go(story: &Story) -> bool {
    story.steps.iter().any(|step| step.stage == Stage::Unlock)
}

#[test]
fn the_lock_is_let_go_of_when_another_ticket_is_served() {
    for (served, expected) in [(0, false), (1, true), (2, true)] {
        let (following, _) = mapping();
        let mut after = mapped(&[OWN]);
        let mut locks = after.locks.iter_mut();
        let lock = locks.find(|lock| lock.name == "host").expect("it has one");
        let tickets = lock.tickets.as_mut().expect("they are known");
        tickets.owner = tickets.owner.wrapping_add(served);
        let story = following.end(&after, &registers(&[]), Seen::Returns);
        assert_eq!(lets_go(&story), expected, "{served}");
    }
}

/// Linux signs them where the CPU can.
#[test]
fn functions_return_to_addresses_without_their_codes() {
    let (mut following, plan) = mapping();
    let link = 0x0058_0000_0000_2080;
    following.reach(&plan.functions[1], &registers(&[("x30", link)]), None);
    let last = following.returns.last();
    assert_eq!(last.map(|(pc, _)| *pc), Some(0x2080));
}

#[test]
fn what_others_write_behind_the_function_that_maps_is_theirs() {
    let (mut following, _) = mapping();
    let (_, stop) = following.returns.pop().expect("it is to return");
    following.returned(&stop, &registers(&[]));
    following.look(look(&[OWN]));
    let story = following.end(&mapped(&[OWN, OTHERS]), &registers(&[]), Seen::Returns);
    assert!(matches!(story.outcome, Outcome::Mapped { .. }));
    assert_eq!(told(&story), (vec![OWN], Comparison::UnderLock));
}

/// Another CPU writes before this one has the lock.
#[test]
fn a_stepped_share_tells_of_its_own_writes_where_that_is_sure() {
    let own = (vec![OWN], Comparison::UnderLock);
    let all = (vec![OWN, OTHERS], Comparison::EntryToEnd);
    for (kind, disturbed, expected) in [
        (HypervisorKind::Hyp, false, &own),
        (HypervisorKind::Hyp, true, &all),
        (HypervisorKind::Pkvm, false, &all),
    ] {
        let mut system = before();
        system.hypervisor.kind = kind;
        let mut following = begin(system, &SHARE);
        following.look(look(&[OTHERS]));
        if disturbed {
            following.others_stepped();
        }
        assert_eq!(following.is_steady(), !disturbed);
        following.look(look(&[OTHERS, OWN]));
        let story = following.end(&mapped(&[OTHERS, OWN]), &registers(&[]), Seen::Returns);
        assert_eq!(story.outcome, Outcome::Returned);
        assert_eq!(&told(&story), expected, "{kind:?}, {disturbed}");
    }
}

/// RAM is unmapped when it is given away; it does not come back by itself.
#[test]
fn a_pool_was_exhausted_if_what_goes_is_no_ram() {
    let devices = (0, 0, 0x7fd);
    let ram = (1, OWN as usize, (RAM + (OWN << 21)) | 0x7fd);
    for ((table, index, word), expected) in [(devices, true), (ram, false)] {
        let mut system = before();
        system.regimes[0].tables[table].words[index] = word;
        let story = begin(system, &SHARE).end(&before(), &registers(&[]), Seen::Returns);
        assert_eq!(story.writes.len(), 1);
        let mut steps = story.steps.iter();
        let is_told = steps.any(|step| step.text.starts_with("the pool was exhausted"));
        assert_eq!(is_told, expected, "{word:#x}");
    }
}

/// The host's words cover intermediate physical addresses, EL2's virtual ones.
#[test]
fn what_a_word_of_el2_covers_is_found_at_its_physical_address() {
    let system = before();
    let hyp = 0x40_0000_0000;
    for (regime, ia) in [("host-s2", RAM), ("hyp-s1", RAM + hyp)] {
        let table = |word| Table {
            pa: 0x4031_1000,
            level: 3,
            ia,
            parent: None,
            words: vec![word],
        };
        let written = difference::written(&Tables {
            name: regime,
            regime: &system.regimes[0].regime,
            before: &[table(0)],
            after: &[table(RAM | 0x7ff)],
            meaning: [None, None],
        });
        let own = own(&written, &system);
        assert_eq!(own.memory, [Span::new(RAM, 0x1000)], "{regime}");
        assert!(own.tables.contains(&0x4031_1000), "{regime}");
    }
}
