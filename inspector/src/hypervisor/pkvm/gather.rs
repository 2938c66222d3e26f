//! Everything that can be read once the kernel's variables are known, side by side.

use super::records::{self, Records};
use super::tables::{self, Tables};
use super::vms::{self, Vms};
use super::{Linux, calls, locks};
use crate::addr::Span;
use crate::hypervisor::calls::Code;
use crate::model::{Cpu, Symbols};
use crate::target::TargetError;

/// What is known before.
pub(super) struct Leads<'a> {
    pub(super) symbols: &'a Symbols,
    /// The RAM that the hypervisor manages.
    pub(super) ram: &'a [Span],
    /// Where page records are, if there are some.
    pub(super) records: Option<records::Place<'a>>,
    /// The pages of each pool.
    pub(super) pools: Vec<Span>,
}

/// What was read then.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) vms: Vms,
    pub(super) guests: Vec<Tables>,
    pub(super) locks: locks::Words,
    /// Which locks are not known, in one sentence.
    pub(super) no_locks: Option<String>,
    /// Page records, where they say anything of states.
    pub(super) records: Option<Records>,
    /// The reference counts of each pool.
    pub(super) refcounts: Vec<Option<Vec<u16>>>,
}

impl Linux<'_, '_> {
    /// Reads them, and the host's tables unless they are read already. The CPUs get their vCPUs and their calls.
    pub(super) fn gather(
        &mut self,
        leads: &Leads<'_>,
        host: &mut Option<Tables>,
    ) -> Result<Gathered, TargetError> {
        let vms = vms::Layout::probe(&self.memory, self.kernel);
        let locks = locks::probe(&self.memory, self.kernel);
        let calls = calls::Layout::probe(&self.memory, self.kernel);
        let (cpus, source): (&[Cpu], _) = (self.cpus, self.kernel.source().to_owned());
        let code = &mut Code {
            symbols: leads.symbols,
            rules: &mut |linked| self.kernel.rules(linked),
        };
        let common = self.common;
        let host_regime = host.as_ref().map(|host| host.regime.clone());
        let (mut of_vms, mut places) = (Default::default(), Vec::new());
        let (mut of_records, mut refcounts) = (Default::default(), Vec::new());
        self.memory.gather(&mut [
            &mut |memory| tables::walk(host.as_mut(), &mut |spans| memory.read_all(spans)),
            &mut |memory| {
                let vms = match &vms {
                    Ok(layout) => layout.read(memory, cpus)?,
                    Err(reason) => Vms::without(reason),
                };
                let host = host_regime.as_ref();
                let (mut guests, problems) =
                    tables::of_guests(&vms.roots, host, common, cpus, &source);
                let walked = tables::walk(&mut guests, &mut |spans| memory.read_all(spans));
                let words = locks.read(memory, &vms.vms, cpus)?;
                walked?;
                of_vms = (vms, guests, words, problems);
                Ok(())
            },
            &mut |memory| {
                places = calls::read(memory, calls, code, cpus)?;
                Ok(())
            },
            &mut |memory| {
                if let Some(place) = &leads.records {
                    of_records = records::read(memory, place, leads.ram)?;
                }
                Ok(())
            },
            &mut |memory| {
                let Some(place) = &leads.records else {
                    return Ok(());
                };
                let pools = leads.pools.iter();
                let counts = pools.map(|pages| records::refcounts(memory, place, *pages));
                // All of them ask before one gives up.
                let counts: Vec<_> = counts.collect();
                refcounts = counts.into_iter().collect::<Result<_, _>>()?;
                Ok(())
            },
        ])?;
        let (vms, guests, words, problems) = of_vms;
        let records: Option<Records> = of_records;
        let of_records = records.iter().flat_map(|records| &records.problems);
        self.problems
            .extend(of_records.chain(&vms.problems).cloned());
        self.problems.extend(problems);
        self.facts.extend(guests.iter().flat_map(Tables::facts));
        for (cpu, place) in self.cpus.iter_mut().zip(places) {
            (cpu.symbol, cpu.calls) = place;
        }
        for &(place, handle, number) in &vms.loaded {
            if let Some(cpu) = self.cpus.get_mut(place) {
                cpu.vcpu = Some((handle, number));
            }
        }
        Ok(Gathered {
            vms,
            guests,
            locks: words,
            no_locks: locks.note,
            records,
            refcounts,
        })
    }
}
