//! The VMs that the hypervisor knows, and the vCPUs that are loaded.
//!
//! `vm_table` points to an array of pointers, one for each handle. They lead to a `pkvm_hyp_vm`, which lies in EL2's linear
//! range and so in one piece. All of it is read as it stands: what lies, costs its own row and a sentence.

use super::super::memory::{Memory, NotYet, little_endian};
use crate::addr::Span;
use crate::image::kernel::{Field, Kernel, NVHE};
use crate::model::{Cpu, Vcpu, Vm, VmState};
use std::collections::HashSet;

/// Elements of the VM table, `KVM_MAX_PVMS`: a macro, so in no type.
const MAX_VMS: u64 = 255;
/// What the first element's handle is.
const FIRST_HANDLE: u64 = 0x1000;
/// The element of a handle that is reserved, and has no VM yet (since Linux 6.18, with `__pkvm_reserve_vm`).
const RESERVED: u64 = 0xa_110c_a7ed;
/// More vCPUs than a VM has: `KVM_MAX_VCPUS` is 512.
const MAX_VCPUS: u64 = 512;
/// More bytes than a `pkvm_hyp_vm` has before its vCPUs.
const MAX_VM_BYTES: u64 = 64 << 10;

/// The VMs, and where their own tables are.
#[derive(Default, Debug)]
pub(super) struct Vms {
    /// In order of the table, so of handles.
    pub(super) vms: Vec<Vm>,
    /// Why there can be none, in one sentence.
    pub(super) no_vms: Option<String>,
    /// The stage 2 of each VM that has one.
    pub(super) roots: Vec<GuestRoot>,
    /// Which vCPU is loaded where: the CPU's place among all, the VM's handle, the vCPU's number.
    pub(super) loaded: Vec<(usize, u64, u64)>,
    /// What cannot be read or makes no sense, in sentences.
    pub(super) problems: Vec<String>,
}

impl Vms {
    /// None, for a reason.
    pub(super) fn without(reason: &str) -> Self {
        Self {
            no_vms: Some(reason.to_owned()),
            ..Self::default()
        }
    }
}

/// The stage 2 of one VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GuestRoot {
    /// The VM.
    pub(super) handle: u64,
    /// Physical address of its root table.
    pub(super) root: u64,
    /// Its `VTCR_EL2`, where the kernel keeps one with the VM.
    pub(super) vtcr: Option<u64>,
}

/// Where everything is, by the kernel's types.
#[derive(Clone, Default, Debug)]
pub(super) struct Layout {
    /// Physical address of the pointer to the VM table.
    table: u64,
    /// Bytes of a `pkvm_hyp_vm` before its vCPUs.
    size: u64,
    handle: Option<Field>,
    protected: Option<Field>,
    created: Option<Field>,
    dying: Option<Field>,
    vmid: Option<Field>,
    root: Option<Field>,
    vtcr: Option<Field>,
    vcpu_count: Option<Field>,
    /// Offset of the pointers to vCPUs.
    vcpus: Option<u64>,
    /// Physical address of the template of the per-CPU pointer to the vCPU that is loaded.
    loaded: Option<u64>,
}

/// Whether the kernel's symbols have data of EL2 at all: kallsyms has it only with `CONFIG_KALLSYMS_ALL`.
pub(super) fn names_data(kernel: &mut Kernel) -> bool {
    kernel
        .symbol(&format!("{NVHE}hyp_physvirt_offset"))
        .is_some()
}

impl Layout {
    /// Asks the kernel; why it has no VMs, where it has none.
    pub(super) fn probe(memory: &Memory<'_>, kernel: &mut Kernel) -> Result<Self, String> {
        let Some(table) = kernel.symbol(&format!("{NVHE}vm_table")) else {
            // Its types tell where its symbols are of functions only.
            let no_vms = kernel.types().is_ok() && kernel.size_of("pkvm_hyp_vm").is_none();
            return Err(if no_vms || names_data(kernel) {
                "this kernel's hypervisor keeps no table of VMs (it came with Linux 6.2): VMs belong to the host"
                    .to_owned()
            } else {
                format!(
                    "the symbols in {} do not name the hypervisor's data, so its VMs are not found: give --image vmlinux",
                    kernel.source()
                )
            });
        };
        let mut vm = |member: &str| kernel.field(&format!("pkvm_hyp_vm.{member}"));
        let vcpus = vm("vcpus").map(|field| field.offset);
        let layout = Self {
            table: memory.phys_of_linked(table.start),
            size: 0,
            handle: vm("kvm.arch.pkvm.handle"),
            // It was called `enabled` in 6.12, and did not exist before.
            protected: vm("kvm.arch.pkvm.is_protected").or_else(|| vm("kvm.arch.pkvm.enabled")),
            // Came with reserved handles, in 6.18.
            created: vm("kvm.arch.pkvm.is_created"),
            // Came with the teardown in two steps, after 7.0.
            dying: vm("kvm.arch.pkvm.is_dying"),
            vmid: vm("kvm.arch.mmu.vmid"),
            root: vm("kvm.arch.mmu.pgd_phys"),
            // Nested virtualisation moved it into the MMU, in 6.8.
            vtcr: vm("kvm.arch.mmu.vtcr").or_else(|| vm("kvm.arch.vtcr")),
            // `nr_vcpus` counts the vCPUs handed over so far, in 6.12; later ones are handed over in any order, and counted
            // nowhere: `created_vcpus` counts those that there will be.
            vcpu_count: vm("nr_vcpus").or_else(|| vm("kvm.created_vcpus")),
            vcpus,
            loaded: loaded_pointer(kernel).map(|linked| memory.phys_of_linked(linked)),
        };
        Ok(layout.sized())
    }

    /// Takes the size from what is needed of the record.
    fn sized(mut self) -> Self {
        let fields = [
            self.handle,
            self.protected,
            self.created,
            self.dying,
            self.vmid,
            self.root,
            self.vtcr,
            self.vcpu_count,
        ];
        let ends = fields
            .iter()
            .flatten()
            .map(|field| field.offset.saturating_add(field.size));
        self.size = ends.max().unwrap_or(8).min(MAX_VM_BYTES);
        self
    }

    /// Reads the VMs, and which vCPUs are loaded.
    pub(super) fn read(&self, memory: &mut Memory<'_>, cpus: &[Cpu]) -> Result<Vms, NotYet> {
        let mut found = Vms::default();
        let loaded = self.read_loaded(memory, cpus);
        let Some(pointer) = memory.word(self.table, 8)? else {
            found.problems.push(format!(
                "the pointer to the VM table at {:#x} cannot be read",
                self.table
            ));
            return Ok(found);
        };
        if pointer == 0 {
            return Ok(Vms::without(
                "the hypervisor has not made its table of VMs yet",
            ));
        }
        let slots = match memory.phys_of_hyp(pointer)? {
            Some(pa) => memory.read(Span::new(pa, MAX_VMS * 8))?,
            None => None,
        };
        let Some(slots) = slots else {
            let problem = format!("the VM table at EL2's {pointer:#x} cannot be read");
            found.problems.push(problem);
            return Ok(found);
        };
        let (slots, _) = slots.as_chunks::<8>();
        let slots: Vec<_> = slots.iter().map(|slot| u64::from_le_bytes(*slot)).collect();
        let mut objects = Vec::new();
        for (handle, slot) in (FIRST_HANDLE..).zip(slots).filter(|(_, slot)| *slot != 0) {
            found.vms.push(vm(handle));
            if slot == RESERVED {
                continue;
            }
            let index = found.vms.len() - 1;
            found.vms[index].state = VmState::Unknown;
            match memory.phys_of_hyp(slot)? {
                Some(pa) => objects.push((index, pa)),
                None => {
                    let problem = no_vm(handle, slot, "EL2 maps nothing there");
                    found.problems.push(problem);
                }
            }
        }
        let arrays = self.read_objects(memory, &objects, &mut found)?;
        read_vcpus(memory, &arrays, &loaded?, cpus, &mut found)?;
        Ok(found)
    }

    /// Fills the VMs from their objects, given by index and physical address. The arrays of pointers to vCPUs, by index.
    fn read_objects(
        &self,
        memory: &mut Memory<'_>,
        objects: &[(usize, u64)],
        found: &mut Vms,
    ) -> Result<Vec<(usize, Span)>, NotYet> {
        let spans = objects.iter().map(|(_, pa)| Span::new(*pa, self.size));
        let answers = memory.read_all(&spans.collect::<Vec<_>>())?;
        let mut arrays = Vec::new();
        for ((index, pa), answer) in objects.iter().zip(answers) {
            let vm = &mut found.vms[*index];
            let bytes = match answer {
                Ok(bytes) => bytes,
                Err(error) => {
                    let problem = no_vm(vm.handle, *pa, &error.to_string());
                    found.problems.push(problem);
                    continue;
                }
            };
            vm.pa = Some(*pa);
            found.roots.extend(self.fill(vm, &bytes));
            if let (Some(offset), Some(count)) = (self.vcpus, get(&bytes, self.vcpu_count)) {
                if count > MAX_VCPUS {
                    found.problems.push(format!(
                        "VM {:#x} says that it has {count} vCPUs, which is too many to be true",
                        vm.handle
                    ));
                    continue;
                }
                arrays.push((*index, Span::new(pa.wrapping_add(offset), count * 8)));
            }
        }
        Ok(arrays)
    }

    /// What the object itself says; its stage 2, if it has one.
    fn fill(&self, vm: &mut Vm, bytes: &[u8]) -> Option<GuestRoot> {
        let flag = |field| get(bytes, field).map(|flag| flag != 0);
        vm.handle = get(bytes, self.handle).unwrap_or(vm.handle);
        vm.protected = flag(self.protected);
        // Above its 16 bits the host keeps a generation.
        vm.vmid = get(bytes, self.vmid).map(|vmid| vmid & 0xffff);
        vm.state = if self.vcpus.is_none() {
            VmState::Unknown
        } else if flag(self.dying) == Some(true) {
            VmState::Dying
        } else if flag(self.created) == Some(true) {
            VmState::Created
        } else {
            VmState::Initialised
        };
        let root = get(bytes, self.root).filter(|root| *root != 0)?;
        Some(GuestRoot {
            handle: vm.handle,
            root,
            vtcr: get(bytes, self.vtcr),
        })
    }

    /// The pointer to the loaded vCPU, for each of `cpus`.
    fn read_loaded(
        &self,
        memory: &mut Memory<'_>,
        cpus: &[Cpu],
    ) -> Result<Vec<Option<u64>>, NotYet> {
        let Some(template) = self.loaded else {
            return Ok(Vec::new());
        };
        per_cpu(memory, template, cpus)
    }
}

/// Reads the arrays of pointers to vCPUs, given by the VM's index; `loaded` is the pointer to the vCPU of each CPU.
fn read_vcpus(
    memory: &mut Memory<'_>,
    arrays: &[(usize, Span)],
    loaded: &[Option<u64>],
    cpus: &[Cpu],
    found: &mut Vms,
) -> Result<(), NotYet> {
    let spans: Vec<_> = arrays.iter().map(|(_, span)| *span).collect();
    let answers = memory.read_all(&spans)?;
    for ((index, span), answer) in arrays.iter().zip(answers) {
        let vm = &mut found.vms[*index];
        let bytes = match answer {
            Ok(bytes) => bytes,
            Err(error) => {
                let problem = format!("vCPUs of VM {:#x}: {error}", vm.handle);
                found.problems.push(problem);
                continue;
            }
        };
        let (pointers, _) = bytes.as_chunks::<8>();
        let pointers = pointers.iter().map(|pointer| u64::from_le_bytes(*pointer));
        // A vCPU that the host has not handed over yet has no pointer.
        for (number, pointer) in (0..).zip(pointers).filter(|(_, pointer)| *pointer != 0) {
            let pa = memory.phys_of_hyp(pointer)?;
            if pa.is_none() {
                found.problems.push(format!(
                    "vCPU {number} of VM {:#x}: the pointer {pointer:#x} at {:#x} leads nowhere",
                    vm.handle,
                    span.start.wrapping_add(number * 8)
                ));
            }
            let place = loaded.iter().position(|loaded| *loaded == Some(pointer));
            found
                .loaded
                .extend(place.map(|place| (place, vm.handle, number)));
            let cpu = place.and_then(|place| Some(cpus.get(place)?.number));
            vm.vcpus.push(Vcpu { number, pa, cpu });
        }
        // 7.3 sets `is_created` in the host's copy only. What EL2 asks for before it runs a vCPU is its object.
        if vm.state == VmState::Initialised && !vm.vcpus.is_empty() {
            vm.state = VmState::Created;
        }
    }
    Ok(())
}

/// A variable of 8 bytes that EL2 has once for each CPU, by the physical address of its template: `TPIDR_EL2` is how far
/// a CPU's own is away, and a guest or the host does not change it. `None` for a CPU whose own cannot be read.
pub(super) fn per_cpu(
    memory: &mut Memory<'_>,
    template: u64,
    cpus: &[Cpu],
) -> Result<Vec<Option<u64>>, NotYet> {
    let offsets: Vec<_> = cpus
        .iter()
        .map(|cpu| {
            let register = cpu.registers.get("TPIDR_EL2");
            register.or_else(|| memory.per_cpu.get(&cpu.number).copied())
        })
        .collect();
    let spans: Vec<_> = offsets
        .iter()
        .flatten()
        .map(|offset| Span::new(template.wrapping_add(*offset), 8))
        .collect();
    let mut answers = memory.read_all(&spans)?.into_iter();
    let mut value = |offset: &Option<u64>| {
        offset.as_ref()?;
        Some(little_endian(&answers.next()?.ok()?))
    };
    Ok(offsets.iter().map(&mut value).collect())
}

/// The linked address of the per-CPU pointer to the vCPU that is loaded.
fn loaded_pointer(kernel: &mut Kernel) -> Option<u64> {
    // With `__pkvm_vcpu_load`, in 6.14. Before, only a vCPU that runs is known.
    if let Some(symbol) = kernel.symbol(&format!("{NVHE}loaded_hyp_vcpu")) {
        return Some(symbol.start);
    }
    running_pointer(kernel)
}

/// The linked address of the per-CPU pointer to the vCPU that runs: set from before its guest is entered until after it is
/// left.
fn running_pointer(kernel: &mut Kernel) -> Option<u64> {
    let data = kernel.symbol(&format!("{NVHE}kvm_host_data"))?;
    let running = kernel.field("kvm_host_data.host_ctxt.__hyp_running_vcpu")?;
    Some(data.start.wrapping_add(running.offset))
}

/// The numbers of the CPUs that are in a guest, unless they are at EL2: by the hypervisor's own note of it.
pub(super) fn running(
    memory: &mut Memory<'_>,
    kernel: &mut Kernel,
    cpus: &[Cpu],
) -> Result<HashSet<usize>, NotYet> {
    let Some(linked) = running_pointer(kernel) else {
        return Ok(HashSet::new());
    };
    let template = memory.phys_of_linked(linked);
    let running = per_cpu(memory, template, cpus)?;
    let cpus = cpus.iter().zip(running);
    let in_guest = cpus.filter(|(_, vcpu)| vcpu.is_some_and(|vcpu| vcpu != 0));
    Ok(in_guest.map(|(cpu, _)| cpu.number).collect())
}

/// A handle of which no more is known.
fn vm(handle: u64) -> Vm {
    Vm {
        handle,
        pa: None,
        protected: None,
        state: VmState::Reserved,
        vmid: None,
        vcpus: Vec::new(),
        pages: None,
    }
}

fn no_vm(handle: u64, at: u64, why: &str) -> String {
    format!("VM {handle:#x}: its element of the VM table leads to {at:#x}, which is no VM: {why}")
}

fn get(bytes: &[u8], field: Option<Field>) -> Option<u64> {
    let Field {
        offset,
        size,
        bits: None,
        ..
    } = field?
    else {
        return None;
    };
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(size.min(8)).ok()?)?;
    Some(little_endian(bytes.get(start..end)?))
}

#[cfg(test)]
mod tests;
