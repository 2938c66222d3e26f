//! Host aborts: what is mapped, how much of it, what is refused, and two CPUs at once.

mod common;

use common::{DATA, DEVICE, Event as Did, FREE, HOST_BSS, MIB, Machine, Setup, host_page};
use hyp::abort::Outcome;
use hyp::addr::{PAGE_SIZE, Pa};
use hyp::errno::Errno;
use hyp::page_state::OwnerId;
use hyp::pgtable::Geometry;
use hyp::stats::Event;

/// One touch of memory nobody has touched: where, and the leaf that must be there afterwards.
struct Touch {
    name: &'static str,
    address: u64,
    leaf: (u64, u8),
}

const RWX_PAGE: u64 = 0x7ff;
const RWX_BLOCK: u64 = 0x7fd;
/// Read and write, execute never, and still the Normal memory type: the host's stage 1 decides.
const MMIO_PAGE: u64 = 0x0040_0000_0000_07ff;
const MMIO_BLOCK: u64 = 0x0040_0000_0000_07fd;

const TOUCHES: &[Touch] = &[
    Touch {
        name: "a byte in the middle of RAM",
        address: FREE + 0x12_3456,
        leaf: (FREE | RWX_BLOCK, 2),
    },
    Touch {
        name: "RAM that holds a whole GiB",
        address: 0x8000_1000,
        leaf: (0x8000_0000 | RWX_BLOCK, 1),
    },
    Touch {
        name: "the last byte of RAM",
        address: 0xffff_ffff,
        leaf: (0xc000_0000 | RWX_BLOCK, 1),
    },
    Touch {
        name: "2 MiB − 4 KiB: a bank's first page",
        address: 0x501f_f000,
        leaf: (0x501f_f000 | RWX_PAGE, 3),
    },
    Touch {
        name: "the bank's first whole block",
        address: 0x5020_0000,
        leaf: (0x5020_0000 | RWX_BLOCK, 2),
    },
    Touch {
        name: "the bank's ragged end",
        address: 0x5060_1000,
        leaf: (0x5060_1000 | RWX_PAGE, 3),
    },
    Touch {
        name: "the bank's last page",
        address: 0x5068_6fff,
        leaf: (0x5068_6000 | RWX_PAGE, 3),
    },
    Touch {
        name: "the first page after the bank",
        address: 0x5068_7000,
        leaf: (0x5068_7000 | MMIO_PAGE, 3),
    },
    Touch {
        name: "the last page before the bank",
        address: 0x501f_e000,
        leaf: (0x501f_e000 | MMIO_PAGE, 3),
    },
    Touch {
        name: "a bank of one page",
        address: 0x6000_3ff8,
        leaf: (0x6000_3000 | RWX_PAGE, 3),
    },
    Touch {
        name: "the page after that",
        address: 0x6000_4000,
        leaf: (0x6000_4000 | MMIO_PAGE, 3),
    },
    Touch {
        name: "MMIO below RAM",
        address: 0x0900_0018,
        leaf: (MMIO_BLOCK, 1),
    },
    Touch {
        name: "MMIO in a GiB that has RAM",
        address: 0x7000_0000,
        leaf: (0x7000_0000 | MMIO_BLOCK, 2),
    },
    Touch {
        name: "high MMIO",
        address: 0x80_0000_0000,
        leaf: (0x80_0000_0000 | MMIO_BLOCK, 1),
    },
    Touch {
        name: "the last byte of the IPA space",
        address: 0xff_ffff_ffff,
        leaf: (0xff_c000_0000 | MMIO_BLOCK, 1),
    },
    Touch {
        name: "a page beside hyp's text",
        address: 0x4020_f000,
        leaf: (0x4020_f000 | RWX_PAGE, 3),
    },
    Touch {
        name: "the page after the host's bss",
        address: HOST_BSS + 0x3000,
        leaf: (0x4100_5000 | RWX_PAGE, 3),
    },
];

#[test]
fn a_touch_maps_the_largest_block_that_is_all_of_one_kind() {
    for touch in TOUCHES {
        let machine = Machine::start();
        assert_eq!(
            machine.host(touch.address).0,
            0,
            "{}: not touched before",
            touch.name
        );
        assert_eq!(
            machine.touch(touch.address),
            Outcome::Resume,
            "{}",
            touch.name
        );
        assert_eq!(machine.host(touch.address), touch.leaf, "{}", touch.name);
        assert_eq!(
            machine.hyp.stats().get(Event::AbortMapped),
            1,
            "{}",
            touch.name
        );
        machine.check_host_tables();
    }
}

/// Touching everything maps RAM as RAM and the rest as not, and never takes a page from hyp.
#[test]
fn the_banks_can_be_touched_page_by_page() {
    let machine = Setup {
        host_pool: 96,
        ..Setup::default()
    }
    .start();
    let banks = [
        (0x4000_0000, 16 * MIB),
        (0x501f_e000, 0x48_a000),
        (0x6000_2000, 3 * PAGE_SIZE),
    ];
    for (base, size) in banks {
        for address in (base..base + size).step_by(PAGE_SIZE as usize) {
            let (before, _) = machine.host(address);
            let outcome = machine.touch(address);
            let (after, level) = machine.host(address);
            if before != 0 {
                assert_eq!(before, after, "{address:#x}");
                continue;
            }
            assert_eq!(outcome, Outcome::Resume);
            let size = 1_u64 << (12 + 9 * (3 - level));
            let block = common::range(address & !(size - 1), size);
            let is_memory = machine.hyp.addr_is_memory(Pa::new(address));
            assert!(
                block
                    .pages()
                    .all(|page| machine.hyp.addr_is_memory(page) == is_memory),
                "{block}"
            );
            assert_eq!(after & 1 << 54 == 0, is_memory, "{address:#x}");
        }
    }
    machine.check_host_tables();
}

/// A table that starts at level 0: an entry there covers 512 GiB, which no leaf can map.
#[test]
fn a_hole_at_level_0_is_filled_by_a_block_of_level_1() {
    let geometry = Geometry {
        ia_bits: 48,
        start_level: 0,
    };
    let machine = Setup {
        host_geometry: geometry,
        ..Setup::default()
    }
    .start();
    assert_eq!(machine.host(0x80_4000_0000), (0, 0));

    assert_eq!(machine.touch(0x80_4000_0000), Outcome::Resume);

    assert_eq!(
        machine.host(0x80_4000_0000),
        (0x80_4000_0000 | MMIO_BLOCK, 1)
    );
    assert_eq!(
        machine.host(0x80_0000_0000),
        (0, 1),
        "the rest of the 512 GiB is still a hole"
    );
    machine.check_host_tables();
}

/// Concatenated roots: 1024 entries at level 1, in two pages of which each counts its own.
#[test]
fn the_second_root_page_holds_the_upper_half() {
    let machine = Machine::start();
    let host = machine.hyp.host();
    let second = host.root().wrapping_add(PAGE_SIZE);
    assert!(host.root().get().is_multiple_of(2 * PAGE_SIZE));
    assert_eq!(
        [
            host.pool().refcount(host.root()),
            host.pool().refcount(second)
        ],
        [2, 1]
    );

    machine.touch(0x80_0000_0000);
    machine.touch(0xff_ffff_ffff);

    assert_eq!(machine.host_leaf(0x80_0000_0000).slot, second);
    assert_eq!(
        machine.host_leaf(0xff_ffff_ffff).slot,
        second.wrapping_add(511 * 8)
    );
    assert_eq!(
        [
            host.pool().refcount(host.root()),
            host.pool().refcount(second)
        ],
        [2, 3]
    );
}

#[test]
fn a_page_mapped_meanwhile_is_success_and_changes_nothing() {
    let machine = Machine::start();
    machine.touch_on(1, FREE);
    let before = machine.contents();
    assert_eq!(
        machine
            .hyp
            .host_stage2_idmap(machine.cpu(), Pa::new(FREE + 8)),
        Err(Errno::Again)
    );
    assert_eq!(machine.touch_on(2, FREE + 8), Outcome::Resume);
    assert_eq!(machine.contents(), before);
    assert_eq!(machine.hyp.stats().get(Event::AbortAlreadyMapped), 1);
}

/// Four CPUs touch the same pages at once: each page is mapped once, the others find it mapped.
#[test]
fn cpus_that_race_map_a_page_once() {
    const PAGES: u64 = 64;
    let machine = Machine::start();
    let mut mapped = 0;
    for bank in [0x501f_f000, 0x5060_0000] {
        std::thread::scope(|scope| {
            for cpu in 0..4 {
                let machine = &machine;
                scope.spawn(move || {
                    for index in 0..PAGES {
                        assert_eq!(
                            machine.touch_on(cpu, bank + index * PAGE_SIZE),
                            Outcome::Resume
                        );
                    }
                });
            }
        });
        // The first bank's first page is a page, what follows is one block.
        mapped += if bank == 0x501f_f000 { 2 } else { PAGES };
    }
    let stats = machine.hyp.stats();
    assert_eq!(stats.get(Event::AbortMapped), mapped);
    assert_eq!(stats.get(Event::AbortAlreadyMapped), 2 * 4 * PAGES - mapped);
    assert_eq!(machine.host(0x5060_0000), (host_page(0x5060_0000, 0), 3));
    machine.check_host_tables();
}

/// Two CPUs share the same page at once: it is shared once, and both are told so.
#[test]
fn cpus_that_race_share_a_page_once() {
    let machine = Machine::start();
    std::thread::scope(|scope| {
        for cpu in 0..4 {
            let machine = &machine;
            scope.spawn(move || {
                for pfn in FREE >> 12..(FREE >> 12) + 32 {
                    assert_eq!(
                        machine.hyp.pkvm_host_share_hyp(&machine.cpus[cpu], pfn),
                        Ok(())
                    );
                }
            });
        }
    });
    let stats = machine.hyp.stats();
    assert_eq!(
        [stats.get(Event::Share), stats.get(Event::ShareAgain)],
        [32, 96]
    );
}

/// A machine whose pool has `spare` pages left after starting.
fn dry(spare: u64) -> Machine {
    let ram = vec![(0x4000_0000, 256 * MIB), (0x8000_3000, PAGE_SIZE)];
    let setup = Setup {
        ram,
        ..Setup::default()
    };
    let free = setup.clone().start().hyp.host().pool().free_pages();
    Setup {
        host_pool: setup.host_pool - free + spare,
        ..setup
    }
    .start()
}

#[test]
fn a_dry_pool_takes_back_everything_that_is_not_ram_and_tries_once_more() {
    let machine = dry(2);
    assert_eq!(machine.hyp.host().pool().free_pages(), 2);
    // The page beside the small bank cannot be a block: it takes both free tables.
    machine.touch(0x8000_4000);
    assert_eq!(machine.host(0x8000_4000), (0x8000_4000 | MMIO_PAGE, 3));
    machine.touch(DEVICE);
    assert_eq!(machine.hyp.host().pool().free_pages(), 0);
    let bss = machine.host(HOST_BSS);
    machine.touch(FREE + 2 * MIB);

    assert_eq!(machine.share(FREE), 0, "needs one table");

    assert_eq!(machine.host(FREE), (host_page(FREE, 1), 3));
    assert_eq!(
        machine.host(0x8000_4000),
        (0, 1),
        "its two tables are free again"
    );
    assert_eq!(machine.host(DEVICE), (0, 1));
    assert_eq!(machine.host(DATA), (0x4, 3), "annotations stay");
    assert_eq!(machine.host(HOST_BSS), bss, "shares stay");
    assert_eq!(
        machine.host(FREE + 2 * MIB),
        ((FREE + 2 * MIB) | RWX_BLOCK, 2),
        "RAM stays"
    );
    assert_eq!(machine.hyp.stats().get(Event::PoolRetry), 1);
    machine.check_host_tables();

    assert_eq!(machine.touch(DEVICE), Outcome::Resume, "MMIO comes back");
    assert_eq!(machine.host(DEVICE), (MMIO_BLOCK, 1));
}

/// Giving a page away needs tables too.
#[test]
fn a_dry_pool_is_no_reason_not_to_set_an_owner() {
    let machine = dry(2);
    machine.touch(0x8000_4000);
    assert_eq!(machine.hyp.host().pool().free_pages(), 0);
    let host = machine.hyp.lock_host(machine.cpu());
    let result =
        machine
            .hyp
            .host_stage2_set_owner_locked(machine.cpu(), common::page(FREE), OwnerId::Hyp);
    drop(host);
    assert_eq!(result, Ok(()));
    assert_eq!(machine.host(FREE), (0x4, 3));
    assert_eq!(machine.host(0x8000_4000), (0, 1));
    assert_eq!(machine.hyp.stats().get(Event::PoolRetry), 1);
    machine.check_host_tables();
}

/// The retry is one: if the pool is still dry, that is the answer, and no table is left behind.
#[test]
fn a_pool_that_stays_dry_is_an_error_after_one_retry() {
    for spare in [0, 1] {
        let machine = dry(spare);
        let before = machine.contents();
        let _host = machine.hyp.lock_host(machine.cpu());
        let page = common::page(0x8000_3000);
        let result =
            machine
                .hyp
                .host_stage2_idmap_locked(machine.cpu(), page, hyp::desc::Prot::RWX);
        assert_eq!(
            result,
            Err(Errno::NoMem),
            "{spare} spare pages, two are needed"
        );
        assert_eq!(machine.hyp.stats().get(Event::PoolRetry), 1);
        assert_eq!(machine.contents(), before);
    }
}

#[test]
fn other_errors_are_not_retried() {
    let machine = Machine::start();
    machine.touch(DEVICE);
    let before = machine.contents();
    let _host = machine.hyp.lock_host(machine.cpu());
    let prot = hyp::desc::Prot::RWX | hyp::desc::Prot::DEVICE;
    let result = machine
        .hyp
        .host_stage2_idmap_locked(machine.cpu(), common::page(FREE), prot);
    assert_eq!(result, Err(Errno::Inval));
    assert_eq!(machine.hyp.stats().get(Event::PoolRetry), 0);
    assert_eq!(machine.contents(), before, "MMIO is still mapped");
}

/// Mapping a hole needs no TLB invalidation: hardware does not cache what is not valid.
#[test]
fn a_touch_invalidates_nothing() {
    let machine = Machine::start();
    let trace = machine.world.trace(|| {
        machine.touch(FREE);
    });
    let slot = machine.host_leaf(FREE).slot.get();
    assert_eq!(
        trace,
        [
            Did::Write {
                at: slot,
                old: 0,
                new: FREE | RWX_BLOCK
            },
            Did::Publish
        ]
    );
}
