//! The road by symbols and types: hyp's variable `HYP`, read out of the machine's memory.

mod build;
mod calls;
mod parked;
mod variable;

pub(super) use build::keep_running;
pub(super) use calls::add as add_calls;
pub(super) use parked::uncover;

use super::description::{Description, LockPlace, RegimeFacts, in_order};
use super::{LOCK_SIZE, VARIABLE};
use crate::arch::regime::IdRegisters;
use crate::image::Images;
use crate::model::{Cpu, Section, Symbols};
use crate::target::{Target, TargetError};
use std::collections::BTreeMap;
use std::path::Path;
use variable::Variable;

/// The lock of the image's UART, which only an image has.
const CONSOLE: &str = "CONSOLE";
/// The image's copy of the registers by which its tables are read: for targets that have none, as a memory dump.
const TRANSLATION: &str = "TRANSLATION";

/// hyp is built for pages of 4 KiB only.
const GRANULE: u64 = 4096;

/// The hypercalls that hyp knows, by number.
pub(super) fn hypercalls() -> BTreeMap<u64, String> {
    [(16, "__pkvm_host_share_hyp".to_owned())].into()
}

/// Reads `HYP`. Where a part is missing the rest is read, and `problems` says what is not there.
pub(super) fn describe(
    target: &mut dyn Target,
    images: &mut Images,
    problems: &mut Vec<String>,
) -> Result<Option<Description>, TargetError> {
    let source = source(images, VARIABLE);
    let mut variable = match Variable::read(target, images, VARIABLE)? {
        Ok(variable) => variable,
        Err(problem) => {
            problems.push(problem);
            return Ok(None);
        }
    };
    if variable.bytes.iter().all(|byte| *byte == 0) {
        problems.push(format!(
            "hyp has not started yet: `{VARIABLE}` at {:#x} is all zero; let the machine run, or give the image that it runs",
            variable.pa
        ));
        return Ok(None);
    }
    let physvirt_offset = variable.number("HYP.physvirt_offset").unwrap_or(0);
    variable.physvirt_offset = physvirt_offset;
    let profile = variable.name("HYP.profile");
    // What a file says of a program that is not there reads as anything. A member that the file does not have is
    // another matter.
    let is_unnamed = profile.is_none() && variable.has("HYP.profile");
    if is_unnamed || physvirt_offset % GRANULE != 0 {
        problems.push(format!(
            "{source} is not what runs here: {:#x} holds something else; give the file of the build that runs, or none",
            variable.pa
        ));
        return Ok(None);
    }
    if variable.number("HYP.finalised") == Some(0) {
        let problem = "hyp has not finished its start, so tables and owners are not final: let the machine run";
        variable.problems.push(problem.to_owned());
    }
    let release = variable.text(target, "HYP.release")?;
    let ram = variable
        .memory(target, "HYP.regions", None)?
        .into_iter()
        .map(|(_, span)| span)
        .collect();
    let sections = variable.memory(target, "HYP.sections", Some("kind"))?;
    let root = |variable: &mut Variable<'_>, path| RegimeFacts {
        root: variable.number(path).unwrap_or(0),
        ..RegimeFacts::default()
    };
    let host_s2 = root(&mut variable, "HYP.host.pgt.root");
    let hyp_s1 = root(&mut variable, "HYP.hyp.pgt.root");
    let locks = [
        ("host", "HYP.host.lock"),
        ("hyp", "HYP.hyp.lock"),
        ("host-pool", "HYP.host.pool.lock"),
        ("hyp-pool", "HYP.hyp.pool.lock"),
    ];
    let mut locks: Vec<_> = locks
        .iter()
        .filter_map(|(name, path)| variable.lock(name, path))
        .collect();
    let pools = ["host", "hyp"]
        .iter()
        .filter_map(|side| variable.pool(side))
        .collect();
    let problems = variable.problems;
    locks.extend(console(images));
    Ok(Some(Description {
        source,
        release,
        build_id: images.build_id_of(VARIABLE),
        profile: profile.unwrap_or_default(),
        granule: GRANULE,
        physvirt_offset,
        host_s2,
        hyp_s1,
        hcr: None,
        id: IdRegisters::default(),
        register_source: String::new(),
        ram: in_order(ram),
        sections: sections
            .into_iter()
            .map(|(name, pa)| Section { name, pa })
            .collect(),
        locks,
        pools,
        symbols: Symbols::new(images.symbols()),
        symbol_source: images.symbol_files().join(", "),
        problems,
    }))
}

/// Adds the registers that no CPU has, as far as the image keeps them; hyp's library in another image does not.
pub(super) fn add_registers(
    target: &mut dyn Target,
    images: &mut Images,
    cpus: &[Cpu],
    description: &mut Description,
    problems: &mut Vec<String>,
) -> Result<(), TargetError> {
    let known = |cpu: &Cpu| cpu.registers.get("TTBR0_EL2").is_some();
    if cpus.iter().any(known) || !defined_beside_hyp(images, TRANSLATION) {
        return Ok(());
    }
    let source = source(images, TRANSLATION);
    let mut variable = match Variable::read(target, images, TRANSLATION)? {
        Ok(variable) => variable,
        Err(problem) => {
            problems.push(problem);
            return Ok(());
        }
    };
    let mut word = |member: &str| variable.number(&format!("{TRANSLATION}.{member}"));
    // Zero until CPU 0 has set it.
    let vtcr = word("vtcr_el2").filter(|vtcr| *vtcr != 0);
    if vtcr.is_some() {
        description.host_s2.control = vtcr;
        description.hyp_s1.control = word("tcr_el2");
        description.hyp_s1.mair = word("mair_el2");
        description.hcr = word("hcr_el2");
        description.id = IdRegisters {
            mmfr0: word("id_aa64mmfr0_el1"),
            mmfr1: word("id_aa64mmfr1_el1"),
            mmfr2: word("id_aa64mmfr2_el1"),
        };
    }
    description.register_source = source;
    problems.append(&mut variable.problems);
    Ok(())
}

/// Whether the file that defines `HYP` also defines `variable`; other programs may call something else so.
fn defined_beside_hyp(images: &Images, variable: &str) -> bool {
    let file = images.file_of(variable);
    file.is_some() && file == images.file_of(VARIABLE)
}

/// Where a variable's value comes from, in words.
fn source(images: &Images, variable: &str) -> String {
    let file = images.file_of(variable).map(Path::new);
    let file = file.and_then(Path::file_name).unwrap_or_default();
    format!("{variable} in {}", file.display())
}

/// The UART's lock, if the file that defines `HYP` has one.
fn console(images: &mut Images) -> Option<LockPlace> {
    if !defined_beside_hyp(images, CONSOLE) {
        return None;
    }
    let place = images.place(CONSOLE).ok()?;
    let pa = images.load_address(place.address)?;
    (place.size == LOCK_SIZE).then(|| LockPlace {
        name: "console".to_owned(),
        symbol: CONSOLE.to_owned(),
        pa,
    })
}
