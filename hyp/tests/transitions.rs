//! Page ownership, row by row: every transition, legal and illegal, with both sides' descriptors before and after.
//!
//! The words are those of the layout (profile A), written out: nothing here uses hyp's own encoder.

mod common;

use common::{
    DATA, DEVICE, FREE, GIB, HOST_BSS, HOST_RODATA, HYP_OFFSET, MIB, Machine, RODATA, Setup, TEXT,
};
use common::{el2_page, host_page, page, range};
use hyp::abort::Outcome;
use hyp::addr::{PAGE_SIZE, Pa, PageRange, Va};
use hyp::desc::Prot;
use hyp::errno::Errno;
use hyp::page_state::OwnerId;
use hyp::stats::Event;

const EPERM: i64 = -1;
const EINVAL: i64 = -22;
const SHARED_OWNED: u64 = 1;
const SHARED_BORROWED: u64 = 2;
const RESERVED: u64 = 3;
/// The host's entry for a page hyp owns.
const OWNED_BY_HYP: u64 = 0x4;

/// One line of the acceptance matrix of `__pkvm_host_share_hyp`.
struct Row {
    name: &'static str,
    prepare: fn(&Machine),
    pa: u64,
    /// The host's word and level before, `None` where the table does not reach.
    host: Option<(u64, u8)>,
    /// EL2's word before, `None` where the table does not reach.
    el2: Option<u64>,
    result: i64,
    /// Both words after a share that changes something; `None` if not a bit may change.
    after: Option<(u64, u64)>,
}

/// The page most rows are about.
const PAGE: u64 = FREE + 5 * PAGE_SIZE;
const SHARED: (u64, u64) = (
    host_page(PAGE, SHARED_OWNED),
    el2_page(PAGE, SHARED_BORROWED),
);

/// Gives the host page an entry of its own with `word`, and EL2's `el2`.
fn poke(machine: &Machine, word: u64, el2: u64) {
    assert_eq!(machine.share(PAGE), 0);
    machine.poke_host(PAGE, word);
    machine.poke_el2(PAGE, el2);
}

fn map_with(machine: &Machine, prot: Prot) {
    let _host = machine.hyp.lock_host(machine.cpu());
    machine
        .hyp
        .host_stage2_idmap_locked(machine.cpu(), page(PAGE), prot)
        .unwrap();
}

macro_rules! shared_but_el2_has {
    ($name:expr, $el2:expr) => {
        Row {
            name: concat!("shared, but EL2 has ", $name),
            prepare: |machine| poke(machine, host_page(PAGE, SHARED_OWNED), $el2),
            pa: PAGE,
            host: Some((host_page(PAGE, SHARED_OWNED), 3)),
            el2: Some($el2),
            result: EPERM,
            after: None,
        }
    };
}

macro_rules! not_memory {
    ($name:expr, $pa:expr, $host:expr, $el2:expr) => {
        Row {
            name: $name,
            prepare: |_| (),
            pa: $pa,
            host: $host,
            el2: $el2,
            result: EINVAL,
            after: None,
        }
    };
}

const ROWS: &[Row] = &[
    Row {
        name: "never touched",
        prepare: |_| (),
        pa: PAGE,
        host: Some((0, 2)),
        el2: Some(0),
        result: 0,
        after: Some(SHARED),
    },
    Row {
        name: "owned, a page",
        prepare: |machine| map_with(machine, Prot::RWX),
        pa: PAGE,
        host: Some((host_page(PAGE, 0), 3)),
        el2: Some(0),
        result: 0,
        after: Some(SHARED),
    },
    Row {
        name: "owned, inside a block",
        prepare: |machine| assert_eq!(machine.touch(FREE), Outcome::Resume),
        pa: PAGE,
        host: Some((FREE | 0x7fd, 2)),
        el2: Some(0),
        result: 0,
        after: Some(SHARED),
    },
    Row {
        name: "shared already",
        prepare: |machine| assert_eq!(machine.share(PAGE), 0),
        pa: PAGE,
        host: Some((SHARED.0, 3)),
        el2: Some(SHARED.1),
        result: 0,
        after: None,
    },
    shared_but_el2_has!("nothing", 0),
    shared_but_el2_has!("it owned", el2_page(PAGE, 0)),
    shared_but_el2_has!("it shared and owned", el2_page(PAGE, SHARED_OWNED)),
    shared_but_el2_has!("the reserved state", el2_page(PAGE, RESERVED)),
    shared_but_el2_has!(
        "it borrowed but read-only",
        el2_page(PAGE, SHARED_BORROWED) | 1 << 7
    ),
    shared_but_el2_has!(
        "it borrowed but executable",
        el2_page(PAGE, SHARED_BORROWED) & !(1 << 54)
    ),
    shared_but_el2_has!("another page", el2_page(PAGE + PAGE_SIZE, SHARED_BORROWED)),
    Row {
        name: "borrowed: the host's bss",
        prepare: |_| (),
        pa: HOST_BSS,
        host: Some((host_page(HOST_BSS, SHARED_BORROWED), 3)),
        el2: Some(HOST_BSS | 0x00c0_0000_0000_07c3),
        result: EPERM,
        after: None,
    },
    Row {
        name: "borrowed: the host's rodata",
        prepare: |_| (),
        pa: HOST_RODATA,
        host: Some((host_page(HOST_RODATA, SHARED_BORROWED), 3)),
        el2: Some(0x00c0_0000_4100_07c3),
        result: EPERM,
        after: None,
    },
    Row {
        name: "hyp's: data",
        prepare: |_| (),
        pa: DATA,
        host: Some((OWNED_BY_HYP, 3)),
        el2: Some(el2_page(DATA, 0)),
        result: EPERM,
        after: None,
    },
    Row {
        name: "hyp's: text",
        prepare: |_| (),
        pa: TEXT,
        host: Some((OWNED_BY_HYP, 3)),
        el2: Some(TEXT | 0x7c3),
        result: EPERM,
        after: None,
    },
    Row {
        name: "the host has it read and execute",
        prepare: |machine| map_with(machine, Prot::RX),
        pa: PAGE,
        host: Some((PAGE | 0x77f, 3)),
        el2: Some(0),
        result: EPERM,
        after: None,
    },
    Row {
        name: "the host has it read-only",
        prepare: |machine| map_with(machine, Prot::R),
        pa: PAGE,
        host: Some((PAGE | 1 << 54 | 0x77f, 3)),
        el2: Some(0),
        result: EPERM,
        after: None,
    },
    Row {
        name: "the host has it read and write",
        prepare: |machine| map_with(machine, Prot::RW),
        pa: PAGE,
        host: Some((PAGE | 1 << 54 | 0x7ff, 3)),
        el2: Some(0),
        result: EPERM,
        after: None,
    },
    Row {
        name: "the reserved state",
        prepare: |machine| poke(machine, host_page(PAGE, RESERVED), 0),
        pa: PAGE,
        host: Some((host_page(PAGE, RESERVED), 3)),
        el2: Some(0),
        result: EPERM,
        after: None,
    },
    Row {
        name: "the reserved state, EL2 has it borrowed",
        prepare: |machine| {
            poke(
                machine,
                host_page(PAGE, RESERVED),
                el2_page(PAGE, SHARED_BORROWED),
            );
        },
        pa: PAGE,
        host: Some((host_page(PAGE, RESERVED), 3)),
        el2: Some(el2_page(PAGE, SHARED_BORROWED)),
        result: EPERM,
        after: None,
    },
    not_memory!("MMIO never touched", 0x0a00_0000, Some((0, 1)), Some(0)),
    not_memory!(
        "MMIO hyp drives",
        DEVICE,
        Some((0, 1)),
        Some(DEVICE | 0x0040_0000_0000_0747)
    ),
    not_memory!("below RAM", 0x3fff_f000, Some((0, 1)), Some(0)),
    not_memory!("above a bank", 0x5000_0000, Some((0, 2)), Some(0)),
    not_memory!("page 0", 0, Some((0, 1)), Some(0)),
    not_memory!("above all RAM", 0xff_ffff_f000, Some((0, 1)), None),
    not_memory!("above the IPA space", 0x100_0000_0000, None, None),
    not_memory!("the last page of all", 0xffff_ffff_ffff_f000, None, None),
];

#[test]
fn share_follows_the_acceptance_matrix() {
    for row in ROWS {
        let machine = Machine::start();
        (row.prepare)(&machine);
        let host = machine
            .hyp
            .host()
            .get_leaf(machine.cpu(), hyp::addr::Ipa::new(row.pa))
            .ok();
        let el2 = machine
            .hyp
            .hyp()
            .get_leaf(machine.cpu(), Va::new(row.pa.wrapping_add(HYP_OFFSET)))
            .ok();
        assert_eq!(
            host.map(|leaf| (leaf.desc.raw(), leaf.level)),
            row.host,
            "{}: host before",
            row.name
        );
        if row.el2.is_some() {
            assert_eq!(
                el2.map(|leaf| leaf.desc.raw()),
                row.el2,
                "{}: EL2 before",
                row.name
            );
        }
        let before = machine.contents();

        assert_eq!(machine.share(row.pa), row.result, "{}: result", row.name);

        match row.after {
            Some((host, el2)) => {
                assert_eq!(machine.host(row.pa), (host, 3), "{}: host after", row.name);
                assert_eq!(machine.el2(row.pa), (el2, 3), "{}: EL2 after", row.name);
            }
            None => assert_eq!(
                machine.contents(),
                before,
                "{}: nothing may change",
                row.name
            ),
        }
        for (name, lock) in machine.hyp.locks() {
            assert!(!lock.is_locked(), "{}: {name} is still held", row.name);
        }
        machine.check_host_tables();
    }
}

/// A frame number whose address does not fit 64 bits is no memory, even where the address wraps to RAM.
#[test]
fn share_refuses_frame_numbers_that_overflow() {
    let machine = Machine::start();
    let before = machine.contents();
    for pfn in [(1 << 52) | PAGE >> 12, 1 << 52, u64::MAX] {
        assert_eq!(
            machine.hvc(0xc600_0010, pfn),
            (0, EINVAL as u64),
            "frame {pfn:#x}"
        );
    }
    assert_eq!(machine.contents(), before);
}

/// Sharing one page of a block leaves the others of the block to be mapped again, unmarked.
#[test]
fn share_splits_a_block_and_marks_one_page_only() {
    let machine = Machine::start();
    machine.touch(FREE);
    assert_eq!(machine.host(FREE), (0x0000_0000_4800_07fd, 2));

    assert_eq!(machine.share(FREE), 0);

    assert_eq!(machine.host(FREE), (0x0080_0000_4800_07ff, 3));
    assert_eq!(machine.el2(FREE), (0x0140_0000_4800_0743, 3));
    for neighbour in range(FREE + PAGE_SIZE, 2 * MIB - PAGE_SIZE).pages() {
        assert_eq!(machine.host(neighbour.get()), (0, 3));
        assert_eq!(machine.el2(neighbour.get()), (0, 3));
    }
    assert_eq!(machine.touch(FREE + PAGE_SIZE), Outcome::Resume);
    assert_eq!(
        machine.host(FREE + PAGE_SIZE),
        (host_page(FREE + PAGE_SIZE, 0), 3)
    );
    assert_eq!(machine.host(FREE), (0x0080_0000_4800_07ff, 3));
}

#[test]
fn share_is_counted_by_how_it_ended() {
    let machine = Machine::start();
    for pa in [PAGE, PAGE, DATA, DEVICE] {
        machine.share(pa);
    }
    let stats = machine.hyp.stats();
    let counts =
        [Event::Share, Event::ShareAgain, Event::ShareRefused].map(|event| stats.get(event));
    assert_eq!(counts, [1, 1, 2]);
}

/// The range is what is mapped or given away: no page before it, none after it, nothing for no pages.
#[test]
fn ranges_touch_their_pages_only() {
    let machine = Machine::start();
    let cpu = machine.cpu();
    let neighbours = || {
        [
            machine.host(PAGE - PAGE_SIZE),
            machine.host(PAGE + PAGE_SIZE),
        ]
    };
    machine.share(PAGE - PAGE_SIZE);
    machine.share(PAGE + PAGE_SIZE);
    let before = neighbours();
    let _host = machine.hyp.lock_host(cpu);

    let nothing = range(PAGE, 0);
    let contents = machine.contents();
    machine
        .hyp
        .host_stage2_idmap_locked(cpu, nothing, Prot::RWX)
        .unwrap();
    machine
        .hyp
        .host_stage2_set_owner_locked(cpu, nothing, OwnerId::Hyp)
        .unwrap();
    assert_eq!(machine.contents(), contents);

    machine
        .hyp
        .host_stage2_idmap_locked(cpu, page(PAGE), Prot::RWX)
        .unwrap();
    assert_eq!(
        (machine.host(PAGE), neighbours()),
        ((host_page(PAGE, 0), 3), before)
    );
    machine
        .hyp
        .host_stage2_set_owner_locked(cpu, page(PAGE), OwnerId::Hyp)
        .unwrap();
    assert_eq!(
        (machine.host(PAGE), neighbours()),
        ((OWNED_BY_HYP, 3), before)
    );
    machine
        .hyp
        .host_stage2_set_owner_locked(cpu, page(PAGE), OwnerId::Host)
        .unwrap();
    assert_eq!((machine.host(PAGE), neighbours()), ((0, 3), before));
}

/// Giving away 2 MiB that were one block makes 512 annotations, never one for a block.
#[test]
fn set_owner_annotates_page_by_page() {
    let machine = Machine::start();
    machine.touch(FREE);
    let _host = machine.hyp.lock_host(machine.cpu());
    let two_mib = range(FREE, 2 * MIB);

    machine
        .hyp
        .host_stage2_set_owner_locked(machine.cpu(), two_mib, OwnerId::Hyp)
        .unwrap();

    for pa in two_mib.pages() {
        assert_eq!(machine.host(pa.get()), (OWNED_BY_HYP, 3));
    }
    assert_eq!(machine.host(FREE - PAGE_SIZE), (0, 2));
    assert_eq!(machine.host(FREE + 2 * MIB), (0, 2));
}

#[test]
fn only_default_protections_are_mapped_in_blocks() {
    let machine = Machine::start();
    let _host = machine.hyp.lock_host(machine.cpu());
    let ram = range(FREE, 2 * MIB);
    let mmio = range(0x1000_0000, 2 * MIB);
    let level_after = |range: PageRange<Pa>, prot| {
        machine
            .hyp
            .host_stage2_idmap_locked(machine.cpu(), range, prot)
            .unwrap();
        machine.host(range.base().get()).1
    };
    assert_eq!(level_after(ram, Prot::RWX), 2);
    assert_eq!(level_after(ram, Prot::RX), 3);
    assert_eq!(level_after(ram, Prot::RW), 3);
    assert_eq!(level_after(ram, Prot::RWX | Prot::SW0), 3);
    assert_eq!(level_after(mmio, Prot::RW), 2);
    assert_eq!(level_after(mmio, Prot::R), 3);
    assert_eq!(level_after(mmio, Prot::RWX), 3);
}

#[test]
fn addr_is_memory_knows_where_ram_begins_and_ends() {
    let cases = [
        (0, false),
        (0x0900_0000, false),
        (0x3fff_ffff, false),
        (0x4000_0000, true),
        (0x4fff_ffff, true),
        (0x5000_0000, false),
        (0x501f_efff, false),
        (0x501f_f000, true),
        (0x5068_6fff, true),
        (0x5068_7000, false),
        (0x6000_2fff, false),
        (0x6000_3000, true),
        (0x6000_3fff, true),
        (0x6000_4000, false),
        (0x8000_0000, true),
        (0xffff_ffff, true),
        (4 * GIB, false),
        (u64::MAX, false),
    ];
    let machine = Machine::start();
    for (pa, expected) in cases {
        assert_eq!(machine.hyp.addr_is_memory(Pa::new(pa)), expected, "{pa:#x}");
    }
    // One bank only.
    let machine = Setup {
        ram: vec![(0x4000_0000, 256 * MIB)],
        ..Setup::default()
    }
    .start();
    for (pa, expected) in [
        (0x3fff_ffff, false),
        (0x4000_0000, true),
        (0x4fff_ffff, true),
        (0x8000_0000, false),
    ] {
        assert_eq!(machine.hyp.addr_is_memory(Pa::new(pa)), expected, "{pa:#x}");
    }
}

/// EL2's view of hyp's constants and code is not writable; a second mapping of them must be the same.
#[test]
fn el2_mappings_cannot_change_but_for_software_bits() {
    let machine = Machine::start();
    let before = machine.contents();
    let create = |pa, prot| {
        machine
            .hyp
            .pkvm_create_mappings(machine.cpu(), page(pa), prot)
    };
    assert_eq!(create(RODATA, Prot::RW), Err(Errno::Inval));
    assert_eq!(create(TEXT, Prot::R), Err(Errno::Inval));
    assert_eq!(create(RODATA, Prot::R), Ok(()));
    assert_eq!(machine.contents(), before);
    assert_eq!(create(FREE, Prot::RW | Prot::X), Err(Errno::Inval), "W^X");
}

/// A mapping at EL2 is made for every page of the range at PA − offset, and only there.
#[test]
fn create_mappings_keeps_the_fixed_offset() {
    let machine = Machine::start();
    let range = PageRange::covering(Pa::new(FREE + 0x123), PAGE_SIZE).unwrap();
    machine
        .hyp
        .pkvm_create_mappings(machine.cpu(), range, Prot::RW)
        .unwrap();
    assert_eq!(machine.el2(FREE - PAGE_SIZE).0, 0);
    assert_eq!(machine.el2(FREE), (el2_page(FREE, 0), 3));
    assert_eq!(
        machine.el2(FREE + PAGE_SIZE),
        (el2_page(FREE + PAGE_SIZE, 0), 3)
    );
    assert_eq!(machine.el2(FREE + 2 * PAGE_SIZE).0, 0);
}

/// Hypercalls other than the one there is, number 20 above all, change nothing but x0.
#[test]
fn unknown_hypercalls_change_nothing() {
    let machine = Machine::start();
    let before = machine.contents();
    let ids = (0..64).filter(|&id| id != 16).map(|id| 0xc600_0000 | id);
    let others = [
        0,
        16,
        0x8600_0010,
        0x1_c600_0010,
        0xc601_0010,
        0x8400_0000,
        u64::MAX,
    ];
    for (x0, count) in ids.chain(others).zip(1..) {
        assert_eq!(
            machine.hvc(x0, PAGE >> 12),
            (u64::MAX, PAGE >> 12),
            "x0 = {x0:#x}"
        );
        assert_eq!(machine.hyp.stats().get(Event::UnknownHypercall), count);
    }
    assert_eq!(machine.contents(), before);
}
