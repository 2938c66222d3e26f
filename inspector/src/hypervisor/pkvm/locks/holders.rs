//! Who holds a lock, from where the CPUs stand.
//!
//! EL2 is not interrupted, and what runs there does not move to another CPU. So the holder of a lock is one of the CPUs
//! that are at EL2, and not one of those that wait for it. A CPU that waits has its ticket in a register.

use super::{Memory, NotYet};
use crate::addr::Span;
use crate::hypervisor::pkvm::vms::per_cpu;
use crate::image::kernel::NVHE;
use crate::model::{Cpu, Holder, HolderSource, Lock};

/// What a lock guards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Host,
    Hyp,
    VmTable,
    /// The VM whose object is there.
    Vm(u64),
    Pool,
    Fixmap,
    Ffa,
    Other,
}

impl Kind {
    /// How the functions begin that hold such a lock for some of their time, in kernels from 5.15 to 7.3.
    fn takers(self) -> &'static [&'static str] {
        match self {
            Self::Host => &[
                "handle_host_mem_abort",
                "host_stage2_",
                "__host_stage2_",
                "__pkvm_host_",
                "__pkvm_guest_",
                "__pkvm_hyp_donate_host",
                "__pkvm_vcpu_in_poison_fault",
                "hyp_pin_shared_mem",
                "hyp_unpin_shared_mem",
            ],
            Self::Hyp => &[
                "pkvm_create_",
                "pkvm_remove_mappings",
                "pkvm_alloc_private_va_range",
                "__pkvm_create_private_mapping",
                "__pkvm_host_share_hyp",
                "__pkvm_host_unshare_hyp",
                "__pkvm_host_donate_hyp",
                "__pkvm_hyp_donate_host",
                "hyp_back_vmemmap",
                "hyp_create_",
                "hyp_pin_shared_mem",
                "hyp_unpin_shared_mem",
            ],
            Self::VmTable => &[
                "pkvm_load_hyp_vcpu",
                "pkvm_put_hyp_vcpu",
                "get_pkvm_hyp_vm",
                "put_pkvm_hyp_vm",
                "__pkvm_reserve_vm",
                "__pkvm_unreserve_vm",
                "__pkvm_init_v",
                "__pkvm_start_teardown_vm",
                "__pkvm_finalize_teardown_vm",
                "__pkvm_teardown_vm",
                "__pkvm_host_force_reclaim_page_guest",
            ],
            Self::Vm(_) => &[
                "__pkvm_guest_",
                "kvm_guest_",
                "reclaim_pgtable_pages",
                "reclaim_guest_pages",
            ],
            Self::Pool => &[
                "hyp_alloc_pages",
                "hyp_get_page",
                "hyp_put_page",
                "hyp_split_page",
            ],
            Self::Fixmap => &["hyp_fixblock_"],
            Self::Ffa => &["kvm_host_ffa_handler", "do_ffa_", "__do_ffa_"],
            Self::Other => &[],
        }
    }
}

/// Where the CPUs stand.
#[derive(Default)]
pub(super) struct Floor {
    /// Those that wait: number, physical address of the lock, ticket.
    waiters: Vec<(usize, u64, u16)>,
    /// The VM whose lock a CPU has: number, physical address of the VM.
    current: Vec<(usize, u64)>,
}

impl Floor {
    /// Looks at the instructions around the PC of each CPU at EL2. `current` is where the template of `__current_vm` is.
    pub(super) fn read(
        memory: &mut Memory<'_>,
        cpus: &[Cpu],
        current: Option<u64>,
    ) -> Result<Self, NotYet> {
        let current = match current {
            Some(template) => per_cpu(memory, template, cpus),
            None => Ok(Vec::new()),
        };
        let waiters = cpus.iter().filter(|cpu| cpu.el == Some(2));
        let waiters: Vec<_> = waiters.map(|cpu| waiter(memory, cpu)).collect();
        let waiters: Result<Vec<_>, NotYet> = waiters.into_iter().collect();
        let mut floor = Self {
            waiters: waiters?.into_iter().flatten().collect(),
            current: Vec::new(),
        };
        for (cpu, vm) in cpus.iter().zip(current?) {
            if let Some(vm @ 1..) = vm
                && let Some(vm) = memory.phys_of_hyp(vm)?
            {
                floor.current.push((cpu.number, vm));
            }
        }
        Ok(floor)
    }

    /// Who holds a lock, where that is clear.
    pub(super) fn holder(&self, cpus: &[Cpu], kind: Kind, lock: &Lock) -> Option<Holder> {
        let tickets = lock.tickets.filter(|tickets| tickets.held())?;
        if let Kind::Vm(vm) = kind
            && let Some((cpu, _)) = self.current.iter().find(|(_, current)| *current == vm)
        {
            return Some(inferred(
                *cpu,
                format!("__current_vm of CPU {cpu} is this VM"),
            ));
        }
        let waits = |cpu: usize| {
            let mut waiters = self.waiters.iter();
            waiters.find(|(number, at, _)| *number == cpu && *at == lock.pa)
        };
        let cpus: Vec<_> = cpus.iter().filter(|cpu| cpu.el == Some(2)).collect();
        let mut numbers = cpus.iter().map(|cpu| cpu.number);
        let served = numbers.find(|cpu| waits(*cpu).is_some_and(|(.., t)| *t == tickets.owner));
        if let Some(cpu) = served {
            let by = format!(
                "CPU {cpu} waited, and its ticket {} is served",
                tickets.owner
            );
            return Some(inferred(cpu, by));
        }
        let busy = cpus.iter().filter(|cpu| waits(cpu.number).is_none());
        let busy: Vec<_> = busy.collect();
        let takers = busy
            .iter()
            .filter_map(|cpu| Some((cpu, taking(cpu, kind)?)));
        let takers: Vec<_> = takers.collect();
        match (takers.as_slice(), busy.as_slice()) {
            ([(cpu, (pc, symbol))], _) => {
                let name = symbol.strip_prefix(NVHE).unwrap_or(symbol);
                let by = format!("CPU {} is at EL2 in {name}", cpu.number);
                Some(Holder {
                    pc: Some(*pc),
                    symbol: Some(symbol.clone()),
                    ..inferred(cpu.number, by)
                })
            }
            ([], [cpu]) => {
                let by = format!(
                    "of the CPUs at EL2, only CPU {} does not wait for it",
                    cpu.number
                );
                Some(inferred(cpu.number, by))
            }
            _ => None,
        }
    }
}

fn inferred(cpu: usize, by: String) -> Holder {
    Holder {
        cpu: cpu as u64,
        how: HolderSource::Inferred,
        pc: None,
        symbol: None,
        by: Some(by),
    }
}

/// The innermost place of a CPU in a function that takes such a lock.
fn taking(cpu: &Cpu, kind: Kind) -> Option<(u64, String)> {
    let here = cpu.pc.zip(cpu.symbol.as_ref());
    let calls = cpu.calls.iter();
    let calls = calls.filter_map(|frame| Some((frame.pc, frame.symbol.as_ref()?)));
    let takes = |symbol: &str| {
        let name = symbol.strip_prefix(NVHE)?;
        let mut takers = kind.takers().iter();
        takers.find(|taker| name.starts_with(**taker))
    };
    here.into_iter()
        .chain(calls)
        .find(|(_, symbol)| takes(symbol).is_some())
        .map(|(pc, symbol)| (pc, symbol.clone()))
}

/// How many words before and after the PC the loop may reach.
const REACH: u64 = 4;

/// A CPU's number, the physical address of the lock that it spins on, and its ticket.
fn waiter(memory: &mut Memory<'_>, cpu: &Cpu) -> Result<Option<(usize, u64, u16)>, NotYet> {
    let Some((lock, ticket)) = spins(memory, cpu)? else {
        return Ok(None);
    };
    let lock = memory.phys_of_hyp(lock)?;
    Ok(lock.map(|lock| (cpu.number, lock, ticket)))
}

/// Where the lock is that a CPU spins on, as EL2's address, and the CPU's ticket.
fn spins(memory: &mut Memory<'_>, cpu: &Cpu) -> Result<Option<(u64, u16)>, NotYet> {
    let Some(pc) = cpu.pc.filter(|pc| pc.is_multiple_of(4)) else {
        return Ok(None);
    };
    // A loop that crosses into another page is cut off there: the pages need not be neighbours.
    let in_page = pc % 0x1000;
    let before = in_page.min(REACH * 4);
    let size = (before + REACH * 4 + 4).min(0x1000 - in_page + before);
    let Some(pa) = memory.phys_of_hyp(pc)? else {
        return Ok(None);
    };
    let Some(bytes) = memory.read(Span::new(pa.wrapping_sub(before), size))? else {
        return Ok(None);
    };
    let (words, _) = bytes.as_chunks::<4>();
    let code: Vec<_> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let found = spin_loop(&code, (before / 4) as usize);
    Ok(found.and_then(|(lock, ticket)| {
        let value = |register: u32| cpu.registers.get(&format!("x{register}"));
        Some((value(lock)?, (value(ticket)? >> 16) as u16))
    }))
}

/// The numbers of the registers of a loop in which a ticket waits for its turn: that with the address of the lock, and
/// that with the word which taking the ticket returned (so that the ticket is in bits 31:16). `at` is where the PC is.
///
/// The hypervisor's lock has been written so since 5.15 (the loads are exclusive, so that `wfe` ends when they change):
/// ```text
///    sevl
/// 2: wfe
///    ldaxrh w2, [lock]
///    eor    w1, w2, ticket, lsr #16
///    cbnz   w1, 2b
/// ```
fn spin_loop(code: &[u32], at: usize) -> Option<(u32, u32)> {
    const SEVL: u32 = 0xd503_20bf;
    const WFE: u32 = 0xd503_205f;
    // The `cbnz` goes three words back: imm19, bits 23:5, is −3.
    const CBNZ_BACK_3: u32 = 0x35ff_ffa0;
    let starts = (0..code.len()).filter(|start| {
        let after_sevl = start.checked_sub(1).filter(|before| code[*before] == SEVL);
        (after_sevl.unwrap_or(*start)..start + 4).contains(&at)
    });
    starts
        .filter_map(|start| code.get(start..)?.first_chunk::<4>())
        .find_map(|&[wfe, load, eor, branch]| {
            let (n, t) = (load >> 5 & 31, load & 31);
            let (ticket, compared, result) = (eor >> 16 & 31, eor >> 5 & 31, eor & 31);
            let is_loop = wfe == WFE
                && load & 0xffff_fc00 == 0x485f_fc00
                && eor & 0xffe0_fc00 == 0x4a40_4000
                && compared == t
                && branch == CBNZ_BACK_3 | result;
            // Register 31 of the load is SP, which is no lock's address.
            (is_loop && n != 31).then_some((n, ticket))
        })
}

#[cfg(test)]
mod tests;
