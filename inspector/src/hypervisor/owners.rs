//! The joint state of every page of RAM, from both sides' tables.
//!
//! A sweep over intervals, so that its cost follows the number of entries and not the size of RAM,
//! which comes from the machine.

use crate::addr::Span;
use crate::model::{Entry, EntryKind, JointOwner, Owner, OwnerRange, RegimeCapture, State};

/// What one side says of an interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Said {
    span: Span,
    /// `None` where the table could not be read.
    state: Option<State>,
    /// The owner that the host's annotation names.
    annotated: Option<Owner>,
}

/// The joint states of all of `ram` (in order, without overlap), neighbours merged.
///
/// A page that the host's tables do not mention is the host's own: they are filled when it is
/// touched. hyp's side is its leaf in the linear range, where PA = VA + `physvirt_offset`; other
/// mappings of hyp (stacks, fixmap) are private and do not count.
pub(super) fn joint(
    ram: &[Span],
    regimes: &[RegimeCapture],
    physvirt_offset: u64,
) -> Vec<OwnerRange> {
    let entries = |name: &str| {
        let regime = regimes.iter().find(|regime| regime.name == name);
        regime.map(|regime| regime.entries.as_slice())
    };
    let (Some(host), Some(hyp)) = (entries("host-s2"), entries("hyp-s1")) else {
        return Vec::new();
    };
    let host = ordered(host.iter().filter_map(host_says).collect());
    let hyp = ordered(
        hyp.iter()
            .filter_map(|entry| hyp_says(entry, physvirt_offset))
            .collect(),
    );
    let (mut host, mut hyp) = (
        Side::new(&host, State::Owned),
        Side::new(&hyp, State::NoPage),
    );
    let mut ranges: Vec<OwnerRange> = Vec::new();
    for region in ram {
        let Some(last) = region.last() else { continue };
        let mut start = region.start;
        loop {
            let (host_said, host_last) = host.at(start);
            let (hyp_said, hyp_last) = hyp.at(start);
            let end = last.min(host_last).min(hyp_last);
            let span = Span::new(start, (end - start).saturating_add(1));
            push(&mut ranges, range(span, host_said, hyp_said));
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
        && (last.owner, last.host, last.hyp, last.rule)
            == (next.owner, next.host, next.hyp, next.rule)
    {
        last.pa.size += next.pa.size;
        return;
    }
    ranges.push(next);
}

fn host_says(entry: &Entry) -> Option<Said> {
    let state = match entry.kind {
        EntryKind::Block | EntryKind::Page => entry.state?.into(),
        // Not zero and not valid: the host faults, and is refused.
        EntryKind::Annotation | EntryKind::Invalid | EntryKind::Reserved => Some(State::NoPage),
        EntryKind::Loop | EntryKind::Unreadable => None,
    };
    Some(Said {
        span: Span::new(entry.leaf.ia, entry.leaf.size),
        state,
        annotated: entry.owner.filter(|_| entry.kind == EntryKind::Annotation),
    })
}

fn hyp_says(entry: &Entry, physvirt_offset: u64) -> Option<Said> {
    let pa = entry.leaf.ia.wrapping_add(physvirt_offset);
    let state = match entry.kind {
        EntryKind::Block | EntryKind::Page if entry.leaf.oa == Some(pa) => entry.state?.into(),
        EntryKind::Loop | EntryKind::Unreadable => None,
        _ => return None,
    };
    Some(Said {
        span: Span::new(pa, entry.leaf.size),
        state,
        annotated: None,
    })
}

/// In order of address. Entries of one table do not overlap, but a loop or an address that wraps
/// may; the first to claim an address keeps it.
fn ordered(mut said: Vec<Said>) -> Vec<Said> {
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

/// One side, asked for ever higher addresses.
struct Side<'a> {
    rest: &'a [Said],
    default: State,
}

impl<'a> Side<'a> {
    fn new(said: &'a [Said], default: State) -> Self {
        Self {
            rest: said,
            default,
        }
    }

    /// What it says of `address`, and the last address of which it says the same.
    fn at(&mut self, address: u64) -> ((Option<State>, Option<Owner>), u64) {
        while let Some(first) = self.rest.first()
            && first.span.last().is_none_or(|last| last < address)
        {
            self.rest = &self.rest[1..];
        }
        match self.rest.first() {
            Some(first) if first.span.contains(address) => {
                let last = first.span.last().unwrap_or(address);
                ((first.state, first.annotated), last)
            }
            Some(first) => ((Some(self.default), None), first.span.start - 1),
            None => ((Some(self.default), None), u64::MAX),
        }
    }
}

fn range(
    pa: Span,
    (host, annotated): (Option<State>, Option<Owner>),
    (hyp, _): (Option<State>, Option<Owner>),
) -> OwnerRange {
    let claims = |state| matches!(state, Some(State::Owned | State::SharedOwned));
    let owner = match (claims(host), claims(hyp)) {
        (true, true) => JointOwner::Conflict,
        _ if host.is_none() || hyp.is_none() => JointOwner::Unknown,
        (true, false) => JointOwner::One(Owner::Host),
        (false, true) => JointOwner::One(Owner::Hyp),
        (false, false) => JointOwner::None,
    };
    OwnerRange {
        pa,
        owner,
        host,
        hyp,
        guests: Vec::new(),
        refcount: None,
        rule: rule(host, hyp, annotated),
    }
}

/// The row of the table of legal joint states.
fn rule(host: Option<State>, hyp: Option<State>, annotated: Option<Owner>) -> Option<&'static str> {
    match (host?, hyp?, annotated) {
        (State::Owned, State::NoPage, None) => Some("J1"),
        (State::SharedOwned, State::SharedBorrowed, None) => Some("J2"),
        (State::SharedBorrowed, State::SharedOwned, None) => Some("J3"),
        (State::NoPage, State::Owned, Some(Owner::Hyp)) => Some("J4"),
        _ => None,
    }
}
