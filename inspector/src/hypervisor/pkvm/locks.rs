//! The hypervisor's locks, and who holds them.
//!
//! A lock is a word: the ticket that is served in the lower half, the next one to be handed out in the upper. Nothing
//! says who has which ticket; [`holders`] works that out from where the CPUs stand.

mod holders;

use super::super::memory::{Memory, NotYet, little_endian};
use super::vms::names_data;
use crate::addr::Span;
use crate::image::kernel::{Kernel, NVHE};
use crate::model::{Cpu, Lock, Tickets, Vm};
use crate::target::ReadError;
use holders::{Floor, Kind};

/// Bytes of a `hyp_spinlock_t`.
const SIZE: u64 = 4;
/// More locks than a kernel names.
const MAX_OTHERS: usize = 64;

/// A lock before it is read.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    kind: Kind,
    name: String,
    symbol: String,
    pa: u64,
}

/// Where the kernel keeps its locks.
pub(super) struct Layout {
    /// Those that are variables.
    places: Vec<Place>,
    /// Offset of a VM's lock in its object.
    of_vm: Option<u64>,
    /// And of the lock of its pool.
    of_vm_pool: Option<u64>,
    /// Physical address of the template of the per-CPU pointer to the VM whose lock a CPU has taken, since 6.2.
    current: Option<u64>,
    /// Which locks are not known, in one sentence.
    pub(super) note: Option<String>,
}

/// The words of all locks, and where the CPUs stood if one is held.
#[derive(Default)]
pub(super) struct Words {
    places: Vec<Place>,
    answers: Vec<Result<Vec<u8>, ReadError>>,
    floor: Floor,
}

impl Layout {
    /// Reads every lock that is known.
    pub(super) fn read(
        &self,
        memory: &mut Memory<'_>,
        vms: &[Vm],
        cpus: &[Cpu],
    ) -> Result<Words, NotYet> {
        let places = self.places(vms);
        let spans = places.iter().map(|place| Span::new(place.pa, SIZE));
        let answers = memory.read_all(&spans.collect::<Vec<_>>())?;
        let mut words = answers.iter().flatten();
        let floor = match words.any(|bytes| tickets(bytes).held()) {
            true => Floor::read(memory, cpus, self.current)?,
            false => Floor::default(),
        };
        Ok(Words {
            places,
            answers,
            floor,
        })
    }

    /// All locks: those of VMs come before the pools, which are locked last.
    fn places(&self, vms: &[Vm]) -> Vec<Place> {
        let mut places = self.places.clone();
        let pools = places.iter().position(|place| place.kind == Kind::Pool);
        let pools = pools.unwrap_or(places.len());
        let of_vms = vms.iter().flat_map(|vm| self.of_vm(vm));
        places.splice(pools..pools, of_vms.collect::<Vec<_>>());
        places
    }

    /// The two locks of a VM.
    fn of_vm(&self, vm: &Vm) -> Vec<Place> {
        let (Some(pa), handle) = (vm.pa, vm.handle) else {
            return Vec::new();
        };
        let parts = [
            (Kind::Vm(pa), "vm", "lock", self.of_vm),
            (Kind::Pool, "vm-pool", "pool.lock", self.of_vm_pool),
        ];
        let parts = parts.into_iter();
        let places = parts.filter_map(|(kind, name, member, offset)| {
            Some(Place {
                kind,
                name: format!("{name}:{handle:#x}"),
                symbol: format!("pkvm_hyp_vm.{member} of {handle:#x}"),
                pa: pa.wrapping_add(offset?),
            })
        });
        places.collect()
    }
}

impl Words {
    /// What they say, and who holds those that are held. The CPUs must have their calls.
    pub(super) fn locks(self, cpus: &[Cpu], problems: &mut Vec<String>) -> Vec<Lock> {
        let mut locks = Vec::new();
        for (place, answer) in self.places.into_iter().zip(self.answers) {
            if let Err(error) = &answer {
                problems.push(format!("lock {}: {error}", place.name));
            }
            let mut lock = Lock {
                name: place.name,
                symbol: place.symbol,
                pa: place.pa,
                tickets: answer.ok().as_deref().map(tickets),
                holder: None,
            };
            lock.holder = self.floor.holder(cpus, place.kind, &lock);
            locks.push(lock);
        }
        locks
    }
}

fn tickets(bytes: &[u8]) -> Tickets {
    Tickets::of_word(little_endian(bytes) as u32)
}

/// Asks the kernel for every lock that it names.
pub(super) fn probe(memory: &Memory<'_>, kernel: &mut Kernel) -> Layout {
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
    let pool = kernel.field("pkvm_hyp_vm.pool");
    let current = kernel.symbol(&format!("{NVHE}__current_vm"));
    Layout {
        places,
        of_vm: kernel.field("pkvm_hyp_vm.lock").map(|field| field.offset),
        of_vm_pool: pool.map(|field| field.offset.saturating_add(pool_lock)),
        current: current.map(|symbol| memory.phys_of_linked(symbol.start)),
        note: (!names_data(kernel)).then(|| {
            format!(
                "the symbols in {} do not name the hypervisor's data, so its locks are not found: give --image vmlinux",
                kernel.source()
            )
        }),
    }
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
