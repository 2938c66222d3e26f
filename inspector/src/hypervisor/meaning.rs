//! What a hypervisor means by a descriptor.

use super::layout::{Layout, OwnerEncoding};
use super::pkvm::Records;
use crate::addr::Span;
use crate::arch::walk::{self, Kind};
use crate::model::{Entry, EntryKind, Owner, State};

/// The party whose tables an entry stands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Host,
    Hyp,
    /// By its handle.
    Guest(u64),
    /// A guest whose tables are the host's business: nothing is tracked in them.
    Untracked,
}

/// Types of invalid descriptors, `enum kvm_invalid_pte_type`.
const LOCKED: u64 = 1;
const DONATED: u64 = 2;
const POISONED: u64 = 3;
/// See [`Layout::lock_bit`].
const LOCK_BIT: u64 = 1 << 10;

/// What an invalid descriptor says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Annotation {
    owner: Owner,
    /// The guest's frame number.
    gfn: Option<u64>,
}

/// Everything that the meaning of an entry depends on.
pub(super) struct Meaning<'a> {
    pub(super) layout: &'a Layout,
    pub(super) records: Option<&'a Records>,
    /// In order of address.
    pub(super) ram: &'a [Span],
    /// log2 of a page's bytes.
    pub(super) page_shift: u32,
}

impl Meaning<'_> {
    pub(super) fn entry(&self, side: Side, leaf: walk::Entry) -> Entry {
        let mut guest_ipa = None;
        let (kind, state, owner) = match leaf.kind {
            Kind::Block => self.leaf(side, EntryKind::Block, &leaf),
            Kind::Page => self.leaf(side, EntryKind::Page, &leaf),
            // EL2's own invalid words, in its fixmap for example, name nobody.
            Kind::Invalid if matches!(side, Side::Hyp | Side::Untracked) => {
                (EntryKind::Invalid, None, None)
            }
            Kind::Invalid => match annotation(self.layout, leaf.raw) {
                Some(Annotation { owner, gfn }) => {
                    guest_ipa = gfn.and_then(|gfn| gfn.checked_mul(1 << self.page_shift));
                    (EntryKind::Annotation, Some(State::NoPage), Some(owner))
                }
                None => (EntryKind::Invalid, None, None),
            },
            Kind::Reserved => (EntryKind::Reserved, None, None),
            Kind::Loop => (EntryKind::Loop, None, None),
            Kind::Unreadable => (EntryKind::Unreadable, None, None),
        };
        Entry {
            leaf,
            kind,
            state,
            owner,
            guest_ipa,
        }
    }

    fn leaf(
        &self,
        side: Side,
        kind: EntryKind,
        leaf: &walk::Entry,
    ) -> (EntryKind, Option<State>, Option<Owner>) {
        let pa = match side {
            // Its map is an identity, and what it asks for decides.
            Side::Host => leaf.ia,
            _ => leaf.oa.unwrap_or(leaf.ia),
        };
        let span = Span::new(pa, leaf.size);
        if !overlaps(self.ram, span) {
            return (kind, None, None);
        }
        let own = match side {
            Side::Host => Owner::Host,
            Side::Hyp => Owner::Hyp,
            Side::Guest(handle) => Owner::Guest(handle),
            Side::Untracked => return (kind, None, None),
        };
        let state = self.state(side, leaf, span);
        let owner = match state {
            Some(State::Owned | State::SharedOwned) => Some(own),
            Some(State::SharedBorrowed) => match side {
                // Where it can be several, the caller finds out.
                Side::Host => self.layout.only_lender(),
                // Only the host lends to the others.
                _ => Some(Owner::Host),
            },
            _ => None,
        };
        (kind, state, owner)
    }

    fn state(&self, side: Side, leaf: &walk::Entry, span: Span) -> Option<State> {
        let states = self.layout.states.as_ref()?;
        let recorded = match side {
            Side::Host => states.host.is_some(),
            Side::Hyp => states.hyp.is_some(),
            Side::Guest(_) | Side::Untracked => false,
        };
        if recorded {
            return self.records?.state_of(side, span);
        }
        Some(of_software_bits(leaf.sw))
    }
}

/// Page state in a leaf: SW0 (bit 55) and SW1 (bit 56), Linux 5.15.
fn of_software_bits(sw: u8) -> State {
    match sw & 3 {
        0 => State::Owned,
        1 => State::SharedOwned,
        2 => State::SharedBorrowed,
        _ => State::Reserved,
    }
}

/// Page state by its number in a page record. 3 is NOPAGE there, which the encoding in descriptors does not need.
pub(super) fn of_record(value: u64) -> State {
    match value {
        0 => State::Owned,
        1 => State::SharedOwned,
        2 => State::SharedBorrowed,
        3 => State::NoPage,
        _ => State::Reserved,
    }
}

/// The owner that an invalid descriptor names; `None` for what has neither form.
fn annotation(layout: &Layout, raw: u64) -> Option<Annotation> {
    match layout.owners {
        OwnerEncoding::High => (raw << 8 == 0).then(|| plain(layout, raw >> 56)).flatten(),
        OwnerEncoding::Low => low(layout, raw),
        OwnerEncoding::Typed => typed(layout, raw),
        OwnerEncoding::Unknown => low(layout, raw).or_else(|| typed(layout, raw)),
    }
}

fn low(layout: &Layout, raw: u64) -> Option<Annotation> {
    const ID: u64 = 0xff << 2;
    /// Software bits 58:55, which the host's state may leave there.
    const SOFTWARE: u64 = 0xf << 55;
    if layout.lock_bit && raw == LOCK_BIT {
        return Some(Annotation {
            owner: Owner::Locked,
            gfn: None,
        });
    }
    (raw & !(ID | SOFTWARE) == 0)
        .then(|| plain(layout, (raw & ID) >> 2))
        .flatten()
}

/// An id by itself. The host is never named: that is what a zero word says.
fn plain(layout: &Layout, id: u64) -> Option<Annotation> {
    let owner = match party(layout, id) {
        Some(Owner::Host) => return None,
        None if id == 0 => return None,
        // Which guest it is, this form cannot say.
        Some(Owner::Guest(_)) | None => Owner::Unknown(id),
        Some(owner) => owner,
    };
    Some(Annotation { owner, gfn: None })
}

/// Type in bits 63:60; of a donation the owner's id in bits 3:1 and, for a guest, its handle in bits 19:4 and its frame
/// number in bits 59:20.
fn typed(layout: &Layout, raw: u64) -> Option<Annotation> {
    let plain = |owner| Annotation { owner, gfn: None };
    match raw >> 60 {
        LOCKED => Some(plain(Owner::Locked)),
        POISONED => Some(plain(Owner::Poisoned)),
        DONATED if raw & 1 == 0 => {
            let id = raw >> 1 & 7;
            Some(match party(layout, id) {
                Some(Owner::Guest(_)) => Annotation {
                    owner: Owner::Guest(raw >> 4 & 0xffff),
                    gfn: Some(raw >> 20 & 0xff_ffff_ffff),
                },
                Some(owner) => plain(owner),
                None => plain(Owner::Unknown(id)),
            })
        }
        _ => None,
    }
}

fn party(layout: &Layout, id: u64) -> Option<Owner> {
    let known = layout.parties.iter().find(|(known, _)| *known == id);
    known.map(|(_, owner)| *owner)
}

/// Whether `span` shares an address with one of `ranges`, which are in order and do not overlap.
fn overlaps(ranges: &[Span], span: Span) -> bool {
    let Some(last) = span.last() else {
        return false;
    };
    let before = ranges.partition_point(|range| range.start <= last);
    before
        .checked_sub(1)
        .is_some_and(|at| ranges[at].overlaps(span))
}

#[cfg(test)]
mod tests;
