//! Starting: from a description of memory to a hyp that protects itself.
//!
//! CPU 0 does all of it alone, in this order: [`Hyp::new`] checks the description and takes the roots from the
//! pools; [`Hyp::init`] maps hyp's own memory at EL2; the caller switches EL2's stage 1 on; [`Hyp::finalise`]
//! takes hyp's memory and devices from the host. After that the host's stage 2 may be switched on and other CPUs may come.

mod error;

use core::sync::atomic::{AtomicBool, Ordering};

pub use error::InitError;

use crate::addr::{InputAddress, Ipa, Pa, PageRange, Va};
use crate::cpu::{Cpu, TableMemory};
use crate::desc::Prot;
use crate::errno::Errno;
use crate::lock::TicketLock;
use crate::page_state::{PageState, Profile};
use crate::pgtable::{Geometry, Leaf, Mm, PageTable};
use crate::pool::{PageRecord, Pool};
use crate::stats::Stats;

/// What a piece of memory that hyp maps at EL2 is for. It decides how it is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SectionKind {
    /// hyp's code: read and execute.
    Text,
    /// hyp's constants: read.
    Rodata,
    /// hyp's variables: read and write.
    Data,
    /// hyp's variables that start as zero: read and write.
    Bss,
    /// One stack a CPU: read and write.
    Stacks,
    /// The pools' pages and records: read and write.
    Pools,
    /// The host's constants, which hyp reads: hyp's, shared back to the host.
    HostRodata,
    /// The host's zeroed variables, which hyp reads: hyp's, shared back to the host.
    HostBss,
    /// A device hyp drives and leaves to the host, too: read and write, device memory. Not RAM.
    Device,
    /// A device, or pages of one, that hyp has for itself: read and write, device memory. Not RAM, and the host is
    /// refused there as it is in hyp's memory.
    OwnDevice,
}

impl SectionKind {
    /// The kind's name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Rodata => "rodata",
            Self::Data => "data",
            Self::Bss => "bss",
            Self::Stacks => "stacks",
            Self::Pools => "pools",
            Self::HostRodata => "host-rodata",
            Self::HostBss => "host-bss",
            Self::Device => "device",
            Self::OwnDevice => "own-device",
        }
    }

    /// How EL2 maps it, the page's state from hyp's view included.
    pub fn prot(self) -> Prot {
        match self {
            Self::Text => Prot::RX,
            Self::Rodata => Prot::R,
            Self::Data | Self::Bss | Self::Stacks | Self::Pools => Prot::RW,
            Self::HostRodata | Self::HostBss => PageState::SharedOwned.mark(Prot::R),
            Self::Device | Self::OwnDevice => Prot::RW | Prot::DEVICE,
        }
    }

    /// Whether it is RAM; devices are not.
    pub const fn is_memory(self) -> bool {
        !matches!(self, Self::Device | Self::OwnDevice)
    }
}

/// A piece of memory that hyp maps at EL2 while it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Section {
    /// What it is for.
    pub kind: SectionKind,
    /// Where it is.
    pub range: PageRange<Pa>,
}

/// Pages for one pool, and the records about them.
#[derive(Clone, Copy, Debug)]
pub struct PoolMemory<'m> {
    /// The pages, inside a [`SectionKind::Pools`] section, none of them in two pools. Their contents do not matter.
    pub pages: PageRange<Pa>,
    /// One record for each page.
    pub records: &'m [PageRecord],
}

/// The description of memory hyp starts from.
#[derive(Clone, Copy, Debug)]
pub struct Config<'m> {
    /// All RAM, lowest first; regions may touch but not overlap.
    pub regions: &'m [PageRange<Pa>],
    /// Everything hyp maps at EL2.
    pub sections: &'m [Section],
    /// PA − VA of everything hyp maps, as a wrapping number.
    pub physvirt_offset: u64,
    /// Number of CPUs.
    pub cpus: u32,
    /// Table pages for the host's stage 2: [`Geometry::pages_needed`] for all regions and hyp's own devices, and some
    /// for the host's.
    pub host_pool: PoolMemory<'m>,
    /// Table pages for EL2's stage 1: [`Geometry::pages_needed`] for all regions, and for the device sections.
    pub hyp_pool: PoolMemory<'m>,
    /// What the host's stage 2 translates.
    pub host_geometry: Geometry,
    /// Whether `_locked` functions panic when their lock is not held, and lock functions when the order is
    /// wrong (the series' `NVHE_EL2_DEBUG`).
    pub lock_checks: bool,
}

/// A page table with the lock that guards it and the pool it is built from. Outside this crate it can only be read.
#[derive(Debug)]
pub struct Component<'m, A> {
    pub(crate) lock: TicketLock,
    pub(crate) pgt: PageTable<A>,
    pub(crate) pool: Pool<'m>,
}

impl<'m, A: InputAddress> Component<'m, A> {
    fn new(
        cpu: &dyn Cpu,
        name: &'static str,
        geometry: Geometry,
        memory: PoolMemory<'m>,
    ) -> Result<Self, InitError> {
        let pool = Pool::new(memory.pages, memory.records).ok_or(InitError::Records {
            pool: name,
            pages: memory.pages,
            records: memory.records.len(),
        })?;
        let pgt =
            PageTable::new(Mm { cpu, pool: &pool }, geometry).map_err(|errno| InitError::Root {
                pool: name,
                pages: memory.pages,
                errno,
            })?;
        Ok(Self {
            lock: TicketLock::new(),
            pgt,
            pool,
        })
    }

    pub(crate) fn mm<'a>(&'a self, cpu: &'a dyn Cpu) -> Mm<'a> {
        Mm {
            cpu,
            pool: &self.pool,
        }
    }

    /// Physical address of the root table.
    pub fn root(&self) -> Pa {
        self.pgt.root()
    }

    /// What the table translates.
    pub fn geometry(&self) -> Geometry {
        self.pgt.geometry()
    }

    /// The entry that decides about the page of `address`, see [`PageTable::get_leaf`].
    pub fn get_leaf(&self, memory: &dyn TableMemory, address: A) -> Result<Leaf, Errno> {
        self.pgt.get_leaf(memory, address)
    }

    /// Calls `visit` with every leaf in `range`, see [`PageTable::for_each_leaf`].
    pub fn for_each_leaf(
        &self,
        memory: &dyn TableMemory,
        range: PageRange<A>,
        visit: impl FnMut(A, Leaf) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        self.pgt.for_each_leaf(memory, range, visit)
    }

    /// The pool.
    pub fn pool(&self) -> &Pool<'m> {
        &self.pool
    }

    /// The lock.
    pub fn lock(&self) -> &TicketLock {
        &self.lock
    }
}

/// The hypervisor: one for the machine, shared by all its CPUs.
#[derive(Debug)]
pub struct Hyp<'m> {
    /// The host's stage 2.
    pub(crate) host: Component<'m, Ipa>,
    /// EL2's own stage 1.
    pub(crate) hyp: Component<'m, Va>,
    pub(crate) physvirt_offset: u64,
    pub(crate) regions: &'m [PageRange<Pa>],
    pub(crate) sections: &'m [Section],
    pub(crate) profile: Profile,
    /// Of this package; a debugger shows it.
    pub(crate) release: &'static str,
    pub(crate) cpus: u32,
    pub(crate) lock_checks: bool,
    pub(crate) finalised: AtomicBool,
    pub(crate) stats: Stats,
}

impl<'m> Hyp<'m> {
    /// Checks `config` and takes the two root tables from the pools. Nothing is mapped yet.
    pub fn new(cpu: &dyn Cpu, config: Config<'m>) -> Result<Self, InitError> {
        check_regions(&config)?;
        check_sections(&config)?;
        check_pools(&config)?;
        Ok(Self {
            host: Component::new(cpu, "host-pool", config.host_geometry, config.host_pool)?,
            hyp: Component::new(cpu, "hyp-pool", Geometry::HYP_STAGE1, config.hyp_pool)?,
            physvirt_offset: config.physvirt_offset,
            regions: config.regions,
            sections: config.sections,
            profile: Profile::A,
            release: env!("CARGO_PKG_VERSION"),
            cpus: config.cpus,
            lock_checks: config.lock_checks,
            finalised: AtomicBool::new(false),
            stats: Stats::default(),
        })
    }

    /// Maps every section at EL2, each as its kind says. CPU 0, before EL2's stage 1 is on.
    pub fn init(&self, cpu: &dyn Cpu) -> Result<(), InitError> {
        for &section in self.sections {
            self.pkvm_create_mappings_locked(cpu, section.range, section.kind.prot())
                .map_err(|errno| InitError::Map { section, errno })?;
        }
        Ok(())
    }

    /// Maps `part` of a section once more at EL2, from `va` on and just as its kind says: a stack between guards, or
    /// the code that switches the MMU. Ownership is read at the fixed offset only, so this says nothing about it.
    /// CPU 0, before [`Hyp::finalise`]. `-EINVAL` after it, or where the fixed-offset range of RAM is.
    pub fn create_private_mapping(
        &self,
        cpu: &dyn Cpu,
        va: Va,
        part: Section,
    ) -> Result<(), InitError> {
        let failed = |errno| InitError::Map {
            section: part,
            errno,
        };
        let range = PageRange::new(va, part.range.size()).map_err(|_| failed(Errno::Inval))?;
        let is_fixed = self.regions.iter().any(|region| {
            self.hyp_va(region.base()) < range.end() && range.base() < self.hyp_va(region.end())
        });
        if is_fixed || self.is_finalised() {
            return Err(failed(Errno::Inval));
        }
        self.hyp
            .pgt
            .map(self.hyp.mm(cpu), range, part.range.base(), part.kind.prot())
            .map_err(failed)
    }

    /// Takes hyp's memory and devices from the host ([`Hyp::finalize_host_mappings`]); from here on locks are checked.
    /// CPU 0, before the host's stage 2 is on.
    pub fn finalise(&self, cpu: &dyn Cpu) -> Result<(), InitError> {
        self.finalize_host_mappings(cpu)
            .map_err(InitError::HostMappings)?;
        self.finalised.store(true, Ordering::Release);
        Ok(())
    }

    /// The host's stage 2.
    pub fn host(&self) -> &Component<'m, Ipa> {
        &self.host
    }

    /// EL2's own stage 1.
    pub fn hyp(&self) -> &Component<'m, Va> {
        &self.hyp
    }

    /// PA − VA of everything hyp maps, as a wrapping number.
    pub fn physvirt_offset(&self) -> u64 {
        self.physvirt_offset
    }

    /// All RAM, lowest first.
    pub fn regions(&self) -> &'m [PageRange<Pa>] {
        self.regions
    }

    /// Everything hyp mapped at EL2 while it started.
    pub fn sections(&self) -> &'m [Section] {
        self.sections
    }

    /// Where page states and owners are kept.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The release of this library.
    pub fn release(&self) -> &'static str {
        self.release
    }

    /// Number of CPUs.
    pub fn cpus(&self) -> u32 {
        self.cpus
    }

    /// Whether [`Hyp::finalise`] is done.
    pub fn is_finalised(&self) -> bool {
        self.finalised.load(Ordering::Acquire)
    }

    /// What has happened so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// All locks, with the names documents and debuggers use.
    pub fn locks(&self) -> [(&'static str, &TicketLock); 4] {
        [
            ("host", &self.host.lock),
            ("hyp", &self.hyp.lock),
            ("host-pool", &self.host.pool.lock),
            ("hyp-pool", &self.hyp.pool.lock),
        ]
    }

    /// Where EL2 maps the page at `pa`.
    pub fn hyp_va(&self, pa: Pa) -> Va {
        Va::new(pa.get().wrapping_sub(self.physvirt_offset))
    }
}

fn check_regions(config: &Config<'_>) -> Result<(), InitError> {
    let ipa_end = 1_u64 << config.host_geometry.ia_bits;
    let mut last = Pa::new(0);
    for &region in config.regions {
        if region.size() == 0 || region.base() < last {
            return Err(InitError::Regions {
                region,
                after: last,
            });
        }
        last = region.end();
        if last.get() > ipa_end || last.get().wrapping_sub(config.physvirt_offset) > hyp_va_end() {
            return Err(InitError::Beyond { region });
        }
    }
    Ok(())
}

fn check_sections(config: &Config<'_>) -> Result<(), InitError> {
    for &section in config.sections {
        let is_memory = config
            .regions
            .iter()
            .any(|region| region.contains_range(section.range));
        let touches_memory = config.regions.iter().any(|region| {
            region.base() < section.range.end() && section.range.base() < region.end()
        });
        let wants_memory = section.kind.is_memory();
        if wants_memory && !is_memory || !wants_memory && touches_memory {
            return Err(InitError::Section { section });
        }
    }
    Ok(())
}

/// A pool outside would stay the host's, which could then write hyp's tables.
fn check_pools(config: &Config<'_>) -> Result<(), InitError> {
    let pools = [
        ("host-pool", config.host_pool.pages),
        ("hyp-pool", config.hyp_pool.pages),
    ];
    for (pool, pages) in pools {
        let is_inside = config.sections.iter().any(|section| {
            section.kind == SectionKind::Pools && section.range.contains_range(pages)
        });
        if !is_inside {
            return Err(InitError::Pool { pool, pages });
        }
    }
    let [(_, host), (pool, pages)] = pools;
    if host.base() < pages.end() && pages.base() < host.end() {
        return Err(InitError::Pool { pool, pages });
    }
    Ok(())
}

fn hyp_va_end() -> u64 {
    1 << Geometry::HYP_STAGE1.ia_bits
}
