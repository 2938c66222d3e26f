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

/// Each row of the table of legal joint states, and one step beside it.
#[test]
fn legal_joint_states_have_their_row() {
    use State::{NoPage, Owned, SharedBorrowed, SharedOwned};
    let lent = guest(0x1000, 0, SharedBorrowed);
    let hidden = guest(0x1001, 0, Owned);
    let back = guest(0x1001, 0, SharedOwned);
    let one = |guest: &GuestSide| vec![guest.clone()];
    let of = |handle| Some(Owner::Guest(handle));
    for (host, hyp, annotated, read_only, count, guests, rule) in [
        (Owned, NoPage, None, false, 0, vec![], Some("J1")),
        (Owned, Owned, None, false, 0, vec![], None),
        (
            SharedOwned,
            SharedBorrowed,
            None,
            false,
            0,
            vec![],
            Some("J2"),
        ),
        (
            SharedBorrowed,
            SharedOwned,
            None,
            false,
            0,
            vec![],
            Some("J3"),
        ),
        (
            NoPage,
            Owned,
            Some(Owner::Hyp),
            false,
            0,
            vec![],
            Some("J4"),
        ),
        (NoPage, Owned, of(0x1000), false, 0, vec![], None),
        (SharedOwned, NoPage, None, false, 0, vec![], Some("J5")),
        (SharedOwned, NoPage, None, false, 1, vec![], None),
        (SharedOwned, NoPage, None, false, 1, one(&lent), Some("J6")),
        (SharedOwned, NoPage, None, false, 2, one(&lent), None),
        (
            SharedOwned,
            NoPage,
            None,
            false,
            2,
            vec![lent.clone(), lent.clone()],
            Some("J6"),
        ),
        (
            SharedOwned,
            NoPage,
            None,
            false,
            2,
            vec![lent.clone(), hidden.clone()],
            None,
        ),
        (
            NoPage,
            NoPage,
            of(0x1001),
            false,
            0,
            one(&hidden),
            Some("J7"),
        ),
        (NoPage, NoPage, of(0x1000), false, 0, one(&hidden), None),
        (NoPage, NoPage, None, false, 0, one(&hidden), None),
        (
            SharedBorrowed,
            NoPage,
            None,
            false,
            0,
            one(&back),
            Some("J8"),
        ),
        (Owned, NoPage, None, false, 0, one(&back), None),
        (NoPage, Owned, None, true, 0, vec![], Some("J9")),
        (NoPage, Owned, None, false, 0, vec![], None),
    ] {
        let text = format!("{host} {hyp} {annotated:?} {read_only} {count} {guests:?}");
        let page = Page {
            host: Some(host),
            hyp: Some(hyp),
            annotated,
            read_only,
            count: Some(count),
            guests,
        };
        assert_eq!(page.rule(true), rule, "{text}");
        // Without an untracked third side a page cannot be shared with nobody.
        assert_eq!(
            page.rule(false),
            rule.filter(|rule| *rule != "J5"),
            "{text}"
        );
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
