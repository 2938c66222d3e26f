use super::*;
use proptest::prelude::*;

const PAGE: u64 = 0x1000;

fn said<T>(page: u64, pages: u64, what: T) -> Said<T> {
    let span = Span::new(page * PAGE, pages * PAGE);
    Said { span, what }
}

fn guest(handle: u64, ipa: u64, state: State) -> GuestSide {
    GuestSide { handle, ipa, state }
}

/// A page by its sides, what else is known of it, and the row that it has in the table.
struct Case {
    host: State,
    hyp: State,
    annotated: Option<Owner>,
    read_only: bool,
    count: u64,
    guests: Vec<GuestSide>,
    rule: Option<&'static str>,
}

fn case(host: State, hyp: State, rule: Option<&'static str>) -> Case {
    Case {
        host,
        hyp,
        annotated: None,
        read_only: false,
        count: 0,
        guests: Vec::new(),
        rule,
    }
}

impl Case {
    fn annotated(self, owner: Owner) -> Self {
        Self {
            annotated: Some(owner),
            ..self
        }
    }

    fn read_only(self) -> Self {
        Self {
            read_only: true,
            ..self
        }
    }

    fn with(self, count: u64, guests: &[&GuestSide]) -> Self {
        let guests = guests.iter().map(|guest| (*guest).clone()).collect();
        Self {
            count,
            guests,
            ..self
        }
    }
}

/// Each row of the table, and one step beside it.
fn cases() -> Vec<Case> {
    use State::{NoPage, Owned, SharedBorrowed, SharedOwned};
    let lent = &guest(0x1000, 0, SharedBorrowed);
    let hidden = &guest(0x1001, 0, Owned);
    let back = &guest(0x1001, 0, SharedOwned);
    let of = Owner::Guest;
    vec![
        case(Owned, NoPage, Some("J1")),
        case(Owned, Owned, None),
        case(SharedOwned, SharedBorrowed, Some("J2")),
        case(SharedBorrowed, SharedOwned, Some("J3")),
        case(NoPage, Owned, Some("J4")).annotated(Owner::Hyp),
        case(NoPage, Owned, None).annotated(of(0x1000)),
        case(SharedOwned, NoPage, Some("J5")),
        case(SharedOwned, NoPage, None).with(1, &[]),
        case(SharedOwned, NoPage, Some("J6")).with(1, &[lent]),
        case(SharedOwned, NoPage, None).with(2, &[lent]),
        case(SharedOwned, NoPage, Some("J6")).with(2, &[lent, lent]),
        case(SharedOwned, NoPage, None).with(2, &[lent, hidden]),
        // However many borrow, it is the host that lends.
        case(Owned, NoPage, None).with(1, &[lent]),
        case(Owned, NoPage, None).with(2, &[lent, lent]),
        case(NoPage, Owned, None).with(2, &[lent, lent]),
        case(SharedOwned, SharedBorrowed, None).with(2, &[lent, lent]),
        case(SharedOwned, NoPage, None)
            .annotated(Owner::Hyp)
            .with(2, &[lent, lent]),
        case(NoPage, NoPage, Some("J7"))
            .annotated(of(0x1001))
            .with(0, &[hidden]),
        case(NoPage, NoPage, None)
            .annotated(of(0x1000))
            .with(0, &[hidden]),
        case(NoPage, NoPage, None).with(0, &[hidden]),
        case(SharedBorrowed, NoPage, Some("J8")).with(0, &[back]),
        case(Owned, NoPage, None).with(0, &[back]),
        case(NoPage, Owned, Some("J9")).read_only(),
        case(NoPage, Owned, None),
    ]
}

#[test]
fn legal_joint_states_have_their_row() {
    for case in cases() {
        let page = Page {
            host: Some(case.host),
            hyp: Some(case.hyp),
            annotated: case.annotated,
            read_only: case.read_only,
            count: Some(case.count),
            guests: case.guests,
        };
        let text = format!("{page:?}");
        assert_eq!(page.rule(true), case.rule, "{text}");
        // Without an untracked third side a page cannot be shared with nobody.
        let tracked = case.rule.filter(|rule| *rule != "J5");
        assert_eq!(page.rule(false), tracked, "{text}");
    }
}

#[test]
fn a_page_that_two_call_their_own_is_in_conflict() {
    let claims = |guests| Claims {
        host: vec![said(0, 1, Some(State::NoPage))],
        guests,
        ..Claims::default()
    };
    let ram = [Span::new(0, PAGE)];
    let owner = |guests| joint(&ram, claims(guests))[0].owner;
    let one = || said(0, 1, guest(0x1000, 0, State::Owned));
    let two = || said(0, 1, guest(0x1001, 0, State::SharedOwned));
    assert_eq!(owner(vec![]), JointOwner::None);
    assert_eq!(owner(vec![one()]), JointOwner::One(Owner::Guest(0x1000)));
    assert_eq!(owner(vec![one(), two()]), JointOwner::Conflict);
}

#[test]
fn pages_of_a_guest_merge_where_both_addresses_go_on() {
    let claims = Claims {
        guests: vec![
            said(0, 1, guest(1, 0, State::SharedBorrowed)),
            said(1, 2, guest(1, PAGE, State::SharedBorrowed)),
            said(3, 1, guest(1, 0x9000, State::SharedBorrowed)),
        ],
        ..Claims::default()
    };
    let ranges = joint(&[Span::new(0, 5 * PAGE)], claims);
    let found: Vec<_> = ranges
        .iter()
        .map(|range| {
            (
                range.pa.start / PAGE,
                range.pa.size / PAGE,
                range.guests.first(),
            )
        })
        .map(|(start, size, side)| (start, size, side.map(|side| side.ipa)))
        .collect();
    assert_eq!(found, [(0, 3, Some(0)), (3, 1, Some(0x9000)), (4, 1, None)]);
}

proptest! {
    /// Against asking each page by itself.
    #[test]
    fn the_sweep_says_of_each_page_what_was_said_of_it(
        host in prop::collection::vec((0_u64..24, 1_u64..5, 0_u8..4), 0..6),
        hyp in prop::collection::vec((0_u64..24, 1_u64..5, 0_u8..4), 0..6),
        guests in prop::collection::vec((0_u64..24, 1_u64..5, 0_u64..3), 0..6),
        counts in prop::collection::vec((0_u64..24, 1_u64..5, 0_u64..3), 0..4),
    ) {
        let state = |number: u8| match number {
            0 => Some(State::SharedOwned),
            1 => Some(State::SharedBorrowed),
            2 => Some(State::NoPage),
            _ => None,
        };
        let states = |list: &[(u64, u64, u8)]| {
            list.iter().map(|&(at, size, what)| said(at, size, state(what))).collect::<Vec<_>>()
        };
        let claims = || Claims {
            host: states(&host),
            hyp: states(&hyp),
            counts: counts.iter().map(|&(at, size, count)| said(at, size, count)).collect(),
            guests: guests
                .iter()
                .map(|&(at, size, handle)| said(at, size, guest(handle, at * PAGE, State::Owned)))
                .collect(),
            ..Claims::default()
        };
        let ram = [Span::new(2 * PAGE, 10 * PAGE), Span::new(16 * PAGE, 12 * PAGE)];
        let ranges = joint(&ram, claims());
        let pages = ram.iter().flat_map(|ram| (0..ram.size / PAGE).map(|n| ram.start + n * PAGE));
        for page in pages {
            let alone = joint(&[Span::new(page, PAGE)], claims());
            prop_assert_eq!(alone.len(), 1);
            let range = ranges.iter().find(|range| range.pa.contains(page)).unwrap();
            let offset = page - range.pa.start;
            let sides: Vec<_> = range
                .guests
                .iter()
                .map(|side| GuestSide { ipa: side.ipa + offset, ..side.clone() })
                .collect();
            prop_assert_eq!(&sides, &alone[0].guests);
            prop_assert_eq!(
                (range.owner, range.host, range.hyp, range.refcount, range.rule),
                (alone[0].owner, alone[0].host, alone[0].hyp, alone[0].refcount, alone[0].rule)
            );
            let mut said: Vec<_> = guests
                .iter()
                .filter(|&&(at, size, _)| (at..at + size).contains(&(page / PAGE)))
                .map(|&(_, _, handle)| handle)
                .collect();
            said.sort_unstable();
            let mut seen: Vec<_> = sides.iter().map(|side| side.handle).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, said);
        }
    }
}
