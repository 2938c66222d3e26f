use std::format;

use proptest::prelude::*;

use super::*;
use crate::page_state::PageState;

/// The layout's example words, written out.
#[test]
fn words_are_those_of_the_layout() {
    let stage2 = |pa, level, prot| Desc::stage2_leaf(Pa::new(pa), level, prot).unwrap().raw();
    assert_eq!(stage2(0x4800_0000, 3, Prot::RWX), 0x0000_0000_4800_07ff);
    assert_eq!(
        stage2(0x4800_0000, 3, Prot::RWX | Prot::SW0),
        0x0080_0000_4800_07ff
    );
    assert_eq!(
        stage2(0x4800_0000, 3, Prot::RWX | Prot::SW1),
        0x0100_0000_4800_07ff
    );
    assert_eq!(
        stage2(0x4800_0000, 3, Prot::RWX | Prot::SW0 | Prot::SW1),
        0x0180_0000_4800_07ff
    );
    assert_eq!(stage2(0x0900_0000, 3, Prot::RW), 0x0040_0000_0900_07ff);
    assert_eq!(stage2(0x4800_0000, 2, Prot::RWX), 0x0000_0000_4800_07fd);
    let hyp = |pa, prot| Desc::hyp_leaf(Pa::new(pa), 3, prot).unwrap().raw();
    assert_eq!(hyp(0x7c00_1000, Prot::RW), 0x0040_0000_7c00_1743);
    assert_eq!(
        hyp(0x4800_0000, Prot::RW | Prot::SW1),
        0x0140_0000_4800_0743
    );
    assert_eq!(hyp(0x4100_0000, Prot::R | Prot::SW0), 0x00c0_0000_4100_07c3);
    assert_eq!(hyp(0x4120_0000, Prot::RX), 0x0000_0000_4120_07c3);
    assert_eq!(
        hyp(0x0900_0000, Prot::RW | Prot::DEVICE),
        0x0040_0000_0900_0747
    );
    assert_eq!(Desc::table(Pa::new(0x4030_1000)).raw(), 0x4030_1003);
}

/// Owner ids are below the software bits: where they were before, the id would read as a borrowed page.
#[test]
fn annotations_leave_the_software_bits_alone() {
    assert_eq!(Desc::annotation(OwnerId::Hyp).raw(), 0x0000_0000_0000_0004);
    assert_eq!(Desc::annotation(OwnerId::Host), Desc::ZERO);
    for owner in [OwnerId::Host, OwnerId::Hyp] {
        let annotation = Desc::annotation(owner);
        assert!(!annotation.is_valid() && !annotation.is_table(0));
        assert_eq!(annotation.stage2_prot(), Prot::NONE);
        assert_eq!(PageState::of(annotation.stage2_prot()), PageState::Owned);
    }
    let old_layout = Desc::from_raw(0x0100_0000_0000_0000);
    assert_eq!(
        PageState::of(old_layout.stage2_prot()),
        PageState::SharedBorrowed,
        "the clash"
    );
}

struct GranuleCase {
    granule: Granule,
    shift: u32,
    level_shifts: [u32; 4],
    leaves: [bool; 4],
}

const GRANULES: [GranuleCase; 3] = [
    GranuleCase {
        granule: Granule::K4,
        shift: 12,
        level_shifts: [39, 30, 21, 12],
        leaves: [false, true, true, true],
    },
    GranuleCase {
        granule: Granule::K16,
        shift: 14,
        level_shifts: [47, 36, 25, 14],
        leaves: [false, false, true, true],
    },
    GranuleCase {
        granule: Granule::K64,
        shift: 16,
        level_shifts: [55, 42, 29, 16],
        leaves: [false, false, true, true],
    },
];

#[test]
fn levels_of_every_granule() {
    for GranuleCase {
        granule,
        shift,
        level_shifts,
        leaves,
    } in GRANULES
    {
        assert_eq!(granule.shift(), shift);
        assert_eq!(
            [0, 1, 2, 3].map(|level| granule.level_shift(level)),
            level_shifts,
            "{granule:?}"
        );
        assert_eq!(
            [0, 1, 2, 3].map(|level| granule.supports_leaf(level)),
            leaves,
            "{granule:?}"
        );
        assert_eq!(granule.level_size(2), 1 << level_shifts[2]);
        assert!(!granule.supports_leaf(4));
    }
}

#[test]
fn output_addresses_of_every_granule() {
    let all = u64::MAX;
    assert_eq!(
        Granule::K4.output_address(all),
        Pa::new(0x0000_ffff_ffff_f000)
    );
    assert_eq!(
        Granule::K16.output_address(all),
        Pa::new(0x0000_ffff_ffff_c000)
    );
    assert_eq!(
        Granule::K64.output_address(all),
        Pa::new(0x000f_ffff_ffff_0000)
    );
    // 64 KiB: bits 15:12 are bits 51:48 of the address; in the others they are address bits or nothing.
    assert_eq!(
        Granule::K64.output_address(0x0000_1234_5678_a003),
        Pa::new(0x000a_1234_5678_0000 & !0xffff)
    );
    assert_eq!(
        Granule::K4.output_address(0x0000_1234_5678_a003),
        Pa::new(0x0000_1234_5678_a000)
    );
    assert_eq!(
        Granule::K16.output_address(0x0000_1234_5678_a003),
        Pa::new(0x0000_1234_5678_8000)
    );
    assert_eq!(
        Granule::K64.address_bits(Pa::new(0x000a_1234_5678_0000)),
        0x0000_1234_5678_a000
    );
}

#[test]
fn impossible_protections_are_refused() {
    let at = Pa::new(0x1000);
    for prot in [
        Prot::NONE,
        Prot::W,
        Prot::X,
        Prot::RWX,
        Prot::RX | Prot::DEVICE,
    ] {
        assert_eq!(
            Desc::hyp_leaf(at, 3, prot),
            Err(Errno::Inval),
            "hyp {prot:?}"
        );
    }
    for prot in [Prot::X | Prot::DEVICE, Prot::RWX | Prot::DEVICE] {
        assert_eq!(
            Desc::stage2_leaf(at, 3, prot),
            Err(Errno::Inval),
            "stage 2 {prot:?}"
        );
    }
    let device = Desc::stage2_leaf(at, 3, Prot::RW | Prot::DEVICE).unwrap();
    assert_eq!(device.raw(), 0x0040_0000_0000_17c7);
    assert_eq!(device.stage2_prot(), Prot::RW, "device is not read back");
    assert_eq!(
        Desc::hyp_leaf(at, 3, Prot::RW | Prot::DEVICE)
            .unwrap()
            .hyp_prot(),
        Prot::RW
    );
}

#[test]
fn an_invalid_word_has_software_bits_and_no_permissions() {
    for word in [0, 0x4, 0x0040_0000_4800_07fe, 0xffff_ffff_ffff_fffe] {
        let desc = Desc::from_raw(word);
        let sw = Prot(word & 0x0780_0000_0000_0000);
        assert_eq!((desc.stage2_prot(), desc.hyp_prot()), (sw, sw), "{desc:?}");
    }
}

/// AP\[1\] is RES1 at EL2: a word without it is none hyp wrote, and promises nothing.
#[test]
fn hyp_permissions_are_read_from_the_two_ap_values_there_are() {
    let prot = |ap: u64| Desc::from_raw(0x0040_0000_4800_0703 | ap << 6).hyp_prot();
    assert_eq!(
        [0, 1, 2, 3].map(prot),
        [Prot::NONE, Prot::RW, Prot::NONE, Prot::R]
    );
}

#[test]
fn words_of_tables_pages_and_blocks() {
    for (word, level, table) in [
        (3, 0, true),
        (3, 2, true),
        (3, 3, false),
        (1, 1, false),
        (2, 1, false),
    ] {
        assert_eq!(
            Desc::from_raw(word).is_table(level),
            table,
            "{word} at level {level}"
        );
    }
}

#[test]
fn protections_read_well() {
    assert_eq!(format!("{:?}", Prot::RW | Prot::SW1), "RW- SW1");
    assert_eq!(
        format!("{:?}", Prot::R | Prot::DEVICE | Prot::SW0 | Prot::SW3),
        "R-- device SW0 SW3"
    );
}

fn any_prot() -> impl Strategy<Value = Prot> {
    (0..8_u64, 0..16_u64).prop_map(|(permissions, sw)| Prot(permissions | sw << 55))
}

proptest! {
    #[test]
    fn protections_survive_the_round_trip(prot in any_prot(), page in 0..1_u64 << 36, level in 1..=3_u8) {
        let pa = Pa::new(page << Granule::K4.level_shift(level) & 0xffff_ffff_ffff);
        let desc = Desc::stage2_leaf(pa, level, prot).unwrap();
        prop_assert_eq!(desc.stage2_prot(), prot);
        prop_assert_eq!(desc.output_address(), pa);
        prop_assert_eq!(desc.raw() & 3, if level == 3 { 3 } else { 1 });
        if let Ok(desc) = Desc::hyp_leaf(pa, level, prot) {
            prop_assert_eq!(desc.hyp_prot(), prot);
            prop_assert_eq!(desc.output_address(), pa);
        }
    }

    #[test]
    fn addresses_survive_the_round_trip(address in any::<u64>()) {
        for (granule, bits) in [(Granule::K4, 48), (Granule::K16, 48), (Granule::K64, 52)] {
            let pa = Pa::new(address & ((1 << bits) - granule.level_size(3)));
            prop_assert_eq!(granule.output_address(granule.address_bits(pa)), pa);
        }
    }

    #[test]
    fn relaxing_only_adds(old in any_prot(), more in any_prot()) {
        let more = Prot(more.0 & 7);
        let desc = Desc::stage2_leaf(Pa::new(0x1000), 3, old).unwrap();
        prop_assert_eq!(desc.stage2_relaxed(more).stage2_prot(), old | more);
    }

    #[test]
    fn a_state_replaces_a_state_and_nothing_else(prot in any_prot(), bits in 0..4_usize) {
        let states =
            [PageState::Owned, PageState::SharedOwned, PageState::SharedBorrowed, PageState::Reserved];
        let marked = states[bits].mark(prot);
        prop_assert_eq!(PageState::of(marked), states[bits]);
        prop_assert_eq!(marked.0 >> 55 & 3, bits as u64);
        prop_assert_eq!(marked.0 & !(3 << 55), prot.0 & !(3 << 55));
    }

    #[test]
    fn only_software_bits_may_differ(word in any::<u64>()) {
        for bit in 0..64 {
            let other = Desc::from_raw(word ^ 1 << bit);
            prop_assert_eq!(Desc::from_raw(word).differs_only_in_sw(other), (55..=58).contains(&bit));
        }
    }
}
