//! The last abort that each CPU took to EL2 from below: the one being handled, or the one handled last.

use super::walk::{WalkView, end_name, walk};
use super::{Cell, Role, Table, address, address_or_dash, dash, plain};
use crate::arch::esr;
use crate::model::{Cpu, System};

/// An abort from EL1 or EL0, as EL2's syndrome registers have it.
#[derive(Clone, PartialEq, Debug)]
pub struct Abort<'a> {
    /// `ESR_EL2`.
    pub esr: u64,
    /// `FAR_EL2`: the virtual address.
    pub far: Option<u64>,
    /// `HPFAR_EL2`.
    pub hpfar: Option<u64>,
    /// The intermediate physical address, where the syndrome vouches for `HPFAR_EL2`.
    pub ipa: Option<u64>,
    /// `ELR_EL2`: the instruction that it returns to.
    pub from: Option<u64>,
    /// That instruction by name.
    pub symbol: Option<String>,
    /// Where the IPA leads now, in the stage 2 that is active on the CPU.
    pub now: Option<WalkView<'a>>,
}

/// The abort in this CPU's syndrome registers; `None` when it came to EL2 for something else, or never did.
pub fn abort<'a>(system: &'a System, cpu: &Cpu) -> Option<Abort<'a>> {
    let get = |name| cpu.registers.get(name);
    let esr = get("ESR_EL2").filter(|esr| esr::is_abort_from_below(*esr))?;
    let (far, hpfar, from) = (get("FAR_EL2"), get("HPFAR_EL2"), get("ELR_EL2"));
    let regime = cpu.stage2.as_deref();
    // Without a stage 2 the fault was stage 1's, and HPFAR_EL2 is an older one's.
    let ipa = regime.and(esr::faulting_ipa(esr, hpfar?, far?));
    Some(Abort {
        esr,
        far,
        hpfar,
        ipa,
        from,
        symbol: from.and_then(|pc| system.symbols.name_of(pc)),
        now: regime
            .zip(ipa)
            .and_then(|(name, ipa)| walk(system, name, ipa)),
    })
}

impl Abort<'_> {
    /// What the IPA leads to now: `host-s2: hole`.
    pub fn now_text(&self) -> Option<String> {
        let now = self.now.as_ref()?;
        let end = end_name(&now.translation.end);
        Some(format!("{}: {end}", now.regime.name))
    }
}

/// The aborts as rows, one per CPU that has one; `None` when none has.
pub fn aborts_table(system: &System) -> Option<Table> {
    let mut table = Table::new(&["CPU", "FROM", "WHAT", "FAR", "IPA", "NOW"]);
    for cpu in &system.cpus {
        let Some(abort) = abort(system, cpu) else {
            continue;
        };
        table.rows.push(vec![
            plain(cpu.number.to_string()),
            match &abort.symbol {
                Some(symbol) => Cell::new(Role::Symbol, symbol.as_str()),
                None => address_or_dash(abort.from),
            },
            plain(esr::describe(abort.esr)),
            address_or_dash(abort.far),
            abort.ipa.map_or_else(dash, address),
            abort.now_text().map_or_else(dash, plain),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::system;

    /// The first CPU with these syndrome registers, under the host's stage 2.
    fn aborted(esr: u64) -> System {
        let mut system = system();
        let cpu = &mut system.cpus[0];
        cpu.stage2 = Some("host-s2".to_owned());
        for (name, value) in [
            ("ESR_EL2", esr),
            ("FAR_EL2", 0xffff_8000_0001_2345),
            // Beyond what the made up tables map.
            ("HPFAR_EL2", 0x70_0000),
            ("ELR_EL2", 0xffff_8000_0100_0000),
        ] {
            cpu.registers.0.insert(name.to_owned(), value);
        }
        system
    }

    #[test]
    fn an_abort_from_below_is_told_with_its_ipa() {
        for (syndrome, ipa) in [
            (0x9200_0046, Some(0x7000_0345)),
            // On a walk, FAR_EL2 is not the address that was looked for.
            (0x8200_0084, Some(0x7000_0000)),
            // A permission fault leaves HPFAR_EL2 unknown, unless a walk met it.
            (0x9200_000f, None),
            (0x9200_008f, Some(0x7000_0000)),
        ] {
            let system = aborted(syndrome);
            let found = abort(&system, &system.cpus[0]).expect("an abort");
            assert_eq!(found.ipa, ipa, "{syndrome:#x}");
            let now = found.now.as_ref().map(|walk| walk.translation.ia);
            assert_eq!(now, ipa, "{syndrome:#x}");
        }
    }

    #[test]
    fn hypercalls_and_aborts_of_el2_itself_are_none() {
        for syndrome in [0x5a00_0000, 0x9600_0046, 0x8600_0004, 0] {
            let system = aborted(syndrome);
            assert_eq!(abort(&system, &system.cpus[0]), None, "{syndrome:#x}");
            assert!(aborts_table(&system).is_none(), "{syndrome:#x}");
        }
    }

    #[test]
    fn without_a_stage_2_there_is_no_ipa() {
        let mut system = aborted(0x9200_0046);
        system.cpus[0].stage2 = None;
        let found = abort(&system, &system.cpus[0]).expect("an abort");
        assert_eq!((found.ipa, found.now), (None, None));
    }
}
