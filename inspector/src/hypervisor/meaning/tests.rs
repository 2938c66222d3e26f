use super::*;

fn layout(owners: OwnerEncoding) -> Layout {
    Layout {
        states: None,
        owners,
        parties: vec![
            (0, Owner::Host),
            (1, Owner::Hyp),
            (2, Owner::Guest(0)),
            (3, Owner::Ffa),
        ],
        ffa: true,
        lock_bit: true,
    }
}

#[test]
fn invalid_words_name_their_owner_in_the_encoding_of_their_kernel() {
    use OwnerEncoding::{High, Low, Typed, Unknown};
    let guest = Some((Owner::Guest(0x1001), Some(0x40002)));
    let hyp = Some((Owner::Hyp, None));
    for (encoding, raw, expected) in [
        (Low, 0x4, hyp),
        (Low, 0x4 | 1 << 55, hyp),
        (Low, 0xc, Some((Owner::Ffa, None))),
        (Low, 0x8, Some((Owner::Unknown(2), None))),
        (Low, 0x3fc, Some((Owner::Unknown(255), None))),
        (Low, 0x400, Some((Owner::Locked, None))),
        (Low, 0x800, None),
        (Low, 0x2000_0000_0000_0002, None),
        (High, 0x0100_0000_0000_0000, hyp),
        (High, 0x0100_0000_0000_0004, None),
        (High, 0x4, None),
        (Typed, 0x2000_0000_0000_0002, hyp),
        (Typed, 0x2000_0040_0021_0014, guest),
        (
            Typed,
            0x2000_0000_0000_000e,
            Some((Owner::Unknown(7), None)),
        ),
        (Typed, 0x1000_0000_0000_0000, Some((Owner::Locked, None))),
        (Typed, 0x3000_0000_0000_0000, Some((Owner::Poisoned, None))),
        (Typed, 0x4, None),
        (Typed, 0x7000_0000_0000_0000, None),
        (Unknown, 0x4, hyp),
        (Unknown, 0x2000_0000_0000_0002, hyp),
        (Unknown, 0x5000_0000_0000_0002, None),
    ] {
        let found = annotation(&layout(encoding), raw);
        let found = found.map(|found| (found.owner, found.gfn));
        assert_eq!(found, expected, "{encoding:?} {raw:#x}");
    }
}

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

/// By layout A; the page of [`entry`] is RAM.
fn classify(side: Side, leaf: walk::Entry) -> Entry {
    Meaning {
        layout: &Layout::a(),
        records: None,
        ram: &[Span::new(0x4800_0000, 0x1000)],
        page_shift: 12,
    }
    .entry(side, leaf)
}

/// The example words of the series, and forms that only look like them.
#[test]
fn invalid_words_of_hyps_host_name_their_owner() {
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
        // The lock of later kernels.
        (0x400, EntryKind::Invalid, None),
    ] {
        let entry = classify(Side::Host, entry(Kind::Invalid, raw));
        assert_eq!((entry.kind, entry.owner), (kind, owner), "{raw:#x}");
        assert_eq!(entry.state, owner.map(|_| State::NoPage), "{raw:#x}");
    }
    let fixmap = classify(Side::Hyp, entry(Kind::Invalid, 4));
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
        let found = classify(side, entry(Kind::Page, raw));
        assert_eq!(
            (found.kind, found.state, found.owner),
            (EntryKind::Page, Some(state), owner),
            "{raw:#x}"
        );
    }
    let mmio = walk::Entry {
        ia: 0x0900_0000,
        ..entry(Kind::Page, 0x0040_0000_0900_07ff)
    };
    let mmio = classify(Side::Host, mmio);
    assert_eq!((mmio.state, mmio.owner), (None, None));
}

#[test]
fn faulty_words_have_no_state() {
    for (kind, row) in [
        (Kind::Reserved, EntryKind::Reserved),
        (Kind::Loop, EntryKind::Loop),
        (Kind::Unreadable, EntryKind::Unreadable),
    ] {
        let found = classify(Side::Host, entry(kind, 0x0080_0000_4800_07fd));
        assert_eq!((found.kind, found.state, found.owner), (row, None, None));
    }
}

#[test]
fn the_lender_is_named_where_it_can_be_one_only() {
    let two = vec![(1, Owner::Hyp)];
    let three = vec![(0, Owner::Host), (1, Owner::Hyp), (2, Owner::Guest(0))];
    for (parties, lender) in [(two, Some(Owner::Hyp)), (three, None), (Vec::new(), None)] {
        let layout = Layout {
            parties,
            ..Layout::a()
        };
        assert_eq!(layout.only_lender(), lender);
    }
}
