//! Where a CPU is to be stopped so that a trap can be followed.
//!
//! - The entry is the function that handles host aborts, to which the vector's code brings each of them and nothing else: the
//!   syndrome registers still are what the exception made them, and hypercalls do not stop the machine. For hypercalls, to count
//!   all instructions, and where that function is no symbol, it is the vector itself, `VBAR_EL2` + 0x400: the general registers
//!   are still the host's there.
//! - The end is any `ERET` in what EL2 may execute, found by reading it: `ELR_EL2` and `SPSR_EL2` say where it leads.
//! - Between the two, functions that exist as symbols. Which there are depends on what the compiler has inlined, so any
//!   of them may be missing; what they would have said then follows from the tables before and after.

use super::{Missing, Place, Stage};
use crate::addr::Span;
use crate::arch::disassembly::{Flow, flow};
use crate::model::{EntryKind, HypervisorKind, System};
use crate::target::gdb::may_write;
use crate::target::{Target, TargetError};

/// The function that handles host aborts, all of them and nothing else: `handle_trap` of hyp and of Linux, since 5.11, tells
/// nothing else apart by IABT_LOW and DABT_LOW.
pub(super) const HANDLER: &str = "handle_host_mem_abort";
/// Offset of the vector for synchronous exceptions from a lower level in AArch64.
const LOWER_SYNC: u64 = 0x400;
/// `ERET`, `ERETAA`, `ERETAB`.
const ERET: [u32; 3] = [0xd69f_03e0, 0xd69f_0bff, 0xd69f_0fff];
/// More text than any hypervisor has, in bytes.
const MAX_TEXT: u64 = 16 << 20;
/// More exits than any hypervisor has.
const MAX_EXITS: usize = 64;
/// What Linux's symbols of EL2 begin with.
const NVHE: &str = "__kvm_nvhe_";

/// What a stop at a function says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// That the CPU got there.
    Reached,
    /// The leaf is looked up; the host's lock is held.
    LookUp,
    /// A range is mapped under the host's lock. Where its address and its size are passed is known of C only.
    Map {
        /// Number of the register with the address; the next has the size.
        argument: Option<u8>,
    },
    /// Ownership is changed; where the function returns, all is written.
    Transition,
    /// The hypervisor is at its end.
    Panic,
}

/// A function that is worth a stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function {
    /// Its name, for Linux without what marks EL2's symbols.
    pub name: &'static str,
    /// What must stand before the name in the path of a Rust function; empty for those of C.
    within: &'static str,
    /// The stage it belongs to.
    pub stage: Stage,
    /// What it says.
    pub role: Role,
    /// What is done there, in one clause.
    pub text: &'static str,
}

const fn function(
    name: &'static str,
    within: &'static str,
    stage: Stage,
    role: Role,
    text: &'static str,
) -> Function {
    Function {
        name,
        within,
        stage,
        role,
        text,
    }
}

/// hyp's functions, in the order in which a trap comes to them. Those of the image have paths, those of the embedded
/// machine plain names.
#[rustfmt::skip]
const HYP: [Function; 12] = [
    function("handle_host_mem_abort", "abort", Stage::Decode, Role::Reached, "reads why and where the host faulted"),
    function("host_stage2_idmap", "mem_protect", Stage::Decode, Role::Reached, "is to map what the host may have"),
    function("pkvm_host_share_hyp", "mem_protect", Stage::Decode, Role::Transition, "is to share a page with the hypervisor"),
    function("get_leaf", "pgtable", Stage::LookUp, Role::LookUp, "looks the leaf up"),
    function("pkvm_create_mappings_locked", "mem_protect", Stage::Map, Role::Transition, "maps at EL2"),
    function("host_stage2_idmap_locked", "mem_protect", Stage::Map, Role::Map { argument: None }, "maps the range for the host"),
    function("host_stage2_set_owner_locked", "mem_protect", Stage::Map, Role::Transition, "gives pages another owner"),
    function("set_leaf", "stage2", Stage::Map, Role::Reached, "makes an entry of the host's tables"),
    function("alloc", "pool", Stage::Map, Role::Reached, "takes table pages from a pool"),
    function("clear_where", "stage2", Stage::Map, Role::Reached, "unmaps what can come back by itself: the pool was exhausted"),
    function("take_over", "hyp_image::vectors", Stage::Refuse, Role::Reached, "leaves the host's access to be refused or emulated"),
    function("hyp_panic", "hyp_image::panic", Stage::Return, Role::Panic, "panics"),
];

/// Those of Linux's pKVM. 5.15 has all but those of injection, which came with 7.x.
#[rustfmt::skip]
const PKVM: [Function; 14] = [
    function("handle_host_mem_abort", "", Stage::Decode, Role::Reached, "reads why and where the host faulted"),
    function("kvm_pgtable_get_leaf", "", Stage::LookUp, Role::LookUp, "looks the leaf up"),
    function("host_stage2_idmap_locked", "", Stage::Map, Role::Map { argument: Some(0) }, "maps the range for the host"),
    function("host_stage2_unmap_dev_all", "", Stage::Map, Role::Reached, "unmaps all that is no RAM: the pool was exhausted"),
    function("kvm_pgtable_stage2_map", "", Stage::Map, Role::Reached, "writes the host's tables"),
    function("hyp_alloc_pages", "", Stage::Map, Role::Reached, "takes table pages from a pool"),
    function("host_stage2_set_owner_locked", "", Stage::Map, Role::Transition, "gives pages another owner"),
    function("pkvm_create_mappings_locked", "", Stage::Map, Role::Transition, "maps at EL2"),
    function("__pkvm_host_share_hyp", "", Stage::Decode, Role::Transition, "is to share a page with the hypervisor"),
    function("__pkvm_host_unshare_hyp", "", Stage::Decode, Role::Transition, "is to take a page back from the hypervisor"),
    function("__pkvm_host_donate_guest", "", Stage::Decode, Role::Transition, "is to give a page to a guest"),
    function("__pkvm_host_share_guest", "", Stage::Decode, Role::Transition, "is to share pages with a guest"),
    function("inject_host_exception", "", Stage::Refuse, Role::Reached, "has the host take an exception"),
    function("hyp_panic", "", Stage::Return, Role::Panic, "panics"),
];

/// The function that the vector calls, with the address of the host's registers, x0 first.
fn called_by_vector(kind: HypervisorKind) -> Option<&'static str> {
    match kind {
        HypervisorKind::Hyp => Some("host_sync"),
        HypervisorKind::Pkvm => Some("__kvm_nvhe_handle_trap"),
        HypervisorKind::None => None,
    }
}

/// A function's first instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stop {
    /// Where.
    pub place: Place,
    /// Its size in bytes.
    pub size: u64,
    /// What it says.
    pub function: Function,
}

impl Stop {
    /// Whether the hypervisor panics there.
    pub(super) fn is_panic(&self) -> bool {
        self.function.role == Role::Panic
    }
}

/// Where a CPU is to be stopped.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Plan {
    /// The vectors; the handler of aborts, or the function that the vectors call, once breakpoints are set there instead.
    pub entries: Vec<u64>,
    /// That function, if there is one.
    pub called_by_vector: Option<u64>,
    /// Instructions that return from EL2.
    pub exits: Vec<u64>,
    /// Where the function that the vector calls returns to.
    pub ways_back: Vec<u64>,
    /// Functions in between.
    pub functions: Vec<Stop>,
    /// Functions that are no symbols.
    pub missing: Vec<Missing>,
    /// What EL2 may execute.
    pub text: Vec<Span>,
    /// Where each of those is in physical memory.
    pub(super) physical: Vec<u64>,
    /// What is in each of those, as far as it could be read.
    pub(super) contents: Vec<Vec<u8>>,
}

impl Plan {
    /// The plan for a machine as it was captured. No entries: no CPU has EL2's vectors for a host under stage 2 yet.
    ///
    /// # Errors
    /// The link failed.
    pub fn make(target: &mut dyn Target, system: &System) -> Result<Self, TargetError> {
        let mut plan = Self {
            entries: entries(system),
            called_by_vector: called_by_vector(system.hypervisor.kind)
                .and_then(|name| Some(system.symbols.find(name)?.start)),
            ..Self::default()
        };
        plan.read_text(target, system)?;
        plan.find_functions(system);
        Ok(plan)
    }

    /// Finds the functions that are symbols.
    pub(super) fn find_functions(&mut self, system: &System) {
        let functions: &[Function] = match system.hypervisor.kind {
            HypervisorKind::Hyp => &HYP,
            HypervisorKind::Pkvm => &PKVM,
            HypervisorKind::None => &[],
        };
        for function in functions {
            let found = find(system, function);
            if found.is_empty() {
                self.missing.push(Missing {
                    function: function.name.to_owned(),
                    reason: "no such symbol: inlined, or not in this build".to_owned(),
                });
            }
            let known = |stop: &Stop| {
                self.functions
                    .iter()
                    .any(|other| other.place.pc == stop.place.pc)
            };
            let found: Vec<_> = found.into_iter().filter(|stop| !known(stop)).collect();
            self.functions.extend(found);
        }
    }

    /// Where the handler of aborts begins.
    pub fn handlers(&self) -> impl Iterator<Item = u64> {
        let functions = self.functions.iter();
        let handlers = functions.filter(|stop| stop.function.name == HANDLER);
        handlers.map(|stop| stop.place.pc)
    }

    /// The function that begins there.
    pub fn function(&self, pc: u64) -> Option<&Stop> {
        self.functions.iter().find(|stop| stop.place.pc == pc)
    }

    /// Whether EL2 may execute what is there.
    pub fn is_text(&self, pc: u64) -> bool {
        self.text.iter().any(|span| span.contains(pc))
    }

    /// Where an instruction of EL2's is in physical memory.
    pub fn physical(&self, pc: u64) -> Option<u64> {
        let mut text = self.text.iter().zip(&self.physical);
        let (span, pa) = text.find(|(span, _)| span.contains(pc))?;
        Some(pa + (pc - span.start))
    }

    /// Whether the instruction there may write to memory; as far as is known, it may.
    pub(super) fn may_write(&self, pc: u64) -> bool {
        let mut text = self.text.iter().zip(&self.contents);
        let found = text.find(|(span, _)| span.contains(pc));
        let word = found.and_then(|(span, bytes)| {
            let at = usize::try_from(pc - span.start).ok()?;
            bytes.get(at..)?.first_chunk()
        });
        // The embedded machine's PCs are a model, and its text, in which no trap ends, is not what it does.
        self.exits.is_empty() || word.is_none_or(|word| may_write(u32::from_le_bytes(*word)))
    }

    /// Finds what EL2 may execute, and in it the instructions that return.
    fn read_text(&mut self, target: &mut dyn Target, system: &System) -> Result<(), TargetError> {
        let hyp = system.regimes.iter().find(|regime| regime.name == "hyp-s1");
        let entries = hyp.iter().flat_map(|hyp| &hyp.entries);
        let leaves = entries.filter(|entry| {
            matches!(entry.kind, EntryKind::Block | EntryKind::Page)
                && entry
                    .leaf
                    .attributes
                    .is_some_and(|attributes| attributes.execute)
        });
        let mut room = MAX_TEXT;
        let mut physical = Vec::new();
        for entry in leaves {
            let (Some(oa), true) = (entry.leaf.oa, entry.leaf.size <= room) else {
                continue;
            };
            room -= entry.leaf.size;
            self.text.push(Span::new(entry.leaf.ia, entry.leaf.size));
            self.physical.push(oa);
            physical.push(Span::new(oa, entry.leaf.size));
        }
        let contents = target.read_phys(&physical)?;
        self.contents = contents
            .into_iter()
            .map(Result::unwrap_or_default)
            .collect();
        for (span, bytes) in self.text.iter().zip(&self.contents) {
            let exits = erets(bytes).map(|offset| span.start.wrapping_add(offset));
            self.exits.extend(exits);
            if let Some(function) = self.called_by_vector {
                self.ways_back
                    .extend(ways_back(bytes, span.start, function));
            }
        }
        self.exits.sort_unstable();
        self.exits.truncate(MAX_EXITS);
        self.ways_back.truncate(MAX_EXITS);
        Ok(())
    }
}

/// The vectors of CPUs that run their host under stage 2. A CPU in a guest has other vectors; where all are, those for
/// the host are found by name.
fn entries(system: &System) -> Vec<u64> {
    let cpus = system.cpus.iter();
    let under_host = cpus.filter(|cpu| cpu.stage2.as_deref() == Some(super::trap::HOST_STAGE2));
    let vectors = under_host.filter_map(|cpu| cpu.registers.get("VBAR_EL2"));
    let mut entries: Vec<_> = vectors
        .map(|vectors| vectors.wrapping_add(LOWER_SYNC))
        .collect();
    if entries.is_empty() && system.cpus.iter().any(|cpu| cpu.stage2.is_some()) {
        let by_name = system.symbols.find("__kvm_nvhe___kvm_hyp_host_vector");
        entries.extend(by_name.map(|vectors| vectors.start.wrapping_add(LOWER_SYNC)));
    }
    entries.sort_unstable();
    entries.dedup();
    entries
}

/// The addresses behind calls of a function, in code at `start`.
fn ways_back(code: &[u8], start: u64, function: u64) -> impl Iterator<Item = u64> {
    let (words, _) = code.as_chunks::<4>();
    let calls = words.iter().enumerate().map(move |(at, word)| {
        let pc = start.wrapping_add(at as u64 * 4);
        (pc, flow(u32::from_le_bytes(*word), pc))
    });
    let target = Some(function);
    calls
        .filter(move |(_, flow)| *flow == Flow::Call { target })
        .map(|(pc, _)| pc.wrapping_add(4))
}

/// Offsets of instructions that return from an exception.
fn erets(code: &[u8]) -> impl Iterator<Item = u64> {
    let (words, _) = code.as_chunks::<4>();
    let words = words
        .iter()
        .map(|word| u32::from_le_bytes(*word))
        .enumerate();
    words
        .filter(|(_, word)| ERET.contains(word))
        .map(|(at, _)| at as u64 * 4)
}

/// Where a function begins: nowhere, or in several instances.
fn find(system: &System, function: &Function) -> Vec<Stop> {
    let is_it = |name: &str| match system.hypervisor.kind {
        HypervisorKind::Pkvm => name.strip_prefix(NVHE) == Some(function.name),
        _ => match name.rsplit_once("::") {
            Some((path, last)) => last == function.name && path.contains(function.within),
            None => name == function.name,
        },
    };
    let names: std::collections::BTreeSet<&str> =
        system.symbols.names().filter(|name| is_it(name)).collect();
    let stops = names
        .into_iter()
        .flat_map(|name| system.symbols.find_all(name));
    let stops = stops.map(|span| Stop {
        place: Place {
            pc: span.start,
            symbol: Some(function.name.to_owned()),
        },
        size: span.size,
        function: *function,
    });
    stops.collect()
}

#[cfg(test)]
mod tests;
