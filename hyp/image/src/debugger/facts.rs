//! What hyp says of itself to a debugger.

use hyp::addr::{Pa, PageRange};
use hyp::debug::{Facts, HostStage2, HypStage1, Lock, Pool, Region, Section, Symbol};
use hyp::lock::TicketLock;

use super::symbols;
use crate::arch::read_register;
use crate::dtb::{MAX_CPUS, MAX_REGIONS};
use crate::el2::hypervisor;
use crate::layout::{OFFSET, stack};
use crate::memory::MAX_SECTIONS;
use crate::uart::CONSOLE;

/// What [`Facts`] refer to.
pub(super) struct Gathered {
    ram: [Region; MAX_REGIONS],
    sections: [Section<'static>; MAX_SECTIONS],
    locks: [Lock<'static>; 5],
    pools: [Pool<'static>; 2],
    stacks: [u64; MAX_CPUS],
    symbols: &'static [Symbol<'static>],
}

const NOWHERE: Region = Region { base: 0, size: 0 };

fn region(range: PageRange<Pa>) -> Region {
    Region {
        base: range.base().get(),
        size: range.size(),
    }
}

impl Gathered {
    /// Gathers them, once hyp is there.
    pub(super) fn new() -> Self {
        let hyp = hypervisor();
        let mut ram = [NOWHERE; MAX_REGIONS];
        for (to, from) in ram.iter_mut().zip(hyp.regions()) {
            *to = region(*from);
        }
        let mut sections = [Section {
            name: "",
            region: NOWHERE,
        }; MAX_SECTIONS];
        for (to, from) in sections.iter_mut().zip(hyp.sections()) {
            *to = Section {
                name: from.kind.name(),
                region: region(from.range),
            };
        }
        let lock = |name, symbol, lock: *const TicketLock| Lock {
            name,
            symbol,
            pa: (lock as u64).wrapping_sub(OFFSET),
        };
        let pool = |name, pool: &hyp::pool::Pool<'static>| Pool {
            name,
            base: pool.base().get(),
            pages: pool.pages(),
            records: (pool.records().as_ptr() as u64).wrapping_sub(OFFSET),
            record_size: size_of::<hyp::pool::PageRecord>() as u64,
        };
        Self {
            ram,
            sections,
            locks: [
                lock("host", "HYP.host.lock", hyp.host().lock()),
                lock("hyp", "HYP.hyp.lock", hyp.hyp().lock()),
                lock("host-pool", "HYP.host.pool.lock", hyp.host().pool().lock()),
                lock("hyp-pool", "HYP.hyp.pool.lock", hyp.hyp().pool().lock()),
                lock("console", "CONSOLE", &raw const CONSOLE),
            ],
            pools: [
                pool("host-pool", hyp.host().pool()),
                pool("hyp-pool", hyp.hyp().pool()),
            ],
            stacks: core::array::from_fn(|cpu| stack(cpu).base().get()),
            symbols: symbols::all(),
        }
    }

    /// As the library wants them.
    pub(super) fn facts(&self) -> Facts<'_> {
        let hyp = hypervisor();
        let cpus = hyp.cpus() as usize;
        Facts {
            cpus,
            physvirt_offset: hyp.physvirt_offset(),
            host_s2: HostStage2 {
                root: hyp.host().root().get(),
                vtcr: read_register!(vtcr_el2),
            },
            hyp_s1: HypStage1 {
                root: hyp.hyp().root().get(),
                tcr: read_register!(tcr_el2),
                mair: read_register!(mair_el2),
            },
            ram: &self.ram[..hyp.regions().len().min(MAX_REGIONS)],
            sections: &self.sections[..hyp.sections().len().min(MAX_SECTIONS)],
            locks: &self.locks,
            pools: &self.pools,
            stacks: &self.stacks[..cpus.min(MAX_CPUS)],
            symbols: self.symbols,
        }
    }
}
