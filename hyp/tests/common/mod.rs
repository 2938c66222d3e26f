//! A machine for tests: memory that only holds table pages and writes down what is done to it, CPUs, and a hyp
//! that has started on them.
// Every test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use hyp::abort::{Outcome, Trap};
use hyp::addr::{Ipa, PAGE_SIZE, Pa, PageRange};
use hyp::cpu::{Cpu, TableMemory};
use hyp::init::{Config, Hyp, InitError, PoolMemory, Section, SectionKind};
use hyp::pgtable::{Geometry, Leaf};
use hyp::pool::PageRecord;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// VA − PA of everything hyp maps.
pub(crate) const HYP_OFFSET: u64 = 0x40_0000_0000;
pub(crate) const TEXT: u64 = 0x4020_0000;
pub(crate) const RODATA: u64 = 0x4020_4000;
pub(crate) const DATA: u64 = 0x4020_6000;
pub(crate) const HOST_RODATA: u64 = 0x4100_0000;
pub(crate) const HOST_BSS: u64 = 0x4100_2000;
pub(crate) const DEVICE: u64 = 0x0900_0000;
/// Devices that are hyp's alone, a page each: beside the host's devices, and between two banks of RAM, above a bank
/// that ends in the middle of a block.
pub(crate) const OWN_DEVICES: [u64; 2] = [0x0a00_3000, 0x5068_9000];
/// RAM nobody has touched, aligned to 2 MiB, with more than 100 MiB after it.
pub(crate) const FREE: u64 = 0x4800_0000;
/// Where the pools' section starts.
const POOLS: u64 = 0x4030_0000;

/// RAM of the usual machine: a big bank, one whose ends are no multiples of 2 MiB, a bank of one page, and one
/// that holds whole GiB.
pub(crate) const RAM: [(u64, u64); 4] = [
    (0x4000_0000, 256 * MIB),
    (0x501f_f000, 0x48_8000),
    (0x6000_3000, PAGE_SIZE),
    (0x8000_0000, 2 * GIB),
];

/// What a test's memory and CPUs were asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Write { at: u64, old: u64, new: u64 },
    InvalidateIpa { ipa: u64, level: u8 },
    InvalidateVmid,
    Publish,
}

/// Memory and the record of what happened to it.
#[derive(Debug, Default)]
pub(crate) struct World {
    words: Mutex<BTreeMap<u64, u64>>,
    trace: Mutex<Vec<Event>>,
    pools: Vec<PageRange<Pa>>,
}

impl World {
    pub(crate) fn new(pools: Vec<PageRange<Pa>>) -> &'static Self {
        Box::leak(Box::new(Self {
            pools,
            ..Self::default()
        }))
    }

    fn check(&self, at: Pa) {
        assert!(
            at.get().is_multiple_of(8),
            "descriptor at {at} is not aligned"
        );
        assert!(
            self.pools.iter().any(|pool| pool.contains(at)),
            "{at} is in no pool"
        );
    }

    /// Runs `action` and returns what it did to memory and the TLBs.
    pub(crate) fn trace(&self, action: impl FnOnce()) -> Vec<Event> {
        self.trace.lock().unwrap().clear();
        action();
        self.trace.lock().unwrap().clone()
    }
}

/// One CPU of a [`World`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct TestCpu {
    pub(crate) world: &'static World,
    pub(crate) id: u32,
}

impl TableMemory for TestCpu {
    fn read(&self, at: Pa) -> u64 {
        self.world.check(at);
        self.world
            .words
            .lock()
            .unwrap()
            .get(&at.get())
            .copied()
            .unwrap_or(0)
    }

    fn write(&self, at: Pa, word: u64) {
        self.world.check(at);
        let old = self
            .world
            .words
            .lock()
            .unwrap()
            .insert(at.get(), word)
            .unwrap_or(0);
        self.world.trace.lock().unwrap().push(Event::Write {
            at: at.get(),
            old,
            new: word,
        });
    }

    fn zero_page(&self, page: Pa) {
        self.world.check(page);
        let mut words = self.world.words.lock().unwrap();
        words.retain(|&at, _| at & !(PAGE_SIZE - 1) != page.get());
    }
}

impl Cpu for TestCpu {
    fn id(&self) -> u32 {
        self.id
    }

    fn lock_taker(&self) -> u64 {
        0x40_4020_0000 + u64::from(self.id)
    }

    fn relax(&self) {
        std::thread::yield_now();
    }

    fn wake(&self) {}

    fn publish(&self) {
        self.world.trace.lock().unwrap().push(Event::Publish);
    }

    fn invalidate_ipa(&self, ipa: Ipa, level: u8) {
        self.world.trace.lock().unwrap().push(Event::InvalidateIpa {
            ipa: ipa.get(),
            level,
        });
    }

    fn invalidate_vmid(&self) {
        self.world.trace.lock().unwrap().push(Event::InvalidateVmid);
    }
}

pub(crate) fn range(base: u64, size: u64) -> PageRange<Pa> {
    PageRange::new(Pa::new(base), size).unwrap()
}

pub(crate) fn page(base: u64) -> PageRange<Pa> {
    range(base, PAGE_SIZE)
}

/// Fresh records, one a page.
pub(crate) fn records(pages: u64) -> &'static [PageRecord] {
    Vec::leak((0..pages).map(|_| PageRecord::new()).collect())
}

/// What to start hyp with; [`Setup::default`] is the usual machine.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) ram: Vec<(u64, u64)>,
    pub(crate) sections: Vec<(SectionKind, u64, u64)>,
    pub(crate) host_pool: u64,
    pub(crate) hyp_pool: u64,
    /// Pages between the two; less than 0 where they overlap.
    pub(crate) gap: i64,
    pub(crate) host_geometry: Geometry,
    pub(crate) lock_checks: bool,
}

impl Default for Setup {
    fn default() -> Self {
        use SectionKind::{Bss, Data, Device, HostBss, HostRodata, Pools, Rodata, Stacks, Text};
        Self {
            ram: RAM.to_vec(),
            sections: vec![
                (Text, TEXT, 4 * PAGE_SIZE),
                (Rodata, RODATA, 2 * PAGE_SIZE),
                (Data, DATA, 2 * PAGE_SIZE),
                (Bss, 0x4020_8000, PAGE_SIZE),
                (Stacks, 0x4020_9000, 4 * PAGE_SIZE),
                (Pools, POOLS, 256 * PAGE_SIZE),
                (HostRodata, HOST_RODATA, 2 * PAGE_SIZE),
                (HostBss, HOST_BSS, 3 * PAGE_SIZE),
                (Device, DEVICE, PAGE_SIZE),
            ],
            host_pool: 64,
            hyp_pool: 64,
            gap: 0,
            host_geometry: Geometry::HOST_STAGE2,
            lock_checks: true,
        }
    }
}

impl Setup {
    /// The usual machine, and devices that are hyp's alone.
    pub(crate) fn with_own_devices() -> Self {
        let mut setup = Self::default();
        let own = OWN_DEVICES.map(|page| (SectionKind::OwnDevice, page, PAGE_SIZE));
        setup.sections.extend(own);
        setup
    }

    fn pools(&self) -> (PageRange<Pa>, PageRange<Pa>) {
        // The host's root is concatenated: an odd base shows that it is aligned, not the pool.
        let host = range(POOLS + PAGE_SIZE, self.host_pool * PAGE_SIZE);
        let gap = self.gap * PAGE_SIZE as i64;
        let hyp = range(
            host.end().get().wrapping_add_signed(gap),
            self.hyp_pool * PAGE_SIZE,
        );
        (host, hyp)
    }

    /// Everything up to [`Hyp::new`].
    pub(crate) fn build(self) -> Result<Machine, InitError> {
        let (host_pool, hyp_pool) = self.pools();
        let world = World::new(vec![host_pool, hyp_pool]);
        let cpus = [0, 1, 2, 3].map(|id| TestCpu { world, id });
        let sections = self.sections.iter().map(|&(kind, base, size)| Section {
            kind,
            range: range(base, size),
        });
        let config = Config {
            regions: Vec::leak(
                self.ram
                    .iter()
                    .map(|&(base, size)| range(base, size))
                    .collect(),
            ),
            sections: Vec::leak(sections.collect()),
            physvirt_offset: HYP_OFFSET.wrapping_neg(),
            cpus: 4,
            host_pool: PoolMemory {
                pages: host_pool,
                records: records(self.host_pool),
            },
            hyp_pool: PoolMemory {
                pages: hyp_pool,
                records: records(self.hyp_pool),
            },
            host_geometry: self.host_geometry,
            lock_checks: self.lock_checks,
        };
        Ok(Machine {
            world,
            cpus,
            hyp: Hyp::new(&cpus[0], config)?,
        })
    }

    /// A hyp that has started.
    pub(crate) fn start(self) -> Machine {
        let machine = self.build().unwrap();
        machine.hyp.init(machine.cpu()).unwrap();
        machine.hyp.finalise(machine.cpu()).unwrap();
        machine
    }
}

/// hyp, its memory and its CPUs.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) world: &'static World,
    pub(crate) cpus: [TestCpu; 4],
    pub(crate) hyp: Hyp<'static>,
}

/// Everything hyp can change: all words that are not zero, and all reference counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    words: BTreeMap<u64, u64>,
    counts: Vec<u16>,
}

impl Machine {
    /// The usual machine, started.
    pub(crate) fn start() -> Self {
        Setup::default().start()
    }

    pub(crate) fn cpu(&self) -> &TestCpu {
        &self.cpus[0]
    }

    /// The host's entry for the page at `pa`.
    pub(crate) fn host_leaf(&self, pa: u64) -> Leaf {
        self.hyp.host().get_leaf(self.cpu(), Ipa::new(pa)).unwrap()
    }

    /// Word and level of the host's entry for the page at `pa`.
    pub(crate) fn host(&self, pa: u64) -> (u64, u8) {
        let leaf = self.host_leaf(pa);
        (leaf.desc.raw(), leaf.level)
    }

    /// Word and level of EL2's entry for the page at `pa`.
    pub(crate) fn el2(&self, pa: u64) -> (u64, u8) {
        let leaf = self
            .hyp
            .hyp()
            .get_leaf(self.cpu(), self.hyp.hyp_va(Pa::new(pa)))
            .unwrap();
        (leaf.desc.raw(), leaf.level)
    }

    /// Writes the host's entry for the page at `pa`, which must have one of its own.
    pub(crate) fn poke_host(&self, pa: u64, word: u64) {
        let leaf = self.host_leaf(pa);
        assert_eq!(leaf.level, 3);
        self.cpu().write(leaf.slot, word);
    }

    /// Writes EL2's entry for the page at `pa`, which must have one of its own.
    pub(crate) fn poke_el2(&self, pa: u64, word: u64) {
        let leaf = self
            .hyp
            .hyp()
            .get_leaf(self.cpu(), self.hyp.hyp_va(Pa::new(pa)))
            .unwrap();
        assert_eq!(leaf.level, 3);
        self.cpu().write(leaf.slot, word);
    }

    /// The host reads `address` on CPU `cpu` and stage 2 has no translation.
    pub(crate) fn touch_on(&self, cpu: usize, address: u64) -> Outcome {
        self.hyp
            .handle_trap(&self.cpus[cpu], &read_fault(address), &mut [0; 31])
    }

    /// The same on CPU 0.
    pub(crate) fn touch(&self, address: u64) -> Outcome {
        self.touch_on(0, address)
    }

    /// The host's HVC with `x0` and `x1`; returns x0 and x1.
    pub(crate) fn hvc(&self, x0: u64, x1: u64) -> (u64, u64) {
        let mut x = [0; 31];
        (x[0], x[1]) = (x0, x1);
        let trap = Trap {
            esr: 0x16 << 26 | 1 << 25,
            ..Trap::default()
        };
        assert_eq!(
            self.hyp.handle_trap(self.cpu(), &trap, &mut x),
            Outcome::Resume
        );
        assert_eq!(x[2..], [0; 29]);
        (x[0], x[1])
    }

    /// The host shares the page at `pa`; the result in x1.
    pub(crate) fn share(&self, pa: u64) -> i64 {
        let (x0, x1) = self.hvc(0xc600_0010, pa >> 12);
        assert_eq!(x0, 0);
        x1 as i64
    }

    /// Everything hyp can change.
    pub(crate) fn contents(&self) -> Contents {
        let words = self.world.words.lock().unwrap();
        let pools = [self.hyp.host().pool(), self.hyp.hyp().pool()];
        let counts = pools
            .iter()
            .flat_map(|pool| pool.records().iter().map(PageRecord::refcount));
        Contents {
            words: words
                .iter()
                .filter(|&(_, &word)| word != 0)
                .map(|(&at, &word)| (at, word))
                .collect(),
            counts: counts.collect(),
        }
    }

    /// Checks what must hold for the host's table at any time: every table is linked once, no table but the root
    /// is empty, and the pool's counts are 1 and the number of entries for a table, 0 for every other page.
    pub(crate) fn check_host_tables(&self) {
        let host = self.hyp.host();
        let geometry = host.geometry();
        let mut seen = BTreeSet::new();
        for root in 0..geometry.root_pages().unwrap() {
            self.check_table(
                host.root().get() + root * PAGE_SIZE,
                geometry.start_level,
                true,
                &mut seen,
            );
        }
        let pool = host.pool();
        for (index, record) in pool.records().iter().enumerate() {
            let table = pool.base().get() + index as u64 * PAGE_SIZE;
            assert_eq!(
                record.refcount() != 0,
                seen.contains(&table),
                "page {table:#x} of the pool"
            );
        }
        assert_eq!(pool.free_pages(), pool.pages() - seen.len() as u64);
    }

    fn check_table(&self, table: u64, level: u8, root: bool, seen: &mut BTreeSet<u64>) {
        assert!(seen.insert(table), "table {table:#x} is linked twice");
        let mut entries = 0;
        for index in 0..512 {
            let word = self.cpu().read(Pa::new(table + index * 8));
            entries += u16::from(word != 0);
            if level < 3 && word & 3 == 3 {
                assert_eq!(
                    word & !0xffff_ffff_f000,
                    3,
                    "table descriptor {word:#x} has attributes"
                );
                self.check_table(word & !3, level + 1, false, seen);
            }
        }
        assert!(root || entries != 0, "table {table:#x} is empty");
        assert_eq!(
            self.hyp.host().pool().refcount(Pa::new(table)),
            1 + entries,
            "count of table {table:#x}"
        );
    }
}

/// A stage-2 translation fault: the host read `address` at EL1.
pub(crate) fn read_fault(address: u64) -> Trap {
    Trap {
        esr: 0x24 << 26 | 1 << 25 | 0x07,
        far: 0xffff_0000_0000_0000 | address & 0xfff,
        hpfar: address >> 12 << 4,
        elr: 0x4100_0040,
        spsr: 0x6000_03c5,
        sctlr_el1: 0x30d0_0800,
    }
}

/// The host's leaf for the RAM page at `pa` with software bits `sw` (0 to 3: bits 56:55).
pub(crate) const fn host_page(pa: u64, sw: u64) -> u64 {
    pa | sw << 55 | 0x7ff
}

/// EL2's leaf for the data page at `pa` with software bits `sw`.
pub(crate) const fn el2_page(pa: u64, sw: u64) -> u64 {
    pa | sw << 55 | 1 << 54 | 0x743
}
