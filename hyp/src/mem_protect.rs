//! Memory protection: the host's stage 2, EL2's own mappings, and pages that change between the two.
//!
//! Lock order: `host`, then `hyp`; the pools' locks are innermost, held only inside [`crate::pool`].
//! Names follow the series. A function whose name ends in `_locked` says which lock its caller holds.

use crate::addr::{InputAddress, Ipa, PAGE_SIZE, Pa, PageRange, Va};
use crate::cpu::Cpu;
use crate::desc::{Desc, LAST_LEVEL, Prot};
use crate::errno::Errno;
use crate::init::{Component, Hyp, SectionKind};
use crate::lock::Guard;
use crate::page_state::{OwnerId, PageState};
use crate::pgtable::{GRANULE, Leaf};
use crate::stats::Event;

/// How the host has RAM, unless something says otherwise.
pub const HOST_MEM_PROT: Prot = Prot::RWX;
/// How the host has everything that is not RAM.
pub const HOST_MMIO_PROT: Prot = Prot::RW;
/// How hyp has a page the host shares with it, but for the state.
pub const HYP_PROT: Prot = Prot::RW;

/// What is around an address: RAM or not, and how far it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemRange {
    /// One RAM region, or the gap between two.
    pub range: PageRange<Pa>,
    /// Whether it is RAM.
    pub is_memory: bool,
}

impl Hyp<'_> {
    /// Takes the host's lock.
    pub fn lock_host<'a>(&'a self, cpu: &'a dyn Cpu) -> Guard<'a> {
        self.check_order(cpu, "host", &["host", "hyp", "host-pool", "hyp-pool"]);
        self.host.lock.lock(cpu)
    }

    /// Takes hyp's lock. Where both are needed, the host's is taken first.
    pub fn lock_hyp<'a>(&'a self, cpu: &'a dyn Cpu) -> Guard<'a> {
        self.check_order(cpu, "hyp", &["hyp", "host-pool", "hyp-pool"]);
        self.hyp.lock.lock(cpu)
    }

    /// Panics if this CPU holds one of the locks that may not be held while `taking` is taken.
    fn check_order(&self, cpu: &dyn Cpu, taking: &str, before: &[&str]) {
        if !self.checks_locks() {
            return;
        }
        for (name, lock) in self.locks() {
            if before.contains(&name) && lock.is_held_by(cpu) {
                panic!("CPU {} takes lock {taking} while it holds {name}", cpu.id());
            }
        }
    }

    /// Panics, naming the caller's file and line, unless this CPU holds the lock.
    ///
    /// Only once hyp is finalised, because before that CPU 0 is alone and takes no locks; and only if
    /// [`crate::init::Config::lock_checks`] was set. It panics because nothing less stops at EL2.
    #[track_caller]
    fn assert_lock_held<A: InputAddress>(
        &self,
        cpu: &dyn Cpu,
        name: &str,
        component: &Component<'_, A>,
    ) {
        if self.checks_locks() && !component.lock.is_held_by(cpu) {
            panic!(
                "lock {name} is not held by CPU {}: {:?}",
                cpu.id(),
                component.lock
            );
        }
    }

    fn checks_locks(&self) -> bool {
        self.lock_checks && self.is_finalised()
    }

    /// Whether the byte at `pa` is RAM.
    pub fn addr_is_memory(&self, pa: Pa) -> bool {
        self.find_mem_range(pa).is_some_and(|found| found.is_memory)
    }

    /// The RAM region that holds `pa`, or the gap between regions that does; `None` beyond the host's IPA space.
    pub fn find_mem_range(&self, pa: Pa) -> Option<MemRange> {
        let next = self.regions.partition_point(|region| region.base() <= pa);
        let before = next.checked_sub(1).map(|index| self.regions[index]);
        if let Some(region) = before.filter(|region| region.contains(pa)) {
            return Some(MemRange {
                range: region,
                is_memory: true,
            });
        }
        let start = before.map_or(Pa::new(0), PageRange::end);
        let end = self
            .regions
            .get(next)
            .map_or(self.host.pgt.input_size(), |region| region.base().get());
        let range = PageRange::new(start, end.checked_sub(start.get())?).ok()?;
        range.contains(pa).then_some(MemRange {
            range,
            is_memory: false,
        })
    }

    /// Runs `operation` on the host's stage 2. If the pool runs dry, unmaps everything that is not RAM, which
    /// comes back when it is touched, and runs `operation` once more. The pool is big enough for all of RAM.
    #[track_caller]
    fn host_stage2_try(
        &self,
        cpu: &dyn Cpu,
        mut operation: impl FnMut() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        self.assert_lock_held(cpu, "host", &self.host);
        match operation() {
            Err(Errno::NoMem) => {
                self.stats.count(Event::PoolRetry);
                self.host_stage2_unmap_dev_all(cpu)?;
                operation()
            }
            result => result,
        }
    }

    /// Unmaps everything that is not RAM from the host. hyp's own devices were never mapped: their annotations stay.
    fn host_stage2_unmap_dev_all(&self, cpu: &dyn Cpu) -> Result<(), Errno> {
        let mut start = Pa::new(0);
        while let Some(found) = self.find_mem_range(start) {
            if !found.is_memory {
                self.host
                    .pgt
                    .unmap_valid(self.host.mm(cpu), found.range.identity())?;
            }
            start = found.range.end();
        }
        Ok(())
    }

    /// Whether a mapping of `range` must be made of pages: anything but the default protection, because a block
    /// that is broken up loses the rest, and only the defaults come back by themselves.
    fn host_stage2_force_pte(&self, range: PageRange<Pa>, prot: Prot) -> bool {
        let default = if self.addr_is_memory(range.base()) {
            HOST_MEM_PROT
        } else {
            HOST_MMIO_PROT
        };
        prot != default
    }

    /// Maps `range`, which is all RAM or all not, to the host with `prot`. The caller holds the host's lock.
    #[track_caller]
    pub fn host_stage2_idmap_locked(
        &self,
        cpu: &dyn Cpu,
        range: PageRange<Pa>,
        prot: Prot,
    ) -> Result<(), Errno> {
        let force_pte = self.host_stage2_force_pte(range, prot);
        self.host_stage2_try(cpu, || {
            self.host.pgt.map(
                self.host.mm(cpu),
                range.identity(),
                range.base(),
                prot,
                force_pte,
            )
        })
    }

    /// Says that `owner` owns `range`. The caller holds the host's lock.
    #[track_caller]
    pub fn host_stage2_set_owner_locked(
        &self,
        cpu: &dyn Cpu,
        range: PageRange<Pa>,
        owner: OwnerId,
    ) -> Result<(), Errno> {
        self.host_stage2_try(cpu, || {
            self.host
                .pgt
                .set_owner(self.host.mm(cpu), range.identity(), owner)
        })
    }

    /// Maps the page of `pa` to the host, which touched it, in the largest block that holds nothing else.
    ///
    /// `-EAGAIN` if it is mapped already (another CPU was first), `-EPERM` if it is not the host's, `-ERANGE`
    /// beyond the host's IPA space.
    pub fn host_stage2_idmap(&self, cpu: &dyn Cpu, pa: Pa) -> Result<(), Errno> {
        let _host = self.lock_host(cpu);
        let leaf = self.host.pgt.get_leaf(cpu, Ipa::new(pa.get()))?;
        if leaf.desc.is_valid() {
            return Err(Errno::Again);
        }
        if leaf.desc != Desc::ZERO {
            return Err(Errno::Perm);
        }
        let found = self.find_mem_range(pa).ok_or(Errno::Range)?;
        let block = largest_block(pa, leaf, found.range).ok_or(Errno::Range)?;
        let prot = if found.is_memory {
            HOST_MEM_PROT
        } else {
            HOST_MMIO_PROT
        };
        self.host_stage2_idmap_locked(cpu, block, prot)
    }

    /// Maps `range` at EL2, at its fixed offset.
    pub fn pkvm_create_mappings(
        &self,
        cpu: &dyn Cpu,
        range: PageRange<Pa>,
        prot: Prot,
    ) -> Result<(), Errno> {
        let _hyp = self.lock_hyp(cpu);
        self.pkvm_create_mappings_locked(cpu, range, prot)
    }

    /// Maps `range` at EL2, at its fixed offset, page by page. The caller holds hyp's lock.
    #[track_caller]
    pub fn pkvm_create_mappings_locked(
        &self,
        cpu: &dyn Cpu,
        range: PageRange<Pa>,
        prot: Prot,
    ) -> Result<(), Errno> {
        self.assert_lock_held(cpu, "hyp", &self.hyp);
        range
            .pages()
            .try_for_each(|pa| self.create_mapping(cpu, self.hyp_va(pa), pa, prot))
    }

    /// Maps one page anywhere at EL2. Private: nothing outside may choose a VA.
    fn create_mapping(&self, cpu: &dyn Cpu, va: Va, pa: Pa, prot: Prot) -> Result<(), Errno> {
        let page = PageRange::new(va, PAGE_SIZE).map_err(|_| Errno::Range)?;
        self.hyp.pgt.map(self.hyp.mm(cpu), page, pa, prot)
    }

    /// Makes the host's stage 2 say what EL2's stage 1 says about hyp's memory: hyp's pages become annotations,
    /// pages hyp shares with the host the host's to borrow, and the other way round. Then hyp's own devices become
    /// annotations, too.
    ///
    /// Of EL2's stage 1 it looks at RAM's fixed-offset ranges only, because what is mapped elsewhere says nothing about
    /// the host. `-EINVAL` if a leaf there is not a page, does not lead to RAM, or has the reserved state; `-ERANGE` if
    /// a device is beyond the host's IPA space.
    pub fn finalize_host_mappings(&self, cpu: &dyn Cpu) -> Result<(), Errno> {
        for region in self.regions {
            let range = PageRange::new(self.hyp_va(region.base()), region.size())
                .map_err(|_| Errno::Range)?;
            self.hyp.pgt.for_each_leaf(cpu, range, |_, leaf| {
                if leaf.desc.is_valid() {
                    self.finalize_host_mapping(cpu, leaf)
                } else {
                    Ok(())
                }
            })?;
        }
        self.sections
            .iter()
            .filter(|section| section.kind == SectionKind::OwnDevice)
            .try_for_each(|device| {
                self.host_stage2_set_owner_locked(cpu, device.range, OwnerId::Hyp)
            })
    }

    fn finalize_host_mapping(&self, cpu: &dyn Cpu, leaf: Leaf) -> Result<(), Errno> {
        let pa = leaf.desc.output_address();
        if leaf.level != LAST_LEVEL || !self.addr_is_memory(pa) {
            return Err(Errno::Inval);
        }
        let page = PageRange::new(pa, PAGE_SIZE).map_err(|_| Errno::Inval)?;
        let host_state = match PageState::of(leaf.desc.hyp_prot()) {
            PageState::Owned => return self.host_stage2_set_owner_locked(cpu, page, OwnerId::Hyp),
            PageState::SharedOwned => PageState::SharedBorrowed,
            PageState::SharedBorrowed => PageState::SharedOwned,
            PageState::Reserved => return Err(Errno::Inval),
        };
        self.host_stage2_idmap_locked(cpu, page, host_state.mark(HOST_MEM_PROT))
    }

    /// The hypercall `__pkvm_host_share_hyp`: the host lets hyp use the page with frame number `pfn`, which it
    /// owns exclusively. Sharing a shared page again succeeds and changes nothing.
    ///
    /// `-EINVAL` if it is not RAM; `-EPERM` if the host does not own it exclusively with full access, or if the
    /// two sides disagree about it. On an error nothing is changed.
    ///
    /// # Panics
    /// If a pool runs dry after the checks, which pools of the documented sizes do not.
    pub fn pkvm_host_share_hyp(&self, cpu: &dyn Cpu, pfn: u64) -> Result<(), Errno> {
        let result = self.share(cpu, pfn);
        self.stats.count(match result {
            Ok(event) => event,
            Err(_) => Event::ShareRefused,
        });
        result.map(|_| ())
    }

    fn share(&self, cpu: &dyn Cpu, pfn: u64) -> Result<Event, Errno> {
        let pa = Pa::from_pfn(pfn)
            .filter(|&pa| self.addr_is_memory(pa))
            .ok_or(Errno::Inval)?;
        let page = PageRange::new(pa, PAGE_SIZE).map_err(|_| Errno::Inval)?;
        let _host = self.lock_host(cpu);
        let _hyp = self.lock_hyp(cpu);

        let host = self.host.pgt.get_leaf(cpu, Ipa::new(pa.get()))?.desc;
        let borrowed = PageState::SharedBorrowed.mark(HYP_PROT);
        if host != Desc::ZERO {
            let prot = host.stage2_prot();
            // An annotation has no permissions: it stops here too.
            if !prot.contains(HOST_MEM_PROT) {
                return Err(Errno::Perm);
            }
            match PageState::of(prot) {
                PageState::Owned => {}
                PageState::SharedOwned => {
                    let hyp = self.hyp.pgt.get_leaf(cpu, self.hyp_va(pa))?.desc;
                    let exact = Desc::hyp_leaf(pa, LAST_LEVEL, borrowed)?;
                    return if hyp == exact {
                        Ok(Event::ShareAgain)
                    } else {
                        Err(Errno::Perm)
                    };
                }
                PageState::SharedBorrowed | PageState::Reserved => return Err(Errno::Perm),
            }
        }

        // All checks are made: from here on nothing may fail, because nothing undoes the first half.
        if let Err(errno) = self.pkvm_create_mappings_locked(cpu, page, borrowed) {
            panic!("share of {pa}: cannot map it at EL2: {errno}");
        }
        if let Err(errno) =
            self.host_stage2_idmap_locked(cpu, page, PageState::SharedOwned.mark(HOST_MEM_PROT))
        {
            panic!("share of {pa}: cannot mark it in the host's stage 2: {errno}");
        }
        Ok(Event::Share)
    }
}

/// The largest block around `pa` that is inside `region` and fits the hole at `leaf`.
fn largest_block(pa: Pa, leaf: Leaf, region: PageRange<Pa>) -> Option<PageRange<Pa>> {
    (leaf.level..=LAST_LEVEL)
        .filter(|&level| GRANULE.supports_leaf(level))
        .find_map(|level| {
            let size = GRANULE.level_size(level);
            let block = PageRange::new(Pa::new(pa.get() & !(size - 1)), size).ok()?;
            region.contains_range(block).then_some(block)
        })
}
