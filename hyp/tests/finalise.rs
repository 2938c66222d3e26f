//! Who owns what once hyp has started, from both sides' view.

mod common;

use common::{DATA, DEVICE, FREE, HOST_BSS, HYP_OFFSET, MIB, Setup, TEXT, el2_page, host_page};
use hyp::addr::{PAGE_SIZE, Pa, Va};
use hyp::cpu::TableMemory;
use hyp::errno::Errno;
use hyp::init::SectionKind;

const SHARED_OWNED: u64 = 1;
const SHARED_BORROWED: u64 = 2;
const RESERVED: u64 = 3;
/// The host's entry for a page hyp owns.
const OWNED_BY_HYP: u64 = 0x4;

/// Every page of every kind of section, after starting: what EL2 has, and what the host has.
#[test]
fn finalise_gives_every_page_of_hyp_its_owner() {
    let machine = Setup::with_own_devices().start();
    let mut annotated = 0;
    let mut lent = 0;
    for section in machine.hyp.sections() {
        let rw = 0x0040_0000_0000_0743;
        let (el2, host) = match section.kind {
            SectionKind::Text => (0x7c3, OWNED_BY_HYP),
            SectionKind::Rodata => (0x0040_0000_0000_07c3, OWNED_BY_HYP),
            SectionKind::Data | SectionKind::Bss | SectionKind::Stacks | SectionKind::Pools => {
                (rw, OWNED_BY_HYP)
            }
            SectionKind::HostRodata | SectionKind::HostBss => {
                (0x00c0_0000_0000_07c3, 0x0100_0000_0000_07ff)
            }
            SectionKind::Device => (0x0040_0000_0000_0747, 0),
            SectionKind::OwnDevice => (0x0040_0000_0000_0747, OWNED_BY_HYP),
        };
        for pa in section.range.pages().map(Pa::get) {
            assert_eq!(
                machine.el2(pa),
                (pa | el2, 3),
                "EL2's view of {} page {pa:#x}",
                section.kind.name()
            );
            let host = if host == 0x0100_0000_0000_07ff {
                pa | host
            } else {
                host
            };
            assert_eq!(
                machine.host(pa).0,
                host,
                "the host's view of {} page {pa:#x}",
                section.kind.name()
            );
            annotated += u32::from(host == OWNED_BY_HYP);
            lent += u32::from(host & 1 << 56 != 0);
        }
    }
    assert_eq!((annotated, lent), (4 + 2 + 2 + 1 + 4 + 256 + 2, 2 + 3));
    machine.check_host_tables();
    let around = [TEXT - PAGE_SIZE, 0x4020_d000, HOST_BSS + 3 * PAGE_SIZE];
    assert_eq!(
        around.map(|pa| machine.host(pa).0),
        [0; 3],
        "what is not hyp's is not touched"
    );
}

/// The other two states of a page at EL2, and those that cannot be.
#[test]
fn finalise_mirrors_states_and_refuses_what_cannot_be() {
    let new = || {
        let machine = Setup::default().build().unwrap();
        machine.hyp.init(machine.cpu()).unwrap();
        machine
    };
    let machine = new();
    machine.poke_el2(DATA, el2_page(DATA, SHARED_BORROWED));
    machine.hyp.finalise(machine.cpu()).unwrap();
    assert_eq!(machine.host(DATA), (host_page(DATA, SHARED_OWNED), 3));

    let illegal = [
        ("the reserved state", el2_page(DATA, RESERVED)),
        ("a page that is not RAM", el2_page(DEVICE, 0)),
    ];
    for (name, word) in illegal {
        let machine = new();
        machine.poke_el2(DATA, word);
        assert_eq!(
            machine.hyp.finalize_host_mappings(machine.cpu()),
            Err(Errno::Inval),
            "{name}"
        );
        assert!(!machine.hyp.is_finalised());
    }

    // A 2 MiB block at EL2, in RAM that has nothing else.
    let machine = new();
    let slot = machine
        .hyp
        .hyp()
        .get_leaf(machine.cpu(), Va::new(FREE + HYP_OFFSET))
        .unwrap();
    assert_eq!(slot.level, 2);
    machine.cpu().write(slot.slot, FREE | 0x0040_0000_0000_0741);
    assert_eq!(
        machine.hyp.finalize_host_mappings(machine.cpu()),
        Err(Errno::Inval)
    );
}

/// What EL2 maps outside RAM's fixed-offset ranges says nothing about the host: devices, and aliases of RAM.
#[test]
fn finalise_looks_at_fixed_offset_ranges_of_ram_only() {
    let setup = Setup {
        ram: vec![(0x4000_0000, 256 * MIB)],
        ..Setup::default()
    };
    let machine = setup.build().unwrap();
    machine.hyp.init(machine.cpu()).unwrap();
    // An alias of free RAM beside the device's mapping, below the range of RAM.
    machine.poke_el2(DEVICE + PAGE_SIZE, el2_page(FREE, 0));

    machine.hyp.finalise(machine.cpu()).unwrap();

    assert_eq!(machine.host(FREE), (0, 2));
    assert_eq!(machine.host(DEVICE), (0, 1));
}
