//! A simulated machine that runs this very library on the developer's computer.
//!
//! It has RAM, CPUs and a scripted host, no instructions: the host's accesses and hypercalls are calls, and
//! hyp's library runs as it is. CPUs take turns at each lock attempt and table access, in an order that
//! depends on nothing, so contention is real and every run is the same. A machine stands still between two
//! calls of [`Machine::run_steps`], and what a debugger would read in the image (registers, tables, hyp's static)
//! is where it would be there.
//!
//! | module | holds |
//! |---|---|
//! | [`layout`] | memory map, symbols, members of hyp's static |
//! | `ram` | sparse RAM |
//! | `baton` | taking turns |
//! | `cpu` | a CPU's registers, and the library's [`Cpu`](crate::cpu::Cpu) on it |
//! | `host` | the scripted host |
//! | `publish` | hyp's static in simulated RAM |
//! | `world` | the threads: CPUs and their scheduler |
//! | `inferior` | the machine under a debugger |
//! | [`server`] | the machine behind a gdb server on a socket |

mod baton;
mod cpu;
mod host;
mod inferior;
pub mod layout;
mod publish;
mod ram;
pub mod server;
mod world;

#[cfg(test)]
mod tests;

use crate::addr::{Pa, PageRange, RangeError};
use crate::debug::{Lock, Pool, Region, Resume, Section, Stop, Symbol};
use crate::init::InitError;
use baton::Baton;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use cpu::Registers;
use ram::Ram;
use std::collections::BTreeSet;
use std::prelude::rust_2024::*;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use world::{Command, World};

/// VTCR_EL2: 40-bit IPA (T0SZ 24), start level 1 (SL0 1), write-back inner-shareable walks, 4 KiB granule,
/// 40-bit PA (PS 2).
pub const VTCR_EL2: u64 = 0x8002_3558;
/// TCR_EL2: 39-bit VA (T0SZ 25), write-back inner-shareable walks, 4 KiB granule, 40-bit PA (PS 2).
pub const TCR_EL2: u64 = 0x8082_3519;
/// MAIR_EL2: attribute 0 Normal write-back, 1 Device-nGnRE.
pub const MAIR_EL2: u64 = 0x04ff;
/// SCTLR_EL2: M, C and I, and what is RES1.
pub const SCTLR_EL2: u64 = 0x30c5_1835;
/// HCR_EL2: RW, TSC, VM.
pub const HCR_EL2: u64 = 1 << 31 | 1 << 19 | 1;
/// ID_AA64MMFR0_EL1: 40-bit PA, 4 KiB and 64 KiB granules.
pub const ID_AA64MMFR0_EL1: u64 = 0x1122;
/// SCTLR_EL1 of a host whose MMU is off: what is RES1, SPAN included.
const SCTLR_EL1: u64 = 0x30d0_0800;

/// Least steps before a new machine is handed out.
const START_STEPS: u64 = 1500;
/// Most steps to wait for the start state: with one CPU there is no contention to wait for.
const START_LIMIT: u64 = 20_000;

const ALL_CPUS: Resume = Resume {
    run: u64::MAX,
    step: None,
};

/// What the scripted host is up to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scene {
    /// One of everything, then at random.
    Work,
    /// All CPUs write to the same new page at once, again and again.
    Race,
    /// Each CPU executes new pages, and hyp's own.
    Fetch,
}

/// Why a machine does not start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StartError {
    /// The number of CPUs is not 1 to [`layout::MAX_CPUS`].
    Cpus(usize),
    /// The memory map is not made of whole pages.
    Layout(RangeError),
    /// hyp refuses its configuration.
    Init(InitError),
    /// The system has no thread to spare.
    Thread(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpus(cpus) => write!(
                f,
                "a simulated machine has 1 to {} CPUs, not {cpus}",
                layout::MAX_CPUS
            ),
            Self::Layout(error) => write!(f, "the simulated memory map: {error}"),
            Self::Init(error) => write!(f, "hyp does not start: {error}"),
            Self::Thread(error) => write!(f, "no thread for a simulated CPU: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<RangeError> for StartError {
    fn from(error: RangeError) -> Self {
        Self::Layout(error)
    }
}

impl From<InitError> for StartError {
    fn from(error: InitError) -> Self {
        Self::Init(error)
    }
}

/// A mutex whose value is whole even where a simulated CPU panicked.
#[derive(Debug)]
struct Locked<T>(Mutex<T>);

impl<T> Locked<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the machine's threads and its debugger share. While CPUs run, only the one that has the baton
/// touches it; while they stand, only the debugger does.
#[derive(Debug)]
struct Shared {
    ram: Locked<Ram>,
    cpus: Locked<Vec<Registers>>,
    /// CPUs that have written to tables since they trapped: pages may be halfway between two states.
    unsettled: Locked<Vec<bool>>,
    /// CPUs whose host has shown one of everything.
    opened: Locked<Vec<bool>>,
    /// Counters by name, as of the last step.
    stats: Locked<Vec<(&'static str, u64)>>,
    invalidations: AtomicU64,
    /// How often a CPU has come to where it waits for the others.
    met: AtomicU64,
    pools: layout::Pools,
    baton: Baton,
}

impl Shared {
    fn count_invalidation(&self) {
        self.invalidations.fetch_add(1, Ordering::Relaxed);
    }

    /// Physical ranges that hold what hyp's library has in objects of this process: readable, and to be
    /// changed by nobody else.
    fn is_published(&self, pa: u64, size: u64) -> bool {
        let records = Region {
            base: self.pools.host_records,
            size: crate::addr::PAGE_SIZE,
        };
        let hyp = Region {
            base: layout::HYP,
            size: layout::HYP_SIZE,
        };
        [records, hyp]
            .iter()
            .any(|region| pa < region.end() && region.base < pa.saturating_add(size))
    }
}

/// The simulated machine. It stands still but for calls of [`Machine::run_steps`]; dropping it ends its threads.
#[derive(Debug)]
pub struct Machine {
    shared: Arc<Shared>,
    world: World,
    facts: OwnedFacts,
    breakpoints: BTreeSet<u64>,
    /// Virtual addresses of which every write stops its CPU.
    watchpoints: Vec<Region>,
    resume: Resume,
}

/// What [`crate::debug::Facts`] refers to.
#[derive(Debug)]
struct OwnedFacts {
    cpus: usize,
    host_root: u64,
    hyp_root: u64,
    sections: Vec<Section<'static>>,
    pools: [Pool<'static>; 2],
    stacks: Vec<u64>,
    symbols: Vec<Symbol<'static>>,
}

impl Machine {
    /// Starts a machine with `cpus` CPUs and runs it to a state worth looking at: every kind of page is
    /// there, one lock is held with others waiting for it, and no page is halfway between two states.
    /// That state is the same every time.
    ///
    /// # Errors
    /// The number of CPUs is out of range, or the system has no threads.
    pub fn start(cpus: usize) -> Result<Self, StartError> {
        let mut machine = Self::start_scene(cpus, Scene::Work)?;
        machine.run_to_start();
        Ok(machine)
    }

    /// Starts a machine with `cpus` CPUs, none of which has done anything yet.
    ///
    /// # Errors
    /// As [`Machine::start`].
    pub fn start_scene(cpus: usize, scene: Scene) -> Result<Self, StartError> {
        if !(1..=layout::MAX_CPUS).contains(&cpus) {
            return Err(StartError::Cpus(cpus));
        }
        let ram: [PageRange<Pa>; 1] = [layout::page_range(layout::RAM)?];
        let pools = layout::pools(&ram)?;
        let shared = Arc::new(Shared {
            ram: Locked::new(Ram::new(layout::RAM)),
            cpus: Locked::new((0..cpus).map(Registers::new).collect()),
            unsettled: Locked::new(vec![false; cpus]),
            opened: Locked::new(vec![false; cpus]),
            stats: Locked::new(Vec::new()),
            invalidations: AtomicU64::new(0),
            met: AtomicU64::new(0),
            pools,
            baton: Baton::new(cpus),
        });
        let (world, roots) = World::start(&shared, cpus, scene)?;
        let facts = OwnedFacts {
            cpus,
            host_root: roots.host,
            hyp_root: roots.hyp,
            sections: layout::SECTIONS
                .iter()
                .map(|&(kind, region)| Section {
                    name: kind.name(),
                    region,
                })
                .collect(),
            pools: layout::pool_facts(&pools),
            stacks: (0..cpus).map(layout::hyp_stack).collect(),
            symbols: layout::symbols(),
        };
        Ok(Self {
            shared,
            world,
            facts,
            breakpoints: BTreeSet::new(),
            watchpoints: Vec::new(),
            resume: ALL_CPUS,
        })
    }

    /// Runs on to the start state.
    fn run_to_start(&mut self) {
        self.run_steps(START_STEPS);
        for _ in START_STEPS..START_LIMIT {
            if self.is_worth_looking_at() {
                return;
            }
            self.run_steps(1);
        }
    }

    fn is_worth_looking_at(&self) -> bool {
        let settled = self.shared.unsettled.lock().iter().all(|cpu| !cpu);
        let opened = self.shared.opened.lock().iter().all(|cpu| *cpu);
        let ram = self.shared.ram.lock();
        let contended = layout::LOCKS.iter().filter(|lock: &&Lock<'_>| {
            let word = ram.read_u64(lock.pa).unwrap_or(0);
            let waiters = (word >> 16).wrapping_sub(word) & 0xffff;
            let recorded = word >> 32 != u64::from(crate::lock::NO_CPU);
            waiters >= 2 && recorded
        });
        settled && opened && contended.count() == 1
    }

    /// Lets the CPUs that were resumed take up to `steps` steps together, and returns why they stopped
    /// before, if they did.
    pub fn run_steps(&mut self, steps: u64) -> Option<Stop> {
        self.world.run(Command {
            steps,
            resume: self.resume,
            breakpoints: self.breakpoints.clone(),
            watchpoints: self.watchpoints.clone(),
        })
    }
}
