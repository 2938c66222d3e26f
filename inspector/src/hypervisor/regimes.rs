//! The two regimes: registers, tables, and what the entries mean.

use super::description::{Description, RegimeFacts};
use super::layout::Layout;
use super::meaning::{Meaning, Side};
use crate::arch::regime::{El2Stage1, IdRegisters, Regime, RegimeError, Stage};
use crate::arch::walk::walk_together;
use crate::model::{Cpu, EntryKind, Fact, RegimeCapture};
use crate::target::{Registers, Target, TargetError};

/// The address in a `TTBR0_EL2` or `VTTBR_EL2`: bits 47:1, without ASID or VMID and CnP.
const BADDR: u64 = 0x0000_ffff_ffff_fffe;

/// Whether every descriptor was read and has a form that the architecture knows.
pub(super) fn is_complete(regime: &RegimeCapture) -> bool {
    regime.entries.iter().all(|entry| {
        !matches!(
            entry.kind,
            EntryKind::Reserved | EntryKind::Loop | EntryKind::Unreadable
        )
    })
}

/// Walks both regimes.
pub(super) fn capture(
    target: &mut dyn Target,
    description: &Description,
    cpus: &[Cpu],
    facts: &mut Vec<Fact>,
    problems: &mut Vec<String>,
) -> Result<Vec<RegimeCapture>, TargetError> {
    let mut known = Vec::new();
    let host = ("host-s2", Side::Host, description.host_s2);
    let hyp = ("hyp-s1", Side::Hyp, description.hyp_s1);
    for (name, side, at) in [host, hyp] {
        if at.root == 0 {
            problems.push(format!("{name}: hyp has no root table yet"));
            continue;
        }
        let Some((values, source)) = values(side, at, description, cpus) else {
            problems.push(format!(
                "{name}: no CPU's registers lead to the root at {:#x}, so its geometry is unknown",
                at.root
            ));
            continue;
        };
        match regime(side, at.root, &values) {
            Ok(regime) => {
                note(name, &regime, description, &source, facts);
                known.push((name, side, regime));
            }
            Err(error) => problems.push(format!("{name}: {error} ({source})")),
        }
    }
    let regimes: Vec<_> = known.iter().map(|(_, _, regime)| regime).collect();
    let walks = walk_together(&regimes, &mut |spans| target.read_phys(spans))?;
    let walked = known.into_iter().zip(walks);
    let layout = Layout::a();
    Ok(walked
        .map(|((name, side, regime), walk)| {
            let found = walk.problems.iter();
            problems.extend(found.map(|problem| format!("{name}: {problem}")));
            let meaning = Meaning {
                layout: &layout,
                records: None,
                ram: &description.ram,
                page_shift: regime.granule.shift(),
            };
            let entries = walk.entries.into_iter();
            let entries = entries.map(|entry| meaning.entry(side, entry));
            RegimeCapture {
                name: name.to_owned(),
                regime,
                tables: walk.tables,
                entries: entries.collect(),
            }
        })
        .collect())
}

/// Names the stage 2 that each CPU's `VTTBR_EL2` leads to, if it was captured.
pub(super) fn name_stage2(cpus: &mut [Cpu], regimes: &[RegimeCapture]) {
    for cpu in cpus {
        let get = |name| cpu.registers.get(name);
        let (Some(vttbr), Some(vtcr)) = (get("VTTBR_EL2"), get("VTCR_EL2")) else {
            continue;
        };
        let hcr = get("HCR_EL2").unwrap_or(0);
        let Ok(used) = Regime::stage2(vttbr, vtcr, hcr, IdRegisters::of(&cpu.registers)) else {
            continue;
        };
        let leads = |captured: &&RegimeCapture| {
            captured.regime.stage == Stage::Two && captured.regime.root == used.root
        };
        cpu.stage2 = regimes.iter().find(leads).map(|found| found.name.clone());
    }
}

/// The register values that say how to read the tables.
struct Values {
    control: u64,
    mair: u64,
    hcr: u64,
    sctlr: u64,
    id: IdRegisters,
}

/// Those of the first CPU that uses the tables; else what the hypervisor says it will use.
fn values(
    side: Side,
    at: RegimeFacts,
    description: &Description,
    cpus: &[Cpu],
) -> Option<(Values, String)> {
    let (base, control) = match side {
        Side::Hyp => ("TTBR0_EL2", "TCR_EL2"),
        _ => ("VTTBR_EL2", "VTCR_EL2"),
    };
    let user = cpus.iter().find(|cpu| {
        let registers = &cpu.registers;
        registers
            .get(base)
            .is_some_and(|word| word & BADDR == at.root & BADDR)
            && registers.get(control).is_some()
    });
    let or_zero = |registers: &Registers, name| registers.get(name).unwrap_or(0);
    if let Some(cpu) = user {
        let registers = &cpu.registers;
        let values = Values {
            control: or_zero(registers, control),
            mair: or_zero(registers, "MAIR_EL2"),
            hcr: or_zero(registers, "HCR_EL2"),
            sctlr: or_zero(registers, "SCTLR_EL2"),
            id: IdRegisters::of(registers),
        };
        return Some((values, format!("{control} of CPU {}", cpu.number)));
    }
    let values = Values {
        control: at.control?,
        mair: at.mair.unwrap_or(0),
        hcr: description.hcr.unwrap_or(0),
        sctlr: 0,
        id: description.id,
    };
    Some((
        values,
        format!("{control} in {}", description.register_source),
    ))
}

fn regime(side: Side, root: u64, values: &Values) -> Result<Regime, RegimeError> {
    match side {
        Side::Hyp => {
            let registers = El2Stage1 {
                tcr: values.control,
                mair: values.mair,
                hcr: values.hcr,
                sctlr: values.sctlr,
            };
            Regime::el2_stage1_at(root, registers, values.id)
        }
        _ => Regime::stage2_at(root, values.control, values.hcr, values.id),
    }
}

fn note(name: &str, regime: &Regime, from: &Description, source: &str, facts: &mut Vec<Fact>) {
    facts.push(Fact {
        what: format!("{name} root"),
        value: format!("{:#x}", regime.root),
        source: from.source.clone(),
    });
    facts.push(Fact {
        what: format!("{name} geometry"),
        value: format!(
            "{} bits in, {} out, level {}, {} root {}, {} KiB",
            regime.ia_bits,
            regime.oa_bits,
            regime.start_level,
            regime.root_pages,
            if regime.root_pages == 1 {
                "page"
            } else {
                "pages"
            },
            regime.granule.bytes() >> 10
        ),
        source: source.to_owned(),
    });
}
