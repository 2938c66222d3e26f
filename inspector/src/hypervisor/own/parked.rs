//! CPUs that hyp's own debugger has stopped.
//!
//! Such a CPU stands in the debugger's parking loop, which is all that another debugger's registers show. What it was
//! doing before, and goes on with afterwards, the image keeps in its static `PARKED`: one element a CPU, with the
//! registers as members. An image without that debugger has none.

use super::variable::{Variable, little_endian};
use super::{defined_beside_hyp, source};
use crate::image::{ImageError, Images, Shape};
use crate::model::{Cpu, Fact};
use crate::target::{Registers, Target, TargetError};

const PARKED: &str = "PARKED";

/// Members that are named as their register but for the case.
const SYSTEM: [&str; 22] = [
    "elr_el2",
    "esr_el2",
    "far_el2",
    "hcr_el2",
    "hpfar_el2",
    "mair_el2",
    "sctlr_el2",
    "spsr_el2",
    "tcr_el2",
    "tpidr_el2",
    "ttbr0_el2",
    "ttbr1_el2",
    "vbar_el2",
    "vtcr_el2",
    "vttbr_el2",
    "id_aa64mmfr0_el1",
    "id_aa64mmfr1_el1",
    "id_aa64mmfr2_el1",
    "sctlr_el1",
    "tcr_el1",
    "ttbr0_el1",
    "ttbr1_el1",
];

/// Gives each parked CPU the registers that hyp's debugger saved, and no others: whatever looks at the machine then sees
/// what hyp's own channel shows. The fact says which CPUs these are.
pub(in crate::hypervisor) fn uncover(
    target: &mut dyn Target,
    images: &mut Images,
    cpus: &mut [Cpu],
    problems: &mut Vec<String>,
) -> Result<Option<Fact>, TargetError> {
    if !defined_beside_hyp(images, PARKED) {
        return Ok(None);
    }
    let layout = match Layout::of(images) {
        Ok(layout) => layout,
        Err(error) => {
            problems.push(error.to_string());
            return Ok(None);
        }
    };
    let variable = match Variable::read(target, images, PARKED)? {
        Ok(variable) => variable,
        Err(problem) => {
            problems.push(problem);
            return Ok(None);
        }
    };
    let mut parked = Vec::new();
    let elements = variable.bytes.chunks_exact(layout.size);
    for (cpu, element) in cpus.iter_mut().zip(elements) {
        if layout.parked.value(element).is_some_and(|flag| flag != 0) {
            *cpu = Cpu::new(cpu.number, layout.registers(element));
            parked.push(cpu.number.to_string());
        }
    }
    Ok((!parked.is_empty()).then(|| Fact {
        what: "parked".to_owned(),
        value: format!(
            "CPU {}: shown are the registers that hyp's debugger saved",
            parked.join(", ")
        ),
        source: source(images, PARKED),
    }))
}

/// Where an element of `PARKED` keeps what.
struct Layout {
    /// Bytes of an element, at least one.
    size: usize,
    /// Not 0 for a CPU that is parked.
    parked: Part,
    /// By the names that targets use.
    registers: Vec<(String, Part)>,
}

/// A number in an element.
struct Part {
    offset: u64,
    size: u64,
}

impl Part {
    fn value(&self, element: &[u8]) -> Option<u64> {
        little_endian(element, self.offset, self.size)
    }
}

impl Layout {
    /// Asks for every member that is known; a register without one is left out.
    fn of(images: &mut Images) -> Result<Self, ImageError> {
        let first = images.place("PARKED[]")?;
        let mut member = |name: &str| {
            let place = images.place(&format!("PARKED[].{name}"))?;
            let part = Part {
                offset: place.address.wrapping_sub(first.address),
                size: place.size,
            };
            Ok((part, place.shape))
        };
        let (parked, _) = member("parked")?;
        let mut registers = Vec::new();
        if let Ok((
            all,
            Shape::Array {
                count: count @ 1..=31,
            },
        )) = member("x")
        {
            let size = all.size / count;
            registers.extend((0..count).map(|n| {
                let offset = all.offset.wrapping_add(n * size);
                (format!("x{n}"), Part { offset, size })
            }));
        }
        let mut named = |name: &str, register: String| {
            registers.extend(member(name).ok().map(|(part, _)| (register, part)));
        };
        named("sp", "sp".to_owned());
        named("pc", "pc".to_owned());
        named("pstate", "cpsr".to_owned());
        for name in SYSTEM {
            named(name, name.to_ascii_uppercase());
        }
        Ok(Self {
            size: usize::try_from(first.size).unwrap_or(usize::MAX).max(1),
            parked,
            registers,
        })
    }

    fn registers(&self, element: &[u8]) -> Registers {
        let values = self
            .registers
            .iter()
            .filter_map(|(name, part)| Some((name.clone(), part.value(element)?)));
        let mut registers = Registers(values.collect());
        // Without VHE (ID_AA64MMFR1_EL1.VH = 0) there is no such register, and the member says 0.
        let vh = registers.get("ID_AA64MMFR1_EL1").map(|id| id >> 8 & 0xf);
        if vh.is_none_or(|vh| vh == 0) {
            registers.0.remove("TTBR1_EL2");
        }
        registers
    }
}
