//! CPUs and the registers that control translation.

use super::{Cell, Role, Table, address, address_or_dash, dash, dim, plain};
use crate::model::{Cpu, Frame, System};

/// The registers of `cpus`, in its order.
pub const TRANSLATION_REGISTERS: [&str; 14] = [
    "HCR_EL2",
    "SCTLR_EL2",
    "TCR_EL2",
    "TTBR0_EL2",
    "TTBR1_EL2",
    "MAIR_EL2",
    "VTCR_EL2",
    "VTTBR_EL2",
    "VBAR_EL2",
    "ESR_EL2",
    "FAR_EL2",
    "HPFAR_EL2",
    "ELR_EL2",
    "SPSR_EL2",
];

/// Every CPU as a row; vCPUs have a column where any is loaded.
pub fn cpus_table(system: &System) -> Table {
    let vcpus = system.cpus.iter().any(|cpu| cpu.vcpu.is_some());
    let mut table = Table::new(&["CPU", "EL", "PC", "SYMBOL", "STAGE2"]);
    table.titles.extend(vcpus.then_some("VCPU"));
    table.titles.extend(["VTTBR_EL2", "ESR_EL2"]);
    for cpu in &system.cpus {
        let mut row = vec![
            plain(cpu.number.to_string()),
            exception_level(cpu),
            address_or_dash(cpu.pc),
            symbol(cpu.symbol.as_deref()),
            cpu.stage2.as_deref().map_or_else(dash, plain),
        ];
        if vcpus {
            let loaded = |(vm, number): (u64, u64)| format!("{vm:#x}:{number}");
            let loaded = cpu.vcpu.map(loaded);
            row.push(loaded.map_or_else(dash, |vcpu| Cell::new(Role::Guest, vcpu)));
        }
        row.push(raw(cpu.registers.get("VTTBR_EL2")));
        row.push(raw(cpu.registers.get("ESR_EL2")));
        table.rows.push(row);
    }
    table
}

/// Where a CPU is and where it will return to, innermost first, as rows; lines have a column where any is known.
pub fn calls_table(cpu: &Cpu) -> Table {
    let frames = frames(cpu);
    let lines = frames.iter().any(|frame| frame.source.is_some());
    let mut table = Table::new(&["#", "PC", "SYMBOL"]);
    table.titles.extend(lines.then_some("SOURCE"));
    for (depth, frame) in frames.iter().enumerate() {
        let mut row = vec![
            dim(depth.to_string()),
            if frame.inlined {
                dim("inlined")
            } else {
                address(frame.pc)
            },
            symbol(frame.symbol.as_deref()),
        ];
        if lines {
            let source = frame.source.as_ref();
            row.push(source.map_or_else(dash, |source| plain(source.to_string())));
        }
        table.rows.push(row);
    }
    table
}

/// Where a CPU is, with the functions that were inlined there, and its calls.
pub fn frames(cpu: &Cpu) -> Vec<Frame> {
    let here = cpu.pc.map(|pc| Frame {
        source: cpu.source.clone(),
        ..Frame::interrupted(pc, cpu.symbol.clone())
    });
    let inlines = cpu.inlines.iter().cloned();
    inlines
        .chain(here)
        .chain(cpu.calls.iter().cloned())
        .collect()
}

fn symbol(name: Option<&str>) -> Cell {
    name.map_or_else(dash, |name| Cell::new(Role::Symbol, name))
}

fn exception_level(cpu: &Cpu) -> Cell {
    match cpu.el {
        Some(el @ 2..) => Cell::new(Role::Active, format!("EL{el}")),
        Some(el) => plain(format!("EL{el}")),
        None => dash(),
    }
}

fn raw(value: Option<u64>) -> Cell {
    value.map_or_else(dash, |value| Cell::new(Role::Raw, format!("{value:#x}")))
}

/// The translation registers as rows of name, value and the CPUs that hold it.
pub fn registers_table(system: &System) -> Table {
    let mut table = Table::new(&["REGISTER", "VALUE", "CPUS"]);
    for name in TRANSLATION_REGISTERS {
        let mut values: Vec<(u64, Vec<usize>)> = Vec::new();
        for cpu in &system.cpus {
            let Some(value) = cpu.registers.get(name) else {
                continue;
            };
            match values.iter_mut().find(|(known, _)| *known == value) {
                Some((_, cpus)) => cpus.push(cpu.number),
                None => values.push((value, vec![cpu.number])),
            }
        }
        for (value, cpus) in values {
            table.rows.push(vec![
                plain(name),
                raw(Some(value)),
                plain(number_list(&cpus)),
            ]);
        }
    }
    table
}

/// Ascending numbers with neighbours joined: `0-2,5`.
fn number_list(numbers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => parts.push((number, number)),
        }
    }
    let part = |(first, last): &(usize, usize)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_numbers_are_joined() {
        for (numbers, text) in [
            (&[][..], ""),
            (&[3], "3"),
            (&[0, 1, 2, 3], "0-3"),
            (&[0, 2, 3, 7], "0,2-3,7"),
        ] {
            assert_eq!(number_list(numbers), text);
        }
    }
}
