//! From registers, or the hypervisor's copies of them, to regimes.

use crate::arch::regime::{El2Stage1, IdRegisters, Regime, RegimeError, vmid};
use crate::model::{Cpu, Fact};
use crate::target::Registers;

/// `SCTLR_EL2.M`: EL2's own translation is on.
const SCTLR_M: u64 = 1;
/// `HCR_EL2.VM`: stage 2 is on.
const HCR_VM: u64 = 1;
/// `HCR_EL2.TGE`: EL0's exceptions go to EL2, as where the kernel itself runs there.
const HCR_TGE: u64 = 1 << 27;
/// `HCR_EL2.E2H`.
pub(super) const HCR_E2H: u64 = 1 << 34;

/// Whether the kernel itself runs at EL2 (VHE) on a CPU: then nothing confines it.
pub(super) fn is_vhe(registers: &Registers) -> bool {
    let both = HCR_TGE | HCR_E2H;
    registers
        .get("HCR_EL2")
        .is_some_and(|hcr| hcr & both == both)
}

/// Whether EL2's own translation is on; `None` where its registers are not known.
pub(super) fn el2_is_on(registers: &Registers) -> Option<bool> {
    Some(registers.get("SCTLR_EL2")? & SCTLR_M != 0)
}

/// Whether the target has EL2's registers: a memory dump has none.
pub(super) fn are_known(cpus: &[Cpu]) -> bool {
    cpus.iter()
        .any(|cpu| cpu.registers.get("TTBR0_EL2").is_some())
}

/// EL2's own regime, by the first CPU on which it is on and makes sense; with where it comes from.
pub(super) fn hyp(cpus: &[Cpu]) -> Option<Result<(Regime, String), String>> {
    let cpu = cpus
        .iter()
        .find(|cpu| el2_is_on(&cpu.registers) == Some(true) && !is_vhe(&cpu.registers))?;
    let registers = &cpu.registers;
    let get = |name| registers.get(name).unwrap_or(0);
    let control = El2Stage1 {
        tcr: registers.get("TCR_EL2")?,
        mair: get("MAIR_EL2"),
        hcr: get("HCR_EL2"),
        sctlr: get("SCTLR_EL2"),
    };
    let regime = Regime::el2_stage1(
        registers.get("TTBR0_EL2")?,
        control,
        IdRegisters::of(registers),
    );
    Some(match regime {
        Ok(regime) => Ok((
            regime,
            format!("TTBR0_EL2 and TCR_EL2 of CPU {}", cpu.number),
        )),
        Err(error) => Err(format!("hyp-s1: {error} (CPU {})", cpu.number)),
    })
}

/// The host's stage 2 as CPUs have it.
pub(super) struct Active {
    pub(super) vttbr: u64,
    pub(super) vtcr: u64,
    pub(super) source: String,
}

/// The host's stage 2 by the registers of a CPU that is not in a guest: the host has VMID 0.
pub(super) fn host_by_registers(cpus: &[Cpu]) -> Option<Active> {
    let mut hosts = cpus.iter().filter(|cpu| runs_host(&cpu.registers));
    hosts.find_map(|cpu| {
        let get = |name| cpu.registers.get(name);
        Some(Active {
            vttbr: get("VTTBR_EL2")?,
            vtcr: get("VTCR_EL2")?,
            source: format!("VTTBR_EL2 and VTCR_EL2 of CPU {}", cpu.number),
        })
    })
}

/// Whether a CPU is under the host's stage 2.
fn runs_host(registers: &Registers) -> bool {
    let (hcr, vttbr) = (registers.get("HCR_EL2"), registers.get("VTTBR_EL2"));
    hcr.is_some_and(|hcr| hcr & HCR_VM != 0)
        && vttbr.is_some_and(|vttbr| vttbr != 0 && vmid(vttbr) == 0)
}

/// What a stage 2 takes from the CPU besides its own two values.
#[derive(Clone, Copy, Default)]
pub(super) struct Common {
    hcr: u64,
    id: IdRegisters,
}

impl Common {
    /// For the host: by a CPU that runs it, or else by the value that the hypervisor keeps for HCR_EL2. A guest's may differ:
    /// Linux 6.1 uses FWB for guests only.
    pub(super) fn of_host(cpus: &[Cpu], kept: Option<u64>) -> Self {
        let host = cpus.iter().find(|cpu| runs_host(&cpu.registers));
        let hcr = host.and_then(|cpu| cpu.registers.get("HCR_EL2")).or(kept);
        let any = host.or(cpus.first()).map(Self::of_cpu).unwrap_or_default();
        Self {
            hcr: hcr.unwrap_or(any.hcr),
            ..any
        }
    }

    /// With these ID registers instead of the CPU's.
    pub(super) fn with_id(self, id: IdRegisters) -> Self {
        Self { id, ..self }
    }

    /// For what a CPU uses now.
    pub(super) fn of_cpu(cpu: &Cpu) -> Self {
        Self {
            hcr: cpu.registers.get("HCR_EL2").unwrap_or(0),
            id: IdRegisters::of(&cpu.registers),
        }
    }

    /// By VTTBR_EL2's value.
    pub(super) fn stage2(self, vttbr: u64, vtcr: u64) -> Result<Regime, RegimeError> {
        Regime::stage2(vttbr, vtcr, self.hcr, self.id)
    }

    /// By the root's physical address.
    pub(super) fn stage2_at(self, root: u64, vtcr: u64) -> Result<Regime, RegimeError> {
        Regime::stage2_at(root, vtcr, self.hcr, self.id)
    }
}

/// The facts about a regime: where its root is and how its tables are read.
pub(super) fn facts(name: &str, regime: &Regime, source: &str) -> [Fact; 2] {
    let pages = match regime.root_pages {
        1 => "page",
        _ => "pages",
    };
    let fact = |what: &str, value: String| Fact {
        what: format!("{name} {what}"),
        value,
        source: source.to_owned(),
    };
    [
        fact("root", format!("{:#x}", regime.root)),
        fact(
            "geometry",
            format!(
                "{} bits in, {} out, level {}, {} root {pages}, {} KiB",
                regime.ia_bits,
                regime.oa_bits,
                regime.start_level,
                regime.root_pages,
                regime.granule.bytes() >> 10
            ),
        ),
    ]
}
