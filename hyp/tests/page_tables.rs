//! The page tables by themselves: reading, both stages' writing, and what reaches the TLBs in which order.

mod common;

use common::{Event, MIB, TestCpu, World, host_page, range, records};
use hyp::addr::{InputAddress, Ipa, PAGE_SIZE, Pa, PageRange, Va};
use hyp::cpu::TableMemory;
use hyp::desc::{Desc, Prot};
use hyp::errno::Errno;
use hyp::page_state::OwnerId;
use hyp::pgtable::{Geometry, Mm, PageTable};
use hyp::pool::Pool;

const POOL: u64 = 0x4000_1000;
const GIB_1: u64 = 0x8000_0000;

/// A pool of `pages`, and a CPU that sees it.
fn pool(pages: u64) -> (TestCpu, &'static Pool<'static>) {
    let memory = range(POOL, pages * PAGE_SIZE);
    let cpu = TestCpu {
        world: World::new(vec![memory]),
        id: 0,
    };
    (
        cpu,
        Box::leak(Box::new(Pool::new(memory, records(pages)).unwrap())),
    )
}

struct Table<A> {
    cpu: TestCpu,
    pool: &'static Pool<'static>,
    table: PageTable<A>,
}

impl<A: InputAddress> Table<A> {
    fn new(geometry: Geometry, pages: u64) -> Self {
        let (cpu, pool) = pool(pages);
        let table = PageTable::new(Mm { cpu: &cpu, pool }, geometry).unwrap();
        Self { cpu, pool, table }
    }

    fn mm(&self) -> Mm<'_> {
        Mm {
            cpu: &self.cpu,
            pool: self.pool,
        }
    }

    fn get(&self, address: u64) -> (u64, u8) {
        let leaf = self
            .table
            .get_leaf(&self.cpu, A::from_u64(address))
            .unwrap();
        assert_eq!(leaf.desc.raw(), self.cpu.read(leaf.slot));
        (leaf.desc.raw(), leaf.level)
    }
}

fn stage2() -> Table<Ipa> {
    Table::new(Geometry::HOST_STAGE2, 16)
}

fn stage1() -> Table<Va> {
    Table::new(Geometry::HYP_STAGE1, 16)
}

fn ipas(base: u64, size: u64) -> PageRange<Ipa> {
    range(base, size).identity()
}

impl Table<Ipa> {
    fn map(&self, base: u64, size: u64, prot: Prot) {
        self.table
            .map(self.mm(), ipas(base, size), Pa::new(base), prot, false)
            .unwrap();
    }
}

#[test]
fn get_leaf_finds_pages_blocks_and_holes_of_every_level() {
    let t: Table<Ipa> = Table::new(
        Geometry {
            ia_bits: 48,
            start_level: 0,
        },
        16,
    );
    t.map(GIB_1, 1 << 30, Prot::RWX);
    t.map(0x4020_0000, 2 * MIB, Prot::RWX);
    t.map(0x4040_0000, PAGE_SIZE, Prot::RWX);
    let cases = [
        ("page", 0x4040_0000, (0x4040_07ff, 3)),
        ("offset in a page", 0x4040_0fff, (0x4040_07ff, 3)),
        ("hole at level 3", 0x4040_1000, (0, 3)),
        ("2 MiB block", 0x4020_0000, (0x4020_07fd, 2)),
        ("last byte of the block", 0x403f_ffff, (0x4020_07fd, 2)),
        ("hole at level 2", 0x4000_0000, (0, 2)),
        ("1 GiB block", 0xbfff_ffff, (0x8000_07fd, 1)),
        ("hole at level 1", 0, (0, 1)),
        ("hole at level 0", 0x80_0000_0000, (0, 0)),
        ("last byte", 0xffff_ffff_ffff, (0, 0)),
    ];
    for (name, address, expected) in cases {
        assert_eq!(t.get(address), expected, "{name}");
    }
    for beyond in [1 << 48, u64::MAX] {
        assert_eq!(
            t.table.get_leaf(&t.cpu, Ipa::new(beyond)),
            Err(Errno::Range)
        );
    }
}

#[test]
fn for_each_leaf_visits_each_leaf_once() {
    let t = stage2();
    t.map(0x4020_0000, 2 * MIB, Prot::RWX);
    t.map(0x4040_0000, PAGE_SIZE, Prot::RWX);
    let mut seen = Vec::new();
    let range = ipas(0x4030_0000, 0x10_2000);
    t.table
        .for_each_leaf(&t.cpu, range, |ipa, leaf| {
            seen.push((ipa.get(), leaf.desc.raw(), leaf.level));
            Ok(())
        })
        .unwrap();
    assert_eq!(
        seen,
        [
            (0x4020_0000, 0x4020_07fd, 2),
            (0x4040_0000, 0x4040_07ff, 3),
            (0x4040_1000, 0, 3)
        ]
    );
    let beyond = ipas(1 << 40, PAGE_SIZE);
    assert_eq!(
        t.table.for_each_leaf(&t.cpu, beyond, |_, _| Ok(())),
        Err(Errno::Range)
    );
}

#[test]
fn roots_are_concatenated_as_the_geometry_asks() {
    let cases = [
        ((40, 1), Some(2)),
        ((39, 1), Some(1)),
        ((30, 1), Some(1)),
        ((43, 1), Some(16)),
        ((44, 1), None),
        ((29, 1), None),
        ((48, 0), Some(1)),
        ((34, 2), Some(16)),
        ((25, 3), Some(16)),
        ((48, 4), None),
        ((52, 0), None),
    ];
    for ((ia_bits, start_level), pages) in cases {
        let geometry = Geometry {
            ia_bits,
            start_level,
        };
        assert_eq!(geometry.root_pages(), pages, "{geometry:?}");
        let (cpu, pool) = pool(32);
        let table = PageTable::<Ipa>::new(Mm { cpu: &cpu, pool }, geometry);
        match pages {
            None => assert_eq!(table.err(), Some(Errno::Inval), "{geometry:?}"),
            Some(pages) => {
                let table = table.unwrap();
                assert!(
                    table.root().get().is_multiple_of(pages * PAGE_SIZE),
                    "{geometry:?}"
                );
                assert_eq!(pool.free_pages(), 32 - pages, "{geometry:?}");
            }
        }
    }
}

#[test]
fn a_pool_has_one_record_a_page() {
    let memory = range(POOL, 4 * PAGE_SIZE);
    assert!(Pool::new(memory, records(3)).is_none());
    assert!(Pool::new(memory, records(5)).is_none());
    let pool = Pool::new(memory, records(4)).unwrap();
    assert_eq!(
        (pool.base(), pool.pages(), pool.free_pages()),
        (Pa::new(POOL), 4, 4)
    );
    assert_eq!(size_of::<hyp::pool::PageRecord>(), 2);
}

/// A table page that is used again holds nothing of what it held before.
#[test]
fn table_pages_are_zeroed_before_they_are_linked() {
    let t: Table<Ipa> = Table::new(Geometry::HOST_STAGE2, 5);
    t.table
        .map(
            t.mm(),
            ipas(0x4000_0000, 2 * MIB),
            Pa::new(0x4000_0000),
            Prot::RWX,
            true,
        )
        .unwrap();
    // The 1 GiB block frees both tables without looking at what is in them.
    t.map(0x4000_0000, 1 << 30, Prot::RWX);
    t.map(GIB_1, PAGE_SIZE, Prot::RWX);
    for offset in (PAGE_SIZE..2 * MIB).step_by(PAGE_SIZE as usize) {
        assert_eq!(t.get(GIB_1 + offset), (0, 3));
    }
}

#[test]
fn enough_pages_are_enough() {
    for (base, size) in [
        (0x4000_0000, 64 * MIB),
        (0x3fff_f000, 2 * PAGE_SIZE),
        (0x401f_f000, 4 * MIB + PAGE_SIZE),
    ] {
        let geometry = Geometry::HOST_STAGE2;
        let needed = geometry.pages_needed(&[range(base, size)]);
        // One more, because the pool does not start at an address a concatenated root may have.
        let t: Table<Ipa> = Table::new(geometry, needed + 1);
        t.table
            .map(t.mm(), ipas(base, size), Pa::new(base), Prot::RWX, true)
            .unwrap();
        assert_eq!(t.pool.free_pages(), 1, "{size:#x} bytes at {base:#x}");
    }
}

/// Stage 1: the same mapping again, other software bits, anything else.
#[test]
fn hyp_mappings_may_be_made_again_to_change_software_bits() {
    let t = stage1();
    let va = PageRange::new(Va::new(0x40_4800_0000), PAGE_SIZE).unwrap();
    let map = |prot| t.table.map(t.mm(), va, Pa::new(0x4800_0000), prot);
    map(Prot::RW).unwrap();
    let owned = 0x0040_0000_4800_0743;
    assert_eq!(t.get(va.base().get()), (owned, 3));
    let at = t.table.get_leaf(&t.cpu, va.base()).unwrap().slot.get();

    let again = t.cpu.world.trace(|| map(Prot::RW).unwrap());
    assert_eq!(again, [Event::Publish], "an equal word is not written");

    let marked = t.cpu.world.trace(|| map(Prot::RW | Prot::SW1).unwrap());
    let borrowed = 0x0140_0000_4800_0743;
    assert_eq!(
        marked,
        [
            Event::Write {
                at,
                old: owned,
                new: borrowed
            },
            Event::Publish
        ],
        "one store, no break-before-make, no TLB invalidation"
    );

    for prot in [
        Prot::R,
        Prot::RX,
        Prot::R | Prot::SW1,
        Prot::RW | Prot::DEVICE,
    ] {
        let refused = t
            .cpu
            .world
            .trace(|| assert_eq!(map(prot), Err(Errno::Inval), "{prot:?}"));
        assert_eq!(refused, [], "{prot:?}");
    }
    assert_eq!(
        t.table.map(t.mm(), va, Pa::new(0x4800_1000), Prot::RW),
        Err(Errno::Inval),
        "another page"
    );
    assert_eq!(t.get(va.base().get()), (borrowed, 3));
}

#[test]
fn hyp_mappings_are_pages_and_stay_inside_the_space() {
    let t = stage1();
    let two_mib = PageRange::new(Va::new(0x40_4800_0000), 2 * MIB).unwrap();
    t.table
        .map(t.mm(), two_mib, Pa::new(0x4800_0000), Prot::RX)
        .unwrap();
    assert_eq!(t.get(0x40_481f_f000), (0x481f_f7c3, 3));
    let beyond = PageRange::new(Va::new((1 << 39) - PAGE_SIZE), 2 * PAGE_SIZE).unwrap();
    let trace = t.cpu.world.trace(|| {
        assert_eq!(
            t.table.map(t.mm(), beyond, Pa::new(0), Prot::RW),
            Err(Errno::Range)
        );
    });
    assert_eq!(trace, []);
}

#[test]
fn hyp_mappings_do_not_replace_a_block() {
    let t = stage1();
    let slot = t.table.get_leaf(&t.cpu, Va::new(0)).unwrap().slot;
    t.cpu.write(slot, 0x0040_0000_8000_0741);
    let page = PageRange::new(Va::new(0x1000), PAGE_SIZE).unwrap();
    assert_eq!(
        t.table.map(t.mm(), page, Pa::new(0x8000_1000), Prot::RW),
        Err(Errno::Inval)
    );
    assert_eq!(t.get(0x1000), (0x0040_0000_8000_0741, 1));
}

#[test]
fn a_dry_pool_fails_a_hyp_mapping() {
    let t: Table<Va> = Table::new(Geometry::HYP_STAGE1, 2);
    let page = PageRange::new(Va::new(0x1000), PAGE_SIZE).unwrap();
    assert_eq!(
        t.table.map(t.mm(), page, Pa::new(0x1000), Prot::RW),
        Err(Errno::NoMem)
    );
    assert_eq!(t.get(0x1000).0, 0);
}

/// A valid stage-2 entry is never overwritten by another: it is broken, forgotten, then made.
#[test]
fn stage_2_breaks_before_it_makes() {
    let t = stage2();
    t.map(0x4000_0000, PAGE_SIZE, Prot::RWX);
    let at = t
        .table
        .get_leaf(&t.cpu, Ipa::new(0x4000_0000))
        .unwrap()
        .slot
        .get();
    let (old, new) = (host_page(0x4000_0000, 0), host_page(0x4000_0000, 1));

    let trace = t
        .cpu
        .world
        .trace(|| t.map(0x4000_0000, PAGE_SIZE, Prot::RWX | Prot::SW0));
    assert_eq!(
        trace,
        [
            Event::Write { at, old, new: 0 },
            Event::InvalidateIpa {
                ipa: 0x4000_0000,
                level: 3
            },
            Event::Write { at, old: 0, new },
            Event::Publish,
        ]
    );

    let again = t
        .cpu
        .world
        .trace(|| t.map(0x4000_0000, PAGE_SIZE, Prot::RWX | Prot::SW0));
    assert_eq!(again, [Event::Publish], "an equal word is left alone");
}

#[test]
fn a_block_is_broken_before_a_table_takes_its_place() {
    let t = stage2();
    t.map(0x4020_0000, 2 * MIB, Prot::RWX);
    let at = t
        .table
        .get_leaf(&t.cpu, Ipa::new(0x4020_0000))
        .unwrap()
        .slot
        .get();
    let trace = t
        .cpu
        .world
        .trace(|| t.map(0x4020_5000, PAGE_SIZE, Prot::RWX));
    let table = t
        .table
        .get_leaf(&t.cpu, Ipa::new(0x4020_5000))
        .unwrap()
        .slot
        .page()
        .get();
    let leaf = table + 5 * 8;
    assert_eq!(
        trace,
        [
            Event::Write {
                at,
                old: 0x4020_07fd,
                new: 0
            },
            Event::InvalidateIpa {
                ipa: 0x4020_5000,
                level: 2
            },
            Event::Write {
                at,
                old: 0,
                new: table | 3
            },
            Event::Write {
                at: leaf,
                old: 0,
                new: 0x4020_57ff
            },
            Event::Publish,
        ]
    );
    assert_eq!(
        t.get(0x4020_4000),
        (0, 3),
        "the rest of the block is a hole"
    );
}

/// The other way: a block takes the place of a whole subtree, whose pages go back to the pool after the TLBs forgot.
#[test]
fn a_table_is_forgotten_before_its_pages_are_freed() {
    let t = stage2();
    t.map(GIB_1, 3 * PAGE_SIZE, Prot::RWX);
    t.map(GIB_1 + 2 * MIB, PAGE_SIZE, Prot::RX);
    let free = t.pool.free_pages();
    let trace = t.cpu.world.trace(|| t.map(GIB_1, 1 << 30, Prot::RWX));
    assert!(matches!(
        trace[..],
        [
            Event::Write { new: 0, .. },
            Event::InvalidateVmid,
            Event::Write {
                old: 0,
                new: 0x8000_07fd,
                ..
            },
            Event::Publish
        ]
    ));
    assert_eq!(t.pool.free_pages(), free + 3);
    assert_eq!(t.pool.refcount(t.table.root()), 2);
}

#[test]
fn unmap_clears_leaves_and_annotations_and_frees_empty_tables() {
    let t = stage2();
    let free = t.pool.free_pages();
    t.map(0x4000_0000, PAGE_SIZE, Prot::RWX);
    t.map(0x4020_0000, 2 * MIB, Prot::RWX);
    t.map(GIB_1, 1 << 30, Prot::RWX);
    t.table
        .set_owner(t.mm(), ipas(0x4000_1000, PAGE_SIZE), OwnerId::Hyp)
        .unwrap();
    assert_eq!(t.pool.free_pages(), free - 2);

    t.table.unmap(t.mm(), ipas(0x4000_0000, PAGE_SIZE)).unwrap();
    assert_eq!(
        (t.get(0x4000_0000), t.get(0x4000_1000)),
        ((0, 3), (0x4, 3)),
        "the neighbour stays"
    );
    let trace = t
        .cpu
        .world
        .trace(|| t.table.unmap(t.mm(), ipas(0, 1 << 40)).unwrap());

    assert_eq!(t.pool.free_pages(), free);
    assert_eq!(t.pool.refcount(t.table.root()), 1);
    for address in [0x4000_1000, 0x4020_0000, GIB_1] {
        assert_eq!(t.get(address), (0, 1));
    }
    let invalidated = trace
        .iter()
        .filter(|event| matches!(event, Event::InvalidateIpa { .. }))
        .count();
    assert_eq!(
        invalidated, 2,
        "the two blocks; an annotation cannot be in a TLB"
    );
    // Before an empty table's page may be used again, no walk may remember where it was.
    let forgotten = trace.windows(2).filter(|pair| {
        let unlinked = matches!(pair[0], Event::Write { old, new: 0, .. } if old & 0xfff == 3);
        unlinked && pair[1] == Event::InvalidateVmid
    });
    assert_eq!(forgotten.count(), 2, "{trace:x?}");
}

#[test]
fn annotations_replace_what_was_there() {
    let t = stage2();
    t.map(0x4000_0000, PAGE_SIZE, Prot::RWX);
    let before = t.pool.refcount(
        t.table
            .get_leaf(&t.cpu, Ipa::new(0x4000_0000))
            .unwrap()
            .slot,
    );
    let trace = t.cpu.world.trace(|| {
        t.table
            .set_owner(t.mm(), ipas(0x4000_0000, PAGE_SIZE), OwnerId::Hyp)
            .unwrap();
    });
    assert!(trace.contains(&Event::InvalidateIpa {
        ipa: 0x4000_0000,
        level: 3
    }));
    let leaf = t.table.get_leaf(&t.cpu, Ipa::new(0x4000_0000)).unwrap();
    assert_eq!(leaf.desc, Desc::from_raw(0x4));
    assert_eq!(
        t.pool.refcount(leaf.slot),
        before,
        "an annotation counts as an entry"
    );
}

#[test]
fn permissions_can_be_relaxed_but_software_bits_are_none() {
    let t = stage2();
    t.map(0x4000_0000, PAGE_SIZE, Prot::R | Prot::SW0);
    let leaf = t.table.get_leaf(&t.cpu, Ipa::new(0x4000_0000)).unwrap();
    let relax = |prot| t.table.relax_perms(t.mm(), Ipa::new(0x4000_0000), prot);
    for sw in [Prot::SW0, Prot::SW1, Prot::SW2, Prot::SW3] {
        let trace = t
            .cpu
            .world
            .trace(|| assert_eq!(relax(Prot::RW | sw), Err(Errno::Inval)));
        assert_eq!(trace, [], "{sw:?}");
    }
    let trace = t.cpu.world.trace(|| relax(Prot::W | Prot::X).unwrap());
    let new = 0x0080_0000_4000_07ff;
    assert_eq!(
        trace,
        [
            Event::Write {
                at: leaf.slot.get(),
                old: leaf.desc.raw(),
                new
            },
            Event::InvalidateIpa {
                ipa: 0x4000_0000,
                level: 3
            },
        ]
    );
    assert_eq!(
        t.cpu.world.trace(|| relax(Prot::R).unwrap()),
        [],
        "what is allowed already changes nothing"
    );
    assert_eq!(
        t.table.relax_perms(t.mm(), Ipa::new(0x4000_1000), Prot::RW),
        Err(Errno::Again)
    );
    t.table
        .set_owner(t.mm(), ipas(0x4000_1000, PAGE_SIZE), OwnerId::Hyp)
        .unwrap();
    assert_eq!(
        t.table.relax_perms(t.mm(), Ipa::new(0x4000_1000), Prot::RW),
        Err(Errno::Again)
    );
    assert_eq!(t.get(0x4000_1000), (0x4, 3));
}

/// A mapping that fails for want of pages leaves no empty tables behind.
#[test]
fn a_dry_pool_fails_a_stage_2_mapping_and_leaves_no_table() {
    // The odd first page is skipped by the root; two pages are left, three would be needed.
    let t: Table<Ipa> = Table::new(Geometry::HOST_STAGE2, 4);
    assert_eq!(t.pool.free_pages(), 2);
    t.map(0x4000_0000, PAGE_SIZE, Prot::RWX);
    t.table.unmap(t.mm(), ipas(0x4000_0000, PAGE_SIZE)).unwrap();
    t.map(0, 2 * MIB, Prot::RWX);
    let result = t.table.map(
        t.mm(),
        ipas(GIB_1, PAGE_SIZE),
        Pa::new(GIB_1),
        Prot::RWX,
        true,
    );
    assert_eq!(result, Err(Errno::NoMem));
    assert_eq!((t.get(GIB_1), t.get(0)), ((0, 1), (0x7fd, 2)));
    assert_eq!(t.pool.free_pages(), 1);
}
