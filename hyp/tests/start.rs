//! Descriptions of memory hyp does not start from, and what it says about them.

mod common;

use common::{GIB, HYP_OFFSET, MIB, Setup};
use hyp::addr::{PAGE_SIZE, Va};
use hyp::errno::Errno;
use hyp::init::{InitError, Section, SectionKind};

#[track_caller]
fn refused(setup: Setup, message: &str) {
    match setup.build() {
        Err(error) => assert_eq!(error.to_string(), message),
        Ok(_) => panic!("hyp starts, but should say: {message}"),
    }
}

#[test]
fn regions_must_be_sorted_and_apart() {
    let setup = |ram: &[(u64, u64)]| Setup {
        ram: ram.to_vec(),
        ..Setup::default()
    };
    refused(
        setup(&[(0x8000_0000, GIB), (0x4000_0000, GIB)]),
        "RAM region 0x40000000..0x80000000 is empty or starts before 0xc0000000, the end of the region before: sort and merge the list",
    );
    refused(
        setup(&[(0x4000_0000, GIB), (0x7fff_f000, GIB)]),
        "RAM region 0x7ffff000..0xbffff000 is empty or starts before 0x80000000, the end of the region before: sort and merge the list",
    );
    refused(
        setup(&[(0x4000_0000, 0)]),
        "RAM region 0x40000000..0x40000000 is empty or starts before 0x0, the end of the region before: sort and merge the list",
    );
    setup(&[(0x4000_0000, GIB), (0x8000_0000, GIB)])
        .build()
        .unwrap();
}

#[test]
fn ram_must_be_within_both_tables() {
    let setup = |end: u64| Setup {
        ram: vec![(0x4000_0000, 256 * MIB), (end - PAGE_SIZE, PAGE_SIZE)],
        ..Setup::default()
    };
    // EL2 has 39 bits, of which the offset takes the upper half.
    setup(0x40_0000_0000).build().unwrap();
    refused(
        setup(0x40_0000_1000),
        "RAM region 0x4000000000..0x4000001000 is beyond what the host's stage 2 or EL2's stage 1 can map: leave it out",
    );
    let mut narrow = setup(0x40_0000_0000);
    narrow.host_geometry.ia_bits = 37;
    refused(
        narrow,
        "RAM region 0x3ffffff000..0x4000000000 is beyond what the host's stage 2 or EL2's stage 1 can map: leave it out",
    );
}

#[test]
fn sections_must_be_ram_and_devices_must_not() {
    let setup = |section| Setup {
        sections: vec![section],
        ..Setup::default()
    };
    refused(
        setup((SectionKind::Data, 0x4fff_f000, 2 * PAGE_SIZE)),
        "section data at 0x4ffff000..0x50001000 is not inside one RAM region",
    );
    refused(
        setup((SectionKind::Device, 0x4fff_f000, 2 * PAGE_SIZE)),
        "device section 0x4ffff000..0x50001000 overlaps RAM",
    );
    refused(
        setup((SectionKind::OwnDevice, 0x6000_2000, 3 * PAGE_SIZE)),
        "own-device section 0x60002000..0x60005000 overlaps RAM",
    );
}

#[test]
fn pools_must_hold_the_roots_and_the_sections() {
    refused(
        Setup {
            host_pool: 2,
            ..Setup::default()
        },
        "host-pool at 0x40301000..0x40303000 cannot hold the root table: -ENOMEM (-12)",
    );
    let setup = Setup {
        hyp_pool: 2,
        ..Setup::default()
    };
    let machine = setup.build().unwrap();
    let error = machine.hyp.init(machine.cpu()).unwrap_err();
    assert!(
        matches!(
            error,
            InitError::Map {
                errno: Errno::NoMem,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        "section text at 0x40200000..0x40204000 cannot be mapped at EL2: -ENOMEM (-12)"
    );
    let setup = Setup {
        host_pool: 4,
        ..Setup::default()
    };
    let machine = setup.build().unwrap();
    machine.hyp.init(machine.cpu()).unwrap();
    let error = machine.hyp.finalise(machine.cpu()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "hyp's memory and devices cannot be taken from the host: -ENOMEM (-12)"
    );
    assert!(!machine.hyp.is_finalised());
}

/// What the host could reach it could write: a pool must be in a section that is taken from it.
#[test]
fn pools_must_be_sections_of_hyps_and_apart() {
    let gap = |gap| Setup {
        gap,
        ..Setup::default()
    };
    // The section has 256 pages: one before the pools, and 64 for each.
    gap(127).build().unwrap();
    for (gap_pages, pages) in [
        (128, "0x403c1000..0x40401000"),
        (-1, "0x40340000..0x40380000"),
        (-64, "0x40301000..0x40341000"),
    ] {
        refused(
            gap(gap_pages),
            &format!(
                "hyp-pool at {pages} is not inside one section `pools`, or overlaps the other pool: the host must not reach it"
            ),
        );
    }
    let mut elsewhere = Setup::default();
    for section in &mut elsewhere.sections {
        if section.0 == SectionKind::Pools {
            section.0 = SectionKind::HostBss;
        }
    }
    refused(
        elsewhere,
        "host-pool at 0x40301000..0x40341000 is not inside one section `pools`, or overlaps the other pool: the host must not reach it",
    );
}

/// Two sections that overlap would need one page mapped in two ways.
#[test]
fn sections_must_not_overlap() {
    let mut setup = Setup::default();
    setup
        .sections
        .push((SectionKind::Data, 0x4020_1000, PAGE_SIZE));
    let machine = setup.build().unwrap();
    let error = machine.hyp.init(machine.cpu()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "section data at 0x40201000..0x40202000 cannot be mapped at EL2: -EINVAL (-22)"
    );
}

/// A stack between guards: mapped once more elsewhere, as its section is, and of no meaning for ownership.
#[test]
fn private_mappings_are_made_while_starting_and_outside_the_fixed_range() {
    let machine = Setup::default().build().unwrap();
    machine.hyp.init(machine.cpu()).unwrap();
    let part = Section {
        kind: SectionKind::Stacks,
        range: common::page(0x4020_9000),
    };
    let map = |va| {
        machine
            .hyp
            .create_private_mapping(machine.cpu(), Va::new(va), part)
    };
    let inside = Err(InitError::Map {
        section: part,
        errno: Errno::Inval,
    });

    map(0x1000_1000).unwrap();
    for fixed in [HYP_OFFSET + 0x4000_0000, HYP_OFFSET + 0x4fff_f000] {
        assert_eq!(map(fixed), inside, "{fixed:#x}");
    }
    let leaf = |va| {
        machine
            .hyp
            .hyp()
            .get_leaf(machine.cpu(), Va::new(va))
            .unwrap()
            .desc
            .raw()
    };
    let stack = 0x0040_0000_4020_9743;
    assert_eq!(
        [0x1000_0000, 0x1000_1000, 0x1000_2000].map(leaf),
        [0, stack, 0],
        "guards stay holes"
    );

    machine.hyp.finalise(machine.cpu()).unwrap();
    assert_eq!(map(0x2000_0000), inside, "too late");
    assert_eq!(machine.host(0x4020_9000), (0x4, 3));
}
