//! The joint state of every page of RAM, from what each side says of it.
//!
//! A sweep over intervals, so that its cost follows the number of entries and not the size of RAM,
//! which comes from the machine.

use crate::addr::Span;
use crate::model::{
    Entry, EntryKind, GuestSide, JointOwner, Owner, OwnerRange, RegimeCapture, State,
};

/// One thing said of an interval of physical addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Said<T> {
    pub(super) span: Span,
    pub(super) what: T,
}

/// What all sides say, each list in any order. Where two say something of one address in the same list, which tables
/// that loop may do, the first keeps it.
#[derive(Default, Debug)]
pub(super) struct Claims {
    /// The host's state, `None` where it could not be read. Of what is not mentioned it is the owner: its tables are
    /// filled when a page is touched.
    pub(super) host: Vec<Said<Option<State>>>,
    /// The hypervisor's, likewise; what is not mentioned is not its own.
    pub(super) hyp: Vec<Said<Option<State>>>,
    /// Owners that annotations in the host's tables name.
    pub(super) annotations: Vec<Said<Owner>>,
    /// What the host can read and nothing else: hypervisor text from Linux 7.x on.
    pub(super) read_only: Vec<Said<()>>,
    /// Share counts that are not 0.
    pub(super) counts: Vec<Said<u64>>,
    /// Pages in guests' tables.
    pub(super) guests: Vec<Said<GuestSide>>,
    /// Whether the host may share with a world whose side is not tracked (FF-A).
    pub(super) ffa: bool,
}

/// What the entries of the host's tables say, where page state is in the descriptors.
pub(super) fn host_states(host: &RegimeCapture) -> Vec<Said<Option<State>>> {
    let said = host.entries.iter().filter_map(|entry| {
        let state = match entry.kind {
            EntryKind::Block | EntryKind::Page => entry.state?.into(),
            // Not zero and not valid: the host faults, and is refused.
            EntryKind::Annotation | EntryKind::Invalid | EntryKind::Reserved => Some(State::NoPage),
            EntryKind::Loop | EntryKind::Unreadable => None,
        };
        Some(said_of(entry, state))
    });
    said.collect()
}

/// The owners that the annotations in the host's tables name.
pub(super) fn annotations(host: &RegimeCapture) -> Vec<Said<Owner>> {
    let annotated = host
        .entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::Annotation);
    annotated
        .filter_map(|entry| Some(said_of(entry, entry.owner?)))
        .collect()
}

/// What hyp's tables say, where page state is in the descriptors: its leaf in the linear range, where
/// PA = VA + `physvirt_offset`; other mappings of hyp (stacks, fixmap) are private and do not count.
pub(super) fn hyp_states(hyp: &RegimeCapture, physvirt_offset: u64) -> Vec<Said<Option<State>>> {
    let said = hyp.entries.iter().filter_map(|entry| {
        let pa = entry.leaf.ia.wrapping_add(physvirt_offset);
        let what = match entry.kind {
            EntryKind::Block | EntryKind::Page if entry.leaf.oa == Some(pa) => entry.state?.into(),
            EntryKind::Loop | EntryKind::Unreadable => None,
            _ => return None,
        };
        let span = Span::new(pa, entry.leaf.size);
        Some(Said { span, what })
    });
    said.collect()
}

/// The host's map is an identity.
fn said_of<T>(entry: &Entry, what: T) -> Said<T> {
    let span = Span::new(entry.leaf.ia, entry.leaf.size);
    Said { span, what }
}

/// The joint states of all of `ram` (in order, without overlap), neighbours merged.
pub(super) fn joint(ram: &[Span], claims: Claims) -> Vec<OwnerRange> {
    let mut host = Track::new(claims.host);
    let mut hyp = Track::new(claims.hyp);
    let mut annotations = Track::new(claims.annotations);
    let mut read_only = Track::new(claims.read_only);
    let mut counts = Track::new(claims.counts);
    let mut guests = Guests::new(claims.guests);
    let mut ranges: Vec<OwnerRange> = Vec::new();
    for region in ram {
        let Some(last) = region.last() else { continue };
        let mut start = region.start;
        loop {
            let (host_said, host_last) = host.at(start);
            let (hyp_said, hyp_last) = hyp.at(start);
            let (annotated, annotated_last) = annotations.at(start);
            let (read_only_said, read_only_last) = read_only.at(start);
            let (count, count_last) = counts.at(start);
            let (sides, guests_last) = guests.at(start);
            let ends = [
                host_last,
                hyp_last,
                annotated_last,
                read_only_last,
                count_last,
                guests_last,
            ];
            let end = ends.into_iter().fold(last, u64::min);
            let pa = Span::new(start, (end - start).saturating_add(1));
            let page = Page {
                host: host_said.unwrap_or(Some(State::Owned)),
                hyp: hyp_said.unwrap_or(Some(State::NoPage)),
                annotated,
                read_only: read_only_said.is_some(),
                count,
                guests: sides,
            };
            push(&mut ranges, page.range(pa, claims.ffa));
            if end == last {
                break;
            }
            start = end + 1;
        }
    }
    ranges
}

fn push(ranges: &mut Vec<OwnerRange>, next: OwnerRange) {
    if let Some(last) = ranges.last_mut()
        && last.pa.start.checked_add(last.pa.size) == Some(next.pa.start)
        && (last.owner, last.host, last.hyp, last.refcount, last.rule)
            == (next.owner, next.host, next.hyp, next.refcount, next.rule)
        && go_on(&last.guests, last.pa.size, &next.guests)
    {
        last.pa.size += next.pa.size;
        return;
    }
    ranges.push(next);
}

/// Whether the guests see `next` right behind `last`, which is of `size` bytes.
fn go_on(last: &[GuestSide], size: u64, next: &[GuestSide]) -> bool {
    last.len() == next.len()
        && last.iter().zip(next).all(|(last, next)| {
            (last.handle, last.state) == (next.handle, next.state)
                && last.ipa.checked_add(size) == Some(next.ipa)
        })
}

/// In order of address, without overlap.
fn ordered<T>(mut said: Vec<Said<T>>) -> Vec<Said<T>> {
    said.sort_by_key(|said| said.span.start);
    let mut end = 0_u64;
    said.retain(|said| {
        let free = said.span.start >= end;
        if free {
            end = said.span.start.saturating_add(said.span.size);
        }
        free
    });
    said
}

/// One list, asked for ever higher addresses.
struct Track<T> {
    said: Vec<Said<T>>,
    at: usize,
}

impl<T: Copy> Track<T> {
    fn new(said: Vec<Said<T>>) -> Self {
        Self {
            said: ordered(said),
            at: 0,
        }
    }

    /// What it says of `address`, and the last address of which it says the same.
    fn at(&mut self, address: u64) -> (Option<T>, u64) {
        let is_over = |said: &Said<T>| said.span.last().is_none_or(|last| last < address);
        while self.said.get(self.at).is_some_and(is_over) {
            self.at += 1;
        }
        match self.said.get(self.at) {
            Some(first) if first.span.contains(address) => {
                (Some(first.what), first.span.last().unwrap_or(address))
            }
            Some(first) => (None, first.span.start - 1),
            None => (None, u64::MAX),
        }
    }
}

/// The guests' pages, asked for ever higher addresses. Several guests may borrow one page.
struct Guests {
    /// In order of the first address.
    said: Vec<Said<GuestSide>>,
    next: usize,
    /// Those that hold the last address asked for.
    here: Vec<Said<GuestSide>>,
}

impl Guests {
    fn new(mut said: Vec<Said<GuestSide>>) -> Self {
        said.retain(|said| said.span.size > 0);
        said.sort_by_key(|said| (said.span.start, said.what.handle, said.what.ipa));
        Self {
            said,
            next: 0,
            here: Vec::new(),
        }
    }

    fn at(&mut self, address: u64) -> (Vec<GuestSide>, u64) {
        while let Some(said) = self.said.get(self.next)
            && said.span.start <= address
        {
            self.here.push(said.clone());
            self.next += 1;
        }
        self.here.retain(|said| said.span.contains(address));
        let following = self.said.get(self.next).map(|said| said.span.start - 1);
        let ends = self.here.iter().filter_map(|said| said.span.last());
        let last = ends.chain(following).min().unwrap_or(u64::MAX);
        let side = |said: &Said<GuestSide>| GuestSide {
            ipa: said.what.ipa.wrapping_add(address - said.span.start),
            ..said.what.clone()
        };
        (self.here.iter().map(side).collect(), last)
    }
}

/// What all sides say of one page.
#[derive(Debug)]
struct Page {
    host: Option<State>,
    hyp: Option<State>,
    annotated: Option<Owner>,
    read_only: bool,
    count: Option<u64>,
    guests: Vec<GuestSide>,
}

fn claims(state: State) -> bool {
    matches!(state, State::Owned | State::SharedOwned)
}

impl Page {
    fn range(self, pa: Span, ffa: bool) -> OwnerRange {
        OwnerRange {
            pa,
            owner: self.owner(),
            host: self.host,
            hyp: self.hyp,
            rule: self.rule(ffa),
            refcount: self.count,
            guests: self.guests,
        }
    }

    fn owner(&self) -> JointOwner {
        let host = self.host.is_some_and(claims).then_some(Owner::Host);
        let hyp = self.hyp.is_some_and(claims).then_some(Owner::Hyp);
        let guests = self.guests.iter().filter(|guest| claims(guest.state));
        let guests = guests.map(|guest| Owner::Guest(guest.handle));
        let mut owners = host.into_iter().chain(hyp).chain(guests);
        match (owners.next(), owners.next()) {
            (Some(_), Some(_)) => JointOwner::Conflict,
            _ if self.host.is_none() || self.hyp.is_none() => JointOwner::Unknown,
            (Some(owner), None) => JointOwner::One(owner),
            (None, _) => JointOwner::None,
        }
    }

    /// The row of the table of legal joint states.
    fn rule(&self, ffa: bool) -> Option<&'static str> {
        use State::{NoPage, Owned, SharedBorrowed, SharedOwned};
        let count = self.count.unwrap_or(0);
        let all_borrow = |guests: &[GuestSide]| {
            let mut states = guests.iter().map(|guest| guest.state);
            states.all(|state| state == SharedBorrowed)
        };
        match (self.host?, self.hyp?, self.annotated, &*self.guests) {
            (Owned, NoPage, None, []) => Some("J1"),
            (SharedOwned, SharedBorrowed, None, []) => Some("J2"),
            (SharedBorrowed, SharedOwned, None, []) => Some("J3"),
            (NoPage, Owned, Some(Owner::Hyp), []) => Some("J4"),
            (SharedOwned, NoPage, None, []) if ffa && count == 0 => Some("J5"),
            (SharedOwned, NoPage, None, guests @ [_, ..])
                if all_borrow(guests) && count == guests.len() as u64 =>
            {
                Some("J6")
            }
            (NoPage, NoPage, Some(Owner::Guest(handle)), [guest])
                if guest.state == Owned && guest.handle == handle =>
            {
                Some("J7")
            }
            (SharedBorrowed, NoPage, None, [guest]) if guest.state == SharedOwned => Some("J8"),
            (NoPage, Owned, None, []) if self.read_only => Some("J9"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
