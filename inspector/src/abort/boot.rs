//! What tells one boot's EL2 from the next one's, of which breakpoints know nothing.

use super::plan::Plan;
use super::trap::HOST_STAGE2;
use crate::model::{HypervisorKind, System};
use crate::target::Registers;

/// hyp's vector tables: while a client is attached to its own debugger, CPUs that come on take the second for the first.
const HYP_VECTORS: [&str; 2] = ["el2_vectors", "attached_vectors"];

/// EL2 as it was when the breakpoints were set.
#[derive(Debug)]
pub(super) struct Boot {
    /// The vector tables for the host: what `VBAR_EL2` holds while the host runs.
    vectors: Vec<u64>,
    /// `TTBR0_EL2` of each CPU: EL2's own tables, whoever runs.
    tables: Vec<u64>,
    /// `VTTBR_EL2` of the CPUs that ran their host.
    hosts: Vec<u64>,
    /// hyp's first instruction, at its physical address: after a reset the MMU is off. hyp is in the same place after each,
    /// and in less than a second, so that nothing else tells. Linux takes longer, and is slid.
    pub(super) start: Option<u64>,
}

impl Boot {
    /// The boot that `system` was captured in, and that `plan` was made of.
    pub(super) fn of(system: &System, plan: &Plan) -> Self {
        let all = |name: &str| {
            system
                .cpus
                .iter()
                .filter_map(|cpu| cpu.registers.get(name))
                .collect()
        };
        let host = system
            .cpus
            .iter()
            .filter(|cpu| cpu.stage2.as_deref() == Some(HOST_STAGE2));
        // A vector table is 2 KiB, aligned so.
        let vectors = plan.entries.iter().map(|entry| entry & !0x7ff);
        let is_hyp = system.hypervisor.kind == HypervisorKind::Hyp;
        let named = HYP_VECTORS.iter().filter(|_| is_hyp);
        let named = named.filter_map(|name| Some(system.symbols.find(name)?.start));
        Self {
            vectors: vectors.chain(named).collect(),
            tables: all("TTBR0_EL2"),
            hosts: host
                .filter_map(|cpu| cpu.registers.get("VTTBR_EL2"))
                .collect(),
            start: Some(system.hypervisor.kind)
                .filter(|kind| *kind == HypervisorKind::Hyp)
                .and_then(|_| plan.physical(system.symbols.find("_start")?.start)),
        }
    }

    /// Whether a CPU stands at the first instruction.
    pub(super) fn begins(&self, cpus: &[Registers]) -> bool {
        let at_start = |cpu: &Registers| self.start.is_some() && cpu.get("pc") == self.start;
        cpus.iter().any(at_start)
    }

    /// Whether CPUs that stand so are of another boot: none has the vectors for the host, and none runs a guest, for which
    /// there are others.
    pub(super) fn is_over(&self, cpus: &[Registers]) -> bool {
        let of_host = |cpu: &Registers| {
            cpu.get("VBAR_EL2")
                .is_none_or(|vectors| self.vectors.contains(&vectors))
        };
        let in_guest = |cpu: &Registers| {
            cpu.get("TTBR0_EL2")
                .is_some_and(|tables| self.tables.contains(&tables))
                && cpu
                    .get("VTTBR_EL2")
                    .is_some_and(|vttbr| !self.hosts.contains(&vttbr))
        };
        !cpus.iter().any(|cpu| of_host(cpu) || in_guest(cpu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::system;
    use crate::model::{Symbol, Symbols};

    const HOST: [u64; 3] = [0x40_4020_0000, 0x4030_0000, 0x1_4031_0000];

    fn registers([vectors, tables, stage2]: [u64; 3]) -> Registers {
        let named = [
            ("VBAR_EL2", vectors),
            ("TTBR0_EL2", tables),
            ("VTTBR_EL2", stage2),
        ];
        Registers(named.map(|(name, value)| (name.to_owned(), value)).into())
    }

    #[test]
    fn a_guest_is_of_the_same_boot_and_other_vectors_are_not() {
        let mut system = system();
        for cpu in &mut system.cpus {
            cpu.registers = registers(HOST);
            cpu.stage2 = Some(HOST_STAGE2.to_owned());
        }
        let plan = Plan {
            entries: vec![HOST[0] + 0x400],
            ..Plan::default()
        };
        let boot = Boot::of(&system, &plan);
        let [vectors, tables, stage2] = HOST;
        for (cpus, over) in [
            (vec![HOST], false),
            (vec![[vectors + 0x8000, tables, 0x2_5000_0000]], false),
            (vec![[vectors + 0x8000, tables, 0x2_5000_0000], HOST], false),
            // The same places, slid elsewhere.
            (vec![[vectors + 0x10_0000, tables, stage2]], true),
            // Out of reset, or under a stub.
            (vec![[0, 0, 0]], true),
            (vec![[0x4020_0000, 0, stage2]], true),
        ] {
            let cpus: Vec<_> = cpus.into_iter().map(registers).collect();
            assert_eq!(boot.is_over(&cpus), over, "{cpus:?}");
        }
        // hyp with a client at its own debugger.
        let attached = [registers([vectors + 0x800, tables, stage2])];
        assert!(boot.is_over(&attached));
        system.symbols = Symbols::new(vec![Symbol {
            name: "attached_vectors".to_owned(),
            address: vectors + 0x800,
            size: 0x800,
        }]);
        assert!(!Boot::of(&system, &plan).is_over(&attached));
        // A server without these registers cannot tell.
        assert!(!boot.is_over(&[Registers::default()]));
    }
}
