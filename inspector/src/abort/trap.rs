//! What the hardware says at the entry, and what is there at the address.

use super::choice::{choose, region};
use super::{Fault, Memory, Walk};
use crate::addr::Span;
use crate::arch::esr;
use crate::arch::walk::End;
use crate::model::{Entry, EntryKind, Owner, OwnerRange, RegimeCapture, System};
use crate::target::Registers;

/// The regime whose holes host aborts are about.
pub const HOST_STAGE2: &str = "host-s2";

/// The stage-2 abort in a CPU's syndrome registers, by the tables as they are now; `None` when the CPU came to EL2 for
/// something else.
pub fn fault(system: &System, registers: &Registers) -> Option<Fault> {
    let esr = registers.get("ESR_EL2")?;
    let (far, hpfar) = (registers.get("FAR_EL2")?, registers.get("HPFAR_EL2")?);
    if !esr::is_abort_from_below(esr) {
        return None;
    }
    let ipa = esr::faulting_ipa(esr, hpfar, far);
    let mut fault = Fault {
        far,
        hpfar,
        ipa,
        memory: Memory::Unknown,
        page: None,
        walk: None,
        choice: None,
    };
    let host = system
        .regimes
        .iter()
        .find(|regime| regime.name == HOST_STAGE2);
    let (Some(ipa), Some(host)) = (ipa, host) else {
        return Some(fault);
    };
    let entry = host.entry_of(ipa);
    let translation = host.translate(ipa);
    let (region, is_ram) = region(&system.ram, ipa, host.regime.ia_bits);
    fault.memory = match (&translation.end, is_ram) {
        (End::OutOfRange { .. }, _) => Memory::Beyond,
        (_, true) => ram(system, ipa, region, entry),
        (_, false) => Memory::Mmio {
            gap: region,
            owner: entry.and_then(annotated),
        },
    };
    fault.page = page(system, ipa, host.regime.granule.bytes());
    let last = translation.steps.last().map(|step| step.level);
    if let (End::Hole { .. }, Some(level)) = (&translation.end, last) {
        fault.choice = Some(choose(&host.regime, ipa, level, region));
    }
    fault.walk = Some(Walk {
        regime: host.name.clone(),
        decode: host.regime.clone(),
        translation,
        entry: entry.cloned(),
    });
    Some(fault)
}

/// The owner that an annotation names. One that is there while an entry is changed names none.
fn annotated(entry: &Entry) -> Option<Owner> {
    let is_annotation = entry.kind == EntryKind::Annotation;
    let owner = entry.owner.filter(|_| is_annotation);
    owner.filter(|owner| *owner != Owner::Locked)
}

/// RAM, and whether an annotation keeps it from the host.
fn ram(system: &System, ipa: u64, region: Span, entry: Option<&Entry>) -> Memory {
    let Some(owner) = entry.and_then(annotated) else {
        return Memory::Ram { region };
    };
    let section = match owner {
        Owner::Hyp => section(system, ipa),
        _ => None,
    };
    Memory::Taken {
        region,
        owner,
        section,
    }
}

/// The part of the hypervisor's own memory, as closely as it is known: a table, a section, a pool.
fn section(system: &System, pa: u64) -> Option<String> {
    let covers = |regime: &&RegimeCapture| {
        let size = regime.regime.granule.bytes();
        let mut tables = regime.tables.iter();
        tables.any(|table| Span::new(table.pa, size).contains(pa))
    };
    let table = system.regimes.iter().find(covers);
    let table = table.map(|regime| format!("tables of {}", regime.name));
    let sections = system.sections.iter();
    let mut parts = sections.map(|section| (&section.name, section.pa));
    let pools = system.pools.iter();
    let mut pools = pools.map(|pool| (&pool.name, pool.pages));
    let part = parts
        .find(|(_, pages)| pages.contains(pa))
        .or_else(|| pools.find(|(_, pages)| pages.contains(pa)));
    table.or_else(|| part.map(|(name, _)| name.clone()))
}

/// The state of one page on all sides.
pub fn page(system: &System, pa: u64, size: u64) -> Option<OwnerRange> {
    let range = system.owners.iter().find(|range| range.pa.contains(pa))?;
    range.clip(Span::new(pa & !(size - 1), size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abort::Memory;
    use crate::abort::testing::before;

    #[test]
    fn an_entry_that_is_being_changed_is_nobodys() {
        let mut system = before();
        let mut entries = system.regimes[0].entries.iter_mut();
        let entry = entries.find(|entry| entry.kind == EntryKind::Annotation);
        let entry = entry.expect("hyp's");
        let ipa = entry.leaf.ia;
        let words = [
            ("ESR_EL2", 0x9200_0007),
            ("FAR_EL2", ipa),
            ("HPFAR_EL2", ipa >> 12 << 4),
        ];
        let words = words.map(|(name, word)| (name.to_owned(), word));
        let registers = Registers(words.into());
        entry.owner = Some(Owner::Locked);
        let memory = |system| fault(system, &registers).expect("an abort").memory;
        assert!(matches!(memory(&system), Memory::Ram { .. }));
        assert!(matches!(memory(&before()), Memory::Taken { .. }));
    }
}
