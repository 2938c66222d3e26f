//! Layout profile A: page state in software bits 56:55 of leaves, owner id in bits 9:2 of invalid
//! stage-2 descriptors (Linux 5.15, "KVM: arm64: Track shared pages at EL2 in protected mode").

use crate::arch::walk::{self, Kind};
use crate::model::{Entry, EntryKind, Owner, State};

/// The profile's letter.
pub(super) const A: &str = "A";

/// Software bits 58:55 of a descriptor in place.
const SW_MASK: u64 = 0xf << 55;
/// The owner id of an invalid stage-2 descriptor: bits 9:2.
const OWNER_MASK: u64 = 0xff << 2;

/// The party whose tables an entry stands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Host,
    Hyp,
}

/// What the hypervisor means by an entry. `ram` says whether its physical addresses are RAM: what is
/// not has no state.
pub(super) fn classify(side: Side, leaf: walk::Entry, ram: bool) -> Entry {
    let (kind, state, owner) = match leaf.kind {
        Kind::Block => leaf_row(side, EntryKind::Block, leaf.sw, ram),
        Kind::Page => leaf_row(side, EntryKind::Page, leaf.sw, ram),
        Kind::Invalid => match (side, annotation(leaf.raw)) {
            (Side::Host, Some(owner)) => (EntryKind::Annotation, Some(State::NoPage), Some(owner)),
            _ => (EntryKind::Invalid, None, None),
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
        guest_ipa: None,
    }
}

fn leaf_row(
    side: Side,
    kind: EntryKind,
    sw: u8,
    ram: bool,
) -> (EntryKind, Option<State>, Option<Owner>) {
    if !ram {
        return (kind, None, None);
    }
    let (own, other) = match side {
        Side::Host => (Owner::Host, Owner::Hyp),
        Side::Hyp => (Owner::Hyp, Owner::Host),
    };
    // SW0 (bit 55) and SW1 (bit 56), patch 12 of the series.
    let (state, owner) = match sw & 3 {
        0 => (State::Owned, Some(own)),
        1 => (State::SharedOwned, Some(own)),
        2 => (State::SharedBorrowed, Some(other)),
        _ => (State::Reserved, None),
    };
    (kind, Some(state), owner)
}

/// The owner that an invalid descriptor names. Id 0 is the host's, which is what a zero word says;
/// a word with bits elsewhere is another layout's, and nobody's here.
fn annotation(raw: u64) -> Option<Owner> {
    if raw & !(OWNER_MASK | SW_MASK) != 0 {
        return None;
    }
    match (raw & OWNER_MASK) >> 2 {
        0 => None,
        1 => Some(Owner::Hyp),
        id => Some(Owner::Unknown(id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: Kind, raw: u64) -> walk::Entry {
        walk::Entry {
            ia: 0x4800_0000,
            size: 4096,
            level: 3,
            kind,
            raw,
            at: 0x4030_0000,
            oa: None,
            attributes: None,
            sw: (raw >> 55 & 0xf) as u8,
            problem: None,
        }
    }

    /// The example words of the series, and forms that only look like them.
    #[test]
    fn invalid_words_of_the_host_name_their_owner() {
        for (raw, kind, owner) in [
            (0x4, EntryKind::Annotation, Some(Owner::Hyp)),
            (0x8, EntryKind::Annotation, Some(Owner::Unknown(2))),
            (0x3fc, EntryKind::Annotation, Some(Owner::Unknown(255))),
            (
                0x0080_0000_0000_0004,
                EntryKind::Annotation,
                Some(Owner::Hyp),
            ),
            // Owner in bits 63:56, as before patch 08: not a borrowed page.
            (0x0100_0000_0000_0000, EntryKind::Invalid, None),
            // Layouts of later kernels.
            (0x2000_0000_0000_0002, EntryKind::Invalid, None),
            (0x3000_0000_0000_0000, EntryKind::Invalid, None),
            (0x2, EntryKind::Invalid, None),
            (0x4800_0004, EntryKind::Invalid, None),
        ] {
            let entry = classify(Side::Host, entry(Kind::Invalid, raw), true);
            assert_eq!((entry.kind, entry.owner), (kind, owner), "{raw:#x}");
            assert_eq!(entry.state, owner.map(|_| State::NoPage), "{raw:#x}");
        }
        let fixmap = classify(Side::Hyp, entry(Kind::Invalid, 4), true);
        assert_eq!((fixmap.kind, fixmap.owner), (EntryKind::Invalid, None));
    }

    #[test]
    fn leaves_of_ram_have_the_state_of_their_software_bits() {
        for (side, raw, state, owner) in [
            (
                Side::Host,
                0x0000_0000_4800_07ff,
                State::Owned,
                Some(Owner::Host),
            ),
            (
                Side::Host,
                0x0080_0000_4800_07ff,
                State::SharedOwned,
                Some(Owner::Host),
            ),
            (
                Side::Host,
                0x0100_0000_4800_07ff,
                State::SharedBorrowed,
                Some(Owner::Hyp),
            ),
            (Side::Host, 0x0180_0000_4800_07ff, State::Reserved, None),
            (
                Side::Hyp,
                0x0040_0000_7c00_1743,
                State::Owned,
                Some(Owner::Hyp),
            ),
            (
                Side::Hyp,
                0x0140_0000_4800_0743,
                State::SharedBorrowed,
                Some(Owner::Host),
            ),
            (
                Side::Hyp,
                0x00c0_0000_4100_07c3,
                State::SharedOwned,
                Some(Owner::Hyp),
            ),
        ] {
            let found = classify(side, entry(Kind::Page, raw), true);
            assert_eq!(
                (found.kind, found.state, found.owner),
                (EntryKind::Page, Some(state), owner),
                "{raw:#x}"
            );
        }
        let mmio = classify(Side::Host, entry(Kind::Page, 0x0040_0000_0900_07ff), false);
        assert_eq!((mmio.state, mmio.owner), (None, None));
    }

    #[test]
    fn faulty_words_have_no_state() {
        for (kind, row) in [
            (Kind::Reserved, EntryKind::Reserved),
            (Kind::Loop, EntryKind::Loop),
            (Kind::Unreadable, EntryKind::Unreadable),
        ] {
            let found = classify(Side::Host, entry(kind, 0x0080_0000_4800_07fd), true);
            assert_eq!((found.kind, found.state, found.owner), (row, None, None));
        }
    }
}
