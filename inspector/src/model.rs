//! What was captured: plain data, read by every view and by nothing that reads a machine.

mod names;
mod page_records;
mod symbols;
#[cfg(test)]
pub(crate) mod testing;
mod translation;

pub use names::UnknownName;
pub use page_records::PageRecords;
pub use symbols::{Symbols, View};

use crate::addr::Span;
use crate::arch::regime::Regime;
use crate::arch::walk;
pub use crate::image::{Source, Symbol};
use crate::target::{Registers, RunState};
use std::collections::BTreeMap;

/// One capture of a machine.
#[derive(Clone, PartialEq, Debug)]
pub struct System {
    /// Everything asked for was read and understood.
    pub complete: bool,
    /// Why not, one sentence each.
    pub problems: Vec<String>,
    /// The hypervisor that was found.
    pub hypervisor: Hypervisor,
    /// What was found, and where each fact came from.
    pub facts: Vec<Fact>,
    /// PA − VA, wrapping, of the linear range of EL2.
    pub physvirt_offset: Option<u64>,
    /// RAM that the hypervisor manages, in order.
    pub ram: Vec<Span>,
    /// Translation regimes in the order of documents: `host-s2`, `hyp-s1`, guests.
    pub regimes: Vec<RegimeCapture>,
    /// Every RAM page's joint state, merged, in order; covers `ram`.
    pub owners: Vec<OwnerRange>,
    /// The VMs that the hypervisor knows, in order of their handles.
    pub vms: Vec<Vm>,
    /// Why it cannot know any, in one sentence; `None` where `vms` is all there is.
    pub no_vms: Option<String>,
    /// Every lock known.
    pub locks: Vec<Lock>,
    /// Why others are not, in one sentence; `None` where `locks` is all there is.
    pub no_locks: Option<String>,
    /// Every CPU, in order.
    pub cpus: Vec<Cpu>,
    /// Page pools with reference counts.
    pub pools: Vec<Pool>,
    /// Where it keeps a record of each page of RAM, if it does.
    pub page_records: Option<PageRecords>,
    /// The host's hypercalls by number, as far as their functions' names are known.
    pub hypercalls: BTreeMap<u64, String>,
    /// The hypervisor's own memory by section, where it says so.
    pub sections: Vec<Section>,
    /// The symbols known, for search and for naming addresses.
    pub symbols: Symbols,
    /// The run state the machine was found in; not part of any document.
    pub run_state: Option<RunState>,
}

/// What runs at EL2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hypervisor {
    /// Which.
    pub kind: HypervisorKind,
    /// Its release, where it says.
    pub release: Option<String>,
    /// `nvhe`, `hvhe`.
    pub mode: Option<&'static str>,
    /// Where page state is kept: `descriptor` or `vmemmap`.
    pub page_state_in: Option<&'static str>,
    /// Bits that hold the owner of an annotation: `9:2` or `63:60`.
    pub owner_encoding: Option<&'static str>,
}

/// Which hypervisor was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HypervisorKind {
    /// Ours.
    Hyp,
    /// Linux.
    Pkvm,
    /// None was found.
    None,
}

/// Something found out, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fact {
    /// What it is (`host-s2 root`).
    pub what: String,
    /// Its value, as shown.
    pub value: String,
    /// Where it came from (`VTTBR_EL2 of CPU 0`, `HYP.host.pgt.root in hyp.elf`).
    pub source: String,
}

/// The tables of one regime.
#[derive(Clone, PartialEq, Debug)]
pub struct RegimeCapture {
    /// `host-s2`, `hyp-s1`, `guest-s2:0x1000`.
    pub name: String,
    /// How to read it.
    pub regime: Regime,
    /// Table pages in the order they were found.
    pub tables: Vec<walk::Table>,
    /// Entries in order of input address.
    pub entries: Vec<Entry>,
}

/// One descriptor with what the hypervisor means by it.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// What the architecture says.
    pub leaf: walk::Entry,
    /// What kind of row it is.
    pub kind: EntryKind,
    /// The side's own state.
    pub state: Option<State>,
    /// Who owns what it maps or annotates.
    pub owner: Option<Owner>,
    /// Where the guest that owns it sees the page: an intermediate physical address, from the annotation.
    pub guest_ipa: Option<u64>,
}

/// The `kind` of the contract.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EntryKind {
    /// Valid leaf above level 3.
    Block,
    /// Valid leaf at level 3.
    Page,
    /// Invalid, with an owner.
    Annotation,
    /// Invalid, not zero, without an owner.
    Invalid,
    /// A reserved form.
    Reserved,
    /// A table walked already.
    Loop,
    /// A table that cannot be read.
    Unreadable,
}

/// State of a page on one side.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// Exclusive.
    Owned,
    /// Ours, lent.
    SharedOwned,
    /// Not ours, usable.
    SharedBorrowed,
    /// Not ours, not usable.
    NoPage,
    /// Encoding 0b11.
    Reserved,
    /// The pages under one block differ.
    Mixed,
}

/// Who owns a page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Owner {
    /// The host at EL1.
    Host,
    /// The hypervisor.
    Hyp,
    /// The secure world by FF-A.
    Ffa,
    /// A VM by its handle.
    Guest(u64),
    /// Break-before-make in progress.
    Locked,
    /// A guest's page that was taken back.
    Poisoned,
    /// An id that the layout does not name.
    Unknown(u64),
}

/// Owner of a row of `owners`: like [`Owner`], or a fault.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum JointOwner {
    /// One side owns it.
    One(Owner),
    /// No side does.
    None,
    /// Two sides claim it as their own.
    Conflict,
    /// A side could not be read.
    Unknown,
}

/// Neighbouring pages of RAM in the same joint state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnerRange {
    /// Physical range.
    pub pa: Span,
    /// Who owns it.
    pub owner: JointOwner,
    /// The host's side; `None` where a table could not be read.
    pub host: Option<State>,
    /// The hypervisor's side; `None` where a table could not be read.
    pub hyp: Option<State>,
    /// Guests' sides.
    pub guests: Vec<GuestSide>,
    /// Share or pin count, where the layout has one.
    pub refcount: Option<u64>,
    /// Row J1…J10 of the table of legal joint states; `None` when it is in none.
    pub rule: Option<&'static str>,
}

/// A guest's side of a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestSide {
    /// The VM.
    pub handle: u64,
    /// Where it sees the first page.
    pub ipa: u64,
    /// Its state.
    pub state: State,
}

/// A VM that the hypervisor knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vm {
    /// What the host calls it.
    pub handle: u64,
    /// Physical address of the hypervisor's object; `None` while only the handle is reserved.
    pub pa: Option<u64>,
    /// Whether its memory is hidden from the host.
    pub protected: Option<bool>,
    /// How far it has come.
    pub state: VmState,
    /// VMID that its translations are tagged with.
    pub vmid: Option<u64>,
    /// Its vCPUs in order.
    pub vcpus: Vec<Vcpu>,
    /// What its own tables say; `None` where it has none, or they could not be read.
    pub pages: Option<VmPages>,
}

impl Vm {
    /// What the regime of its stage 2 is called.
    pub fn regime_name(&self) -> String {
        format!("guest-s2:{:#x}", self.handle)
    }
}

/// How far a VM has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmState {
    /// Its handle is taken, and nothing else.
    Reserved,
    /// The hypervisor has an object for it.
    Initialised,
    /// It can run.
    Created,
    /// It is being taken down.
    Dying,
    /// The kernel does not say.
    Unknown,
}

/// Bytes of guest memory by state, and poisoned entries.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct VmPages {
    /// The guest's own.
    pub owned: u64,
    /// Lent to the host.
    pub shared: u64,
    /// Borrowed from the host.
    pub borrowed: u64,
    /// Taken back by force.
    pub poisoned: u64,
}

/// A vCPU that the hypervisor knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vcpu {
    /// Its number in the VM, from 0.
    pub number: u64,
    /// Physical address of the hypervisor's object.
    pub pa: Option<u64>,
    /// The CPU it is loaded on.
    pub cpu: Option<usize>,
}

/// A ticket lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lock {
    /// Short name: `host`, `hyp`.
    pub name: String,
    /// Where it is in the program (`HYP.host.lock`).
    pub symbol: String,
    /// Physical address of the word.
    pub pa: u64,
    /// The two halves; `None` when the word could not be read.
    pub tickets: Option<Tickets>,
    /// Who holds it.
    pub holder: Option<Holder>,
}

/// The two u16 halves of a ticket lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tickets {
    /// The ticket being served.
    pub owner: u16,
    /// The next ticket to be handed out.
    pub next: u16,
}

impl Tickets {
    /// Those in the word of a ticket lock, of Linux's EL2 and of hyp: the one being served is the lower half.
    pub fn of_word(word: u32) -> Self {
        Self {
            owner: word as u16,
            next: (word >> 16) as u16,
        }
    }

    /// Someone holds the lock.
    pub fn held(self) -> bool {
        self.owner != self.next
    }

    /// CPUs that wait behind the holder.
    pub fn waiters(self) -> u16 {
        self.next.wrapping_sub(self.owner).saturating_sub(1)
    }
}

/// Who holds a lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The CPU.
    pub cpu: u64,
    /// The lock itself says so, or it follows from where CPUs stand.
    pub how: HolderSource,
    /// Where the lock was taken.
    pub pc: Option<u64>,
    /// That place by name.
    pub symbol: Option<String>,
    /// What an inferred holder follows from, in one clause.
    pub by: Option<String>,
}

/// How a holder is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HolderSource {
    /// The lock records its holder.
    Recorded,
    /// Worked out.
    Inferred,
}

/// One CPU as it stood.
#[derive(Clone, PartialEq, Debug)]
pub struct Cpu {
    /// Its number, from 0.
    pub number: usize,
    /// Exception level.
    pub el: Option<u8>,
    /// Program counter.
    pub pc: Option<u64>,
    /// The program counter by name (`host_mem_abort+0x40`).
    pub symbol: Option<String>,
    /// The line of the program counter in the function that `symbol` names.
    pub source: Option<Source>,
    /// Functions that were inlined where the program counter is, innermost first.
    pub inlines: Vec<Frame>,
    /// Where it will return to, innermost first, without the program counter itself.
    pub calls: Vec<Frame>,
    /// The regime whose tables `VTTBR_EL2` names, if it was captured.
    pub stage2: Option<String>,
    /// The vCPU that is loaded: the VM's handle and its number.
    pub vcpu: Option<(u64, u64)>,
    /// All registers that were read.
    pub registers: Registers,
}

/// A place that a function will return to, or a function that was inlined there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The address, without authentication code.
    pub pc: u64,
    /// That place by name; of a function that was inlined, just its name.
    pub symbol: Option<String>,
    /// The line of that place in its function, once lines were asked for.
    pub source: Option<Source>,
    /// It was inlined into the function of the next frame: nothing returns from it.
    pub inlined: bool,
    /// An exception was taken there; elsewhere a call is before it.
    pub interrupted: bool,
}

impl Frame {
    /// A place behind a call.
    pub fn returning(pc: u64, symbol: Option<String>) -> Self {
        Self {
            pc,
            symbol,
            source: None,
            inlined: false,
            interrupted: false,
        }
    }

    /// A place where an exception was taken.
    pub fn interrupted(pc: u64, symbol: Option<String>) -> Self {
        Self {
            interrupted: true,
            ..Self::returning(pc, symbol)
        }
    }
}

impl Cpu {
    /// What the registers say; its place in the program is not named yet.
    pub fn new(number: usize, registers: Registers) -> Self {
        Self {
            number,
            el: registers.exception_level(),
            pc: registers.get("pc"),
            symbol: None,
            source: None,
            inlines: Vec::new(),
            calls: Vec::new(),
            stage2: None,
            vcpu: None,
            registers,
        }
    }
}

/// Table pages handed out by the hypervisor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    /// `host-pool`, `hyp-pool`.
    pub name: String,
    /// What it hands out.
    pub pages: Span,
    /// Reference count of each page; `None` when the records could not be read.
    pub refcounts: Option<Vec<u16>>,
}

/// A named part of the hypervisor's own memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Section {
    /// `text`, `rodata`, `data`, `bss`, `stacks`, `host-rodata`, …
    pub name: String,
    /// Physical range.
    pub pa: Span,
}
