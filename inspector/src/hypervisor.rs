//! What the bytes mean: from a target and the files of its programs to a [`System`].
//!
//! Two roads lead to the same facts: with an image that defines `HYP`, its symbols and types
//! (a snapshot remembers those that were used); without one, the self-description that the
//! hypervisor exports over its own channel.
//!
//! Where the machine was stopped over that channel, its CPUs are parked: with the image, other targets show what they
//! were doing all the same.

mod calls;
mod description;
mod layout;
mod lines;
mod meaning;
mod memory;
mod own;
mod owners;
mod pkvm;
mod regimes;
#[cfg(test)]
mod testing;

use crate::addr::Span;
use crate::image::Images;
use crate::model::{
    Cpu, Fact, Holder, HolderSource, Hypervisor, HypervisorKind, Lock, OwnerRange, Pool,
    RegimeCapture, Symbols, System, Tickets,
};
use crate::target::{Target, TargetError};
pub(crate) use calls::without_code;
use description::Description;
pub use lines::add_lines;
use owners::Claims;
use std::collections::BTreeMap;

/// The variable that is the hypervisor.
const VARIABLE: &str = "HYP";

/// Where each lock keeps what, in bytes: `owner` and `next` (u16), holder's CPU (u32), taker (u64).
const LOCK_SIZE: u64 = 16;
/// The holder's CPU when there is none.
const NO_CPU: u32 = u32::MAX;
/// More reference counts than any pool has: 64 MiB of them.
const MAX_RECORD_BYTES: u64 = 64 << 20;

/// Reads everything that the views show. The target must be stopped.
///
/// # Errors
/// The target as a whole failed. What is wrong with a part of it is said in the system's `problems`
/// or in the entry concerned, and the rest is there.
pub fn capture(target: &mut dyn Target, images: &mut Images) -> Result<System, TargetError> {
    let mut cpus = read_cpus(target)?;
    let mut problems = target.problems();
    let Some(mut description) = describe(target, images, &mut problems)? else {
        // Whoever gives hyp's own image does not look for a kernel.
        let hyp = images.file_of(VARIABLE).is_some() || images.has_others();
        let linux = !hyp || images.kernel().is_some();
        if linux && let Some(system) = pkvm::capture(target, images, &mut cpus, &mut problems)? {
            return Ok(system);
        }
        if !images.has_others()
            && target.description()?.is_none()
            && let Err(error) = images.place(VARIABLE)
        {
            problems.push(format!(
                "no hypervisor found: the target describes none, {error}, and there is no Linux kernel in RAM"
            ));
        }
        let symbols = Symbols::new(images.symbols());
        name_pcs(&mut cpus, &symbols, images);
        return Ok(without_hypervisor(cpus, symbols, problems));
    };
    problems.extend(description.problems.iter().cloned());
    let parked = own::uncover(target, images, &mut cpus, &mut problems)?;
    own::add_registers(target, images, &cpus, &mut description, &mut problems)?;
    name_pcs(&mut cpus, &description.symbols, images);

    let mut facts = description.facts(&cpus);
    facts.extend(parked);
    let regimes = regimes::capture(target, &description, &cpus, &mut facts, &mut problems)?;
    regimes::name_stage2(&mut cpus, &regimes);
    own::add_calls(target, images, &description.symbols, &regimes, &mut cpus)?;
    facts.extend(panic_fact(&cpus));
    let locks = read_locks(target, &description, &mut problems)?;
    let pools = read_pools(target, &description, &mut problems)?;
    let owners = joint(&description, &regimes);
    let complete = problems.is_empty() && regimes.iter().all(regimes::is_complete);
    Ok(System {
        complete,
        problems,
        hypervisor: description.hypervisor(&cpus),
        facts,
        physvirt_offset: Some(description.physvirt_offset),
        ram: description.ram,
        regimes,
        owners,
        vms: Vec::new(),
        no_vms: Some("hyp keeps no VMs yet".to_owned()),
        locks,
        no_locks: None,
        cpus,
        pools,
        page_records: None,
        hypercalls: own::hypercalls(),
        sections: description.sections,
        symbols: description.symbols,
        run_state: None,
    })
}

/// Functions that nothing comes back from: of hyp's image, of the embedded machine, and of Linux at EL2 and at EL1, where since
/// 6.16 `panic` is a wrapper of `vpanic`.
const PANICS: [&str; 6] = [
    "hyp_image::panic::hyp_panic",
    "hyp_image::panic::end",
    "hyp_panic",
    "__kvm_nvhe_hyp_panic",
    "panic",
    "vpanic",
];

/// The CPU that has panicked, by where each is and the calls that led there: nothing goes on after that.
pub fn panicked(cpus: &[Cpu]) -> Option<usize> {
    let panics = |symbol: &Option<String>| {
        let function = symbol
            .as_deref()
            .and_then(|symbol| symbol.split('+').next());
        function.is_some_and(|function| PANICS.contains(&function))
    };
    let has_panicked =
        |cpu: &&Cpu| panics(&cpu.symbol) || cpu.calls.iter().any(|call| panics(&call.symbol));
    Some(cpus.iter().find(has_panicked)?.number)
}

fn panic_fact(cpus: &[Cpu]) -> Option<Fact> {
    Some(Fact {
        what: "panic".to_owned(),
        value: format!("on CPU {}", panicked(cpus)?),
        source: "the calls of that CPU".to_owned(),
    })
}

/// The joint state of RAM, once both sides have tables.
fn joint(description: &Description, regimes: &[RegimeCapture]) -> Vec<OwnerRange> {
    let named = |name: &str| regimes.iter().find(|regime| regime.name == name);
    let (Some(host), Some(hyp)) = (named("host-s2"), named("hyp-s1")) else {
        return Vec::new();
    };
    let claims = Claims {
        host: owners::host_states(host),
        hyp: owners::hyp_states(hyp, description.physvirt_offset),
        annotations: owners::annotations(host),
        ..Claims::default()
    };
    owners::joint(&description.ram, claims)
}

/// Takes the road that is open.
fn describe(
    target: &mut dyn Target,
    images: &mut Images,
    problems: &mut Vec<String>,
) -> Result<Option<Description>, TargetError> {
    let given = images.file_of(VARIABLE).is_some();
    // Beside a file that was given they add the symbols of other programs.
    if let Some(notes) = target.saved_symbols()?
        && let Err(error) = images.recall(&notes)
        && !given
    {
        problems.push(error.to_string());
    }
    own::keep_running(target, images, problems)?;
    if images.file_of(VARIABLE).is_some() {
        return own::describe(target, images, problems);
    }
    if let Some(text) = target.description()? {
        match description::parse(&text) {
            Ok(description) => return Ok(Some(description)),
            Err(error) => problems.push(format!("the self-description is not understood: {error}")),
        }
    }
    Ok(None)
}

fn without_hypervisor(cpus: Vec<Cpu>, symbols: Symbols, problems: Vec<String>) -> System {
    System {
        complete: false,
        problems,
        hypervisor: Hypervisor {
            kind: HypervisorKind::None,
            release: None,
            mode: None,
            page_state_in: None,
            owner_encoding: None,
        },
        facts: vec![Fact {
            what: "hypervisor".to_owned(),
            value: "none".to_owned(),
            source: "neither symbols nor a self-description".to_owned(),
        }],
        physvirt_offset: None,
        ram: Vec::new(),
        regimes: Vec::new(),
        owners: Vec::new(),
        vms: Vec::new(),
        no_vms: None,
        locks: Vec::new(),
        no_locks: None,
        cpus,
        pools: Vec::new(),
        page_records: None,
        hypercalls: BTreeMap::new(),
        sections: Vec::new(),
        symbols,
        run_state: None,
    }
}

fn read_cpus(target: &mut dyn Target) -> Result<Vec<Cpu>, TargetError> {
    let registers = target.all_registers()?.into_iter().enumerate();
    Ok(registers
        .map(|(number, registers)| Cpu::new(number, registers))
        .collect())
}

fn name_pcs(cpus: &mut [Cpu], symbols: &Symbols, images: &mut Images) {
    for cpu in cpus {
        cpu.pc.inspect(|pc| images.keep(*pc));
        cpu.symbol = cpu.pc.and_then(|pc| symbols.name_of(pc));
    }
}

fn read_locks(
    target: &mut dyn Target,
    description: &Description,
    problems: &mut Vec<String>,
) -> Result<Vec<Lock>, TargetError> {
    let wanted: Vec<_> = description
        .locks
        .iter()
        .map(|lock| Span::new(lock.pa, LOCK_SIZE))
        .collect();
    let answers = target.read_phys(&wanted)?;
    let locks = description
        .locks
        .iter()
        .zip(answers)
        .map(|(place, answer)| {
            let words = match &answer {
                Ok(bytes) => lock_words(bytes),
                Err(error) => {
                    problems.push(format!("lock {}: {error}", place.name));
                    None
                }
            };
            let held = words.filter(|(tickets, cpu, _)| tickets.held() && *cpu != NO_CPU);
            Lock {
                name: place.name.clone(),
                symbol: place.symbol.clone(),
                pa: place.pa,
                tickets: words.map(|(tickets, _, _)| tickets),
                holder: held.map(|(_, cpu, taker)| Holder {
                    cpu: u64::from(cpu),
                    how: HolderSource::Recorded,
                    pc: (taker != 0).then_some(taker),
                    symbol: description.symbols.name_of(taker),
                    by: None,
                }),
            }
        });
    Ok(locks.collect())
}

fn lock_words(bytes: &[u8]) -> Option<(Tickets, u32, u64)> {
    let (owner, rest) = bytes.split_first_chunk::<2>()?;
    let (next, rest) = rest.split_first_chunk::<2>()?;
    let (cpu, rest) = rest.split_first_chunk::<4>()?;
    let (taker, _) = rest.split_first_chunk::<8>()?;
    let tickets = Tickets {
        owner: u16::from_le_bytes(*owner),
        next: u16::from_le_bytes(*next),
    };
    Some((
        tickets,
        u32::from_le_bytes(*cpu),
        u64::from_le_bytes(*taker),
    ))
}

fn read_pools(
    target: &mut dyn Target,
    description: &Description,
    problems: &mut Vec<String>,
) -> Result<Vec<Pool>, TargetError> {
    let mut pools = Vec::new();
    for pool in &description.pools {
        let bytes = pool.pages.saturating_mul(pool.record_size);
        let records = if bytes <= MAX_RECORD_BYTES && pool.record_size >= 2 {
            target.read_phys(&[Span::new(pool.records, bytes)])?.pop()
        } else {
            problems.push(format!(
                "{}: {} records of {} bytes are too many to be true",
                pool.name, pool.pages, pool.record_size
            ));
            None
        };
        let refcounts = match records {
            Some(Ok(bytes)) => Some(
                bytes
                    .chunks_exact(pool.record_size as usize)
                    .filter_map(|record| record.first_chunk())
                    .map(|count| u16::from_le_bytes(*count))
                    .collect(),
            ),
            Some(Err(error)) => {
                problems.push(format!("records of {}: {error}", pool.name));
                None
            }
            None => None,
        };
        pools.push(Pool {
            name: pool.name.clone(),
            pages: Span::new(pool.base, pool.pages.saturating_mul(description.granule)),
            refcounts,
        });
    }
    Ok(pools)
}

/// The physical memory that a snapshot must hold besides what a capture reads, so that more can be
/// asked of it: the hypervisor's own, but not the pages of its pools, of which the capture reads
/// those in use. Larger sections than any hypervisor has are left out.
pub fn own_memory(system: &System) -> Vec<Span> {
    const LIMIT: u64 = 64 << 20;
    system
        .sections
        .iter()
        .filter(|section| {
            matches!(
                section.name.as_str(),
                "text" | "rodata" | "data" | "bss" | "stacks"
            )
        })
        .map(|section| section.pa)
        .filter(|span| span.size <= LIMIT)
        .collect()
}

#[cfg(test)]
mod tests;
