//! The hypervisor's locks, and who holds them.
//!
//! A lock is a word: the ticket that is served in the lower half, the next one to be handed out in the upper. Nothing
//! says who has which ticket; [`holders`] works that out from where the CPUs stand.

mod holders;

use super::memory::{Memory, little_endian};
use super::vms::{names_data, per_cpu};
use crate::addr::Span;
use crate::image::kernel::{Kernel, NVHE};
use crate::model::{Cpu, Lock, Tickets, Vm};
use crate::target::TargetError;
use holders::{Floor, Kind};

/// Bytes of a `hyp_spinlock_t`.
const SIZE: u64 = 4;
/// More locks than a kernel names.
const MAX_OTHERS: usize = 64;

/// The locks known.
#[derive(Default, Debug)]
pub(super) struct Locks {
    /// Those of the hypervisor, of VMs, of pools, and then others.
    pub(super) locks: Vec<Lock>,
    /// Which are not known, in one sentence.
    pub(super) note: Option<String>,
}

/// A lock before it is read.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    kind: Kind,
    name: String,
    symbol: String,
    pa: u64,
}

/// Reads every lock that the kernel names, and works out who holds those that are held. The CPUs must have their calls.
///
/// # Errors
/// The link failed.
pub(super) fn read(
    memory: &mut Memory<'_>,
    kernel: &mut Kernel,
    vms: &[Vm],
    cpus: &[Cpu],
    problems: &mut Vec<String>,
) -> Result<Locks, TargetError> {
    let places = places(memory, kernel, vms);
    let note = (!names_data(kernel)).then(|| {
        format!(
            "the symbols in {} do not name the hypervisor's data, so its locks are not found: give --image vmlinux",
            kernel.source()
        )
    });
    // The VM whose lock a CPU has taken, since 6.2.
    let current = kernel.symbol(&format!("{NVHE}__current_vm"));
    let current = current.map(|symbol| memory.phys_of_linked(symbol.start));
    let locks = read_places(memory, &places, current, cpus, problems)?;
    Ok(Locks { locks, note })
}

fn read_places(
    memory: &mut Memory<'_>,
    places: &[Place],
    current: Option<u64>,
    cpus: &[Cpu],
    problems: &mut Vec<String>,
) -> Result<Vec<Lock>, TargetError> {
    let spans: Vec<_> = places
        .iter()
        .map(|place| Span::new(place.pa, SIZE))
        .collect();
    let answers = memory.target.read_phys(&spans)?;
    let mut locks: Vec<Lock> = Vec::new();
    for (place, answer) in places.iter().zip(answers) {
        let tickets = match answer {
            Ok(bytes) => Some(tickets(&bytes)),
            Err(error) => {
                problems.push(format!("lock {}: {error}", place.name));
                None
            }
        };
        locks.push(Lock {
            name: place.name.clone(),
            symbol: place.symbol.clone(),
            pa: place.pa,
            tickets,
            holder: None,
        });
    }
    let held = |lock: &Lock| lock.tickets.is_some_and(Tickets::held);
    if locks.iter().any(held) {
        let current = match current {
            Some(template) => per_cpu(memory, template, cpus)?,
            None => Vec::new(),
        };
        let floor = Floor::read(memory, cpus, &current)?;
        for (lock, place) in locks.iter_mut().zip(places) {
            lock.holder = floor.holder(place.kind, lock);
        }
    }
    Ok(locks)
}

fn tickets(bytes: &[u8]) -> Tickets {
    let word = little_endian(bytes);
    Tickets {
        owner: word as u16,
        next: (word >> 16) as u16,
    }
}

/// Where the kernel keeps its locks.
fn places(memory: &Memory<'_>, kernel: &mut Kernel, vms: &[Vm]) -> Vec<Place> {
    let mut places = Vec::new();
    let pool_lock = kernel
        .field("hyp_pool.lock")
        .map_or(0, |field| field.offset);
    let mailbox_lock = kernel
        .field("kvm_ffa_buffers.lock")
        .map_or(0, |field| field.offset);
    // The host's stage 2 was in `host_kvm` until 6.1, and is in `host_mmu` since 6.2; the type has the same name.
    let host = ["host_mmu", "host_kvm"];
    let host = host.map(|name| Some((name, kernel.field(&format!("{name}.lock"))?.offset)));
    let at_beginning = |name| Some((name, 0));
    let known = [
        (Kind::Host, "host", host[0]),
        (Kind::Host, "host", host[1]),
        (Kind::Hyp, "hyp", at_beginning("pkvm_pgd_lock")),
        (Kind::VmTable, "vm-table", at_beginning("vm_table_lock")),
        (Kind::Pool, "host-pool", Some(("host_s2_pool", pool_lock))),
        (Kind::Pool, "hyp-pool", Some(("hpool", pool_lock))),
        (Kind::Fixmap, "fixmap", at_beginning("hyp_fixblock_lock")),
        (Kind::Ffa, "ffa-host", Some(("host_buffers", mailbox_lock))),
        (Kind::Ffa, "ffa-hyp", Some(("hyp_buffers", mailbox_lock))),
    ];
    for (kind, name, object) in known {
        let Some((object, offset)) = object else {
            continue;
        };
        let symbol = format!("{NVHE}{object}");
        let Some(span) = kernel.symbol(&symbol) else {
            continue;
        };
        let linked = span.start.wrapping_add(offset);
        places.push(Place {
            kind,
            name: name.to_owned(),
            symbol,
            pa: memory.phys_of_linked(linked),
        });
    }
    places.extend(others(memory, kernel, &places));
    // VMs come before the pools, which are locked last.
    let pools = places.iter().position(|place| place.kind == Kind::Pool);
    let pools = pools.unwrap_or(places.len());
    places.splice(pools..pools, of_vms(kernel, vms, pool_lock));
    places
}

/// The two locks of each VM.
fn of_vms(kernel: &mut Kernel, vms: &[Vm], pool_lock: u64) -> Vec<Place> {
    let lock = kernel.field("pkvm_hyp_vm.lock").map(|field| field.offset);
    let pool = kernel.field("pkvm_hyp_vm.pool");
    let pool = pool.map(|field| field.offset.saturating_add(pool_lock));
    let mut places = Vec::new();
    for (vm, pa) in vms.iter().filter_map(|vm| Some((vm, vm.pa?))) {
        let handle = vm.handle;
        let parts = [
            (Kind::Vm(pa), "vm", "lock", lock),
            (Kind::Pool, "vm-pool", "pool.lock", pool),
        ];
        for (kind, name, member, offset) in parts {
            places.extend(offset.map(|offset| Place {
                kind,
                name: format!("{name}:{handle:#x}"),
                symbol: format!("pkvm_hyp_vm.{member} of {handle:#x}"),
                pa: pa.wrapping_add(offset),
            }));
        }
    }
    places
}

/// Whatever else of EL2 is called a lock and has the size of one, by its own name.
fn others(memory: &Memory<'_>, kernel: &mut Kernel, known: &[Place]) -> Vec<Place> {
    let mut places = Vec::new();
    for symbol in kernel.symbols().iter() {
        let Some(name) = symbol.name.strip_prefix(NVHE) else {
            continue;
        };
        // Where sizes are not known, they reach to the next symbol.
        let is_lock = name.ends_with("_lock") && (SIZE..=2 * SIZE).contains(&symbol.size);
        if is_lock && !known.iter().any(|place| place.symbol == symbol.name) {
            places.push(Place {
                kind: Kind::Other,
                name: name.to_owned(),
                symbol: symbol.name.clone(),
                pa: memory.phys_of_linked(symbol.address),
            });
        }
    }
    places.truncate(MAX_OTHERS);
    // Asked for by name, so that a snapshot remembers them.
    places.retain(|place| kernel.symbol(&place.symbol).is_some());
    places
}

#[cfg(test)]
mod tests;
