//! Host traps followed from their entry to their end, as stories: plain data, made from what was seen.
//!
//! | module | question |
//! |---|---|
//! | [`trap`] | what did the hardware say at the entry, and what is there at the address? |
//! | [`choice`] | which range has to be mapped, and why is it no larger? |
//! | [`plan`] | where are CPUs to be stopped? |
//! | [`Follower`] | what do CPUs do between those places? |
//! | [`difference`] | what did the tables, owners, counts and locks become? |
//!
//! A story says what was seen at the places where the CPU was stopped, and what follows from the tables before and
//! after; which of both, its [`Road`] says.

mod asking;
mod boot;
mod branch;
mod calls;
pub mod choice;
pub mod difference;
mod ending;
mod error;
mod follow;
mod following;
mod gate;
pub mod plan;
mod steps;
pub mod trap;
mod wanted;

pub use error::FollowError;
pub use follow::Follower;
pub use gate::Gates;
pub use wanted::{Until, Wanted};

#[cfg(test)]
pub(crate) mod testing;

use crate::addr::Span;
use crate::arch::desc::Descriptor;
use crate::arch::esr;
use crate::arch::regime::Regime;
use crate::arch::walk::Translation;
use crate::model::{Entry, Owner, OwnerRange, State, Tickets};
use choice::Choice;
use std::fmt;

/// One exception that the host took to EL2, from its entry to its end.
#[derive(Clone, PartialEq, Debug)]
pub struct Story {
    /// The CPU.
    pub cpu: usize,
    /// The host's instruction that the exception returns to: `ELR_EL2`.
    pub host: Place,
    /// The exception level it came from: `SPSR_EL2.M`.
    pub from: u8,
    /// `ESR_EL2`.
    pub esr: u64,
    /// What brought the host to EL2.
    pub cause: Cause,
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// Words of tables that changed.
    pub writes: Vec<Write>,
    /// What else changed.
    pub changes: Changes,
    /// How it ended.
    pub outcome: Outcome,
    /// Where the CPU went on: `ELR_EL2` at the exception's return. `None` where that was not seen.
    pub after: Option<Place>,
    /// Instructions at EL2 from the road's entry on, where they were stepped.
    pub instructions: Option<u64>,
    /// How it was followed.
    pub road: Road,
    /// What could not be seen, one sentence each; the rest is there.
    pub problems: Vec<String>,
}

impl Story {
    /// The abort that it is about; `None` for a hypercall.
    pub fn fault(&self) -> Option<&Fault> {
        match &self.cause {
            Cause::Abort(fault) => Some(fault),
            Cause::Call(_) => None,
        }
    }

    /// All that this CPU mapped for an abort: the leaf around the address, or, of kernels that ask for several blocks at
    /// once, all of them.
    pub fn mapped(&self) -> Option<Span> {
        let Outcome::Mapped { leaf, .. } = self.outcome else {
            return None;
        };
        let seen = self
            .fault()
            .and_then(|fault| fault.choice.as_ref()?.seen)
            .filter(|seen| seen.covers(leaf));
        Some(seen.unwrap_or(leaf))
    }
}

/// An address in a program, by name where it has one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The address.
    pub pc: u64,
    /// `name` or `name+0x40`.
    pub symbol: Option<String>,
}

/// What brought the host to EL2.
#[derive(Clone, PartialEq, Debug)]
pub enum Cause {
    /// A stage-2 abort.
    Abort(Box<Fault>),
    /// `HVC`.
    Call(Call),
}

/// A stage-2 abort as the hardware reported it, and what was there.
#[derive(Clone, PartialEq, Debug)]
pub struct Fault {
    /// `FAR_EL2`: the virtual address.
    pub far: u64,
    /// `HPFAR_EL2`.
    pub hpfar: u64,
    /// The intermediate physical address, where the syndrome vouches for `HPFAR_EL2`.
    pub ipa: Option<u64>,
    /// What is at that address.
    pub memory: Memory,
    /// The state of its page on all sides, before; `None` for what is no RAM.
    pub page: Option<OwnerRange>,
    /// The walk of the address, before.
    pub walk: Option<Walk>,
    /// The range to be mapped; `None` where nothing may be mapped.
    pub choice: Option<Choice>,
}

/// What an intermediate physical address is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Memory {
    /// RAM that is not taken from the host.
    Ram {
        /// The region of RAM.
        region: Span,
    },
    /// RAM that its owner keeps from the host.
    Taken {
        /// The region of RAM.
        region: Span,
        /// The owner that the annotation names.
        owner: Owner,
        /// The part of the hypervisor's own memory, where it is known.
        section: Option<String>,
    },
    /// Between the regions of RAM: devices, or nothing.
    Mmio {
        /// From the end of one region to the start of the next.
        gap: Span,
        /// Who keeps it from the host, if somebody does.
        owner: Option<Owner>,
    },
    /// Beyond what the host's stage 2 translates.
    Beyond,
    /// The hardware does not say which address it was.
    Unknown,
}

/// A translation, with what it takes to decode its words.
#[derive(Clone, PartialEq, Debug)]
pub struct Walk {
    /// The regime's name.
    pub regime: String,
    /// How its words are decoded.
    pub decode: Regime,
    /// Every word looked at, and the end.
    pub translation: Translation,
    /// The entry that covers the address, with what the hypervisor means by it.
    pub entry: Option<Entry>,
}

/// A hypercall.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// The function's number, `x0` without what marks a call of the hypervisor's vendor.
    pub id: u64,
    /// The function's name, where the hypervisor says it.
    pub name: Option<String>,
    /// `x1` to `x6`.
    pub arguments: Vec<u64>,
    /// `x0` afterwards: 0, or −1 for a function that does not exist.
    pub status: Option<u64>,
    /// `x1` afterwards.
    pub result: Option<i64>,
    /// States of the pages that the arguments name, before and after.
    pub pages: Vec<OwnerChange>,
}

/// The part of handling a trap that a step belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stage {
    /// The exception is taken.
    Trap,
    /// Why and where is found out.
    Decode,
    /// The lock is taken.
    Lock,
    /// The leaf is looked up.
    LookUp,
    /// A range is chosen.
    Choose,
    /// The range is mapped.
    Map,
    /// The host is refused.
    Refuse,
    /// The lock is released.
    Unlock,
    /// Back to the host.
    Return,
}

impl Stage {
    /// All, in the order in which they come.
    pub const ALL: [Self; 9] = [
        Self::Trap,
        Self::Decode,
        Self::Lock,
        Self::LookUp,
        Self::Choose,
        Self::Map,
        Self::Refuse,
        Self::Unlock,
        Self::Return,
    ];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Trap => "trap",
            Self::Decode => "decode",
            Self::Lock => "lock",
            Self::LookUp => "look-up",
            Self::Choose => "choose",
            Self::Map => "map",
            Self::Refuse => "refuse",
            Self::Unlock => "unlock",
            Self::Return => "return",
        })
    }
}

/// One thing that was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// What it is part of.
    pub stage: Stage,
    /// Where it was seen, or the vector that the exception was taken to; `None` where it follows from what was before and
    /// after.
    pub place: Option<Place>,
    /// What was done, in one clause.
    pub text: String,
    /// The lock it is about.
    pub lock: Option<LockStep>,
}

/// A lock as it stood at a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockStep {
    /// Its short name.
    pub name: String,
    /// Its halves.
    pub tickets: Tickets,
    /// The CPU that holds it, where that is known.
    pub holder: Option<u64>,
}

/// A word of a table that changed.
#[derive(Clone, PartialEq, Debug)]
pub struct Write {
    /// The regime's name.
    pub regime: String,
    /// Its physical address.
    pub at: u64,
    /// Level of its table: −1…3.
    pub level: i8,
    /// First input address that it covers.
    pub ia: u64,
    /// Bytes of input address that it covers.
    pub size: u64,
    /// What it was; `None` in a table page that was not linked before.
    pub old: Option<Word>,
    /// What it became; `None` in a table page that is linked no more.
    pub new: Option<Word>,
}

/// A word of a table, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    /// What the architecture says.
    pub descriptor: Descriptor,
    /// The state that its own side gives it.
    pub state: Option<State>,
    /// Who owns what it maps or annotates.
    pub owner: Option<Owner>,
}

/// What changed besides the words of tables.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Changes {
    /// Pages whose joint state changed.
    pub owners: Vec<OwnerChange>,
    /// Table pages that were linked.
    pub tables_linked: Vec<u64>,
    /// Table pages that are linked no more.
    pub tables_freed: Vec<u64>,
    /// Reference counts of pool pages.
    pub counts: Vec<CountChange>,
    /// Locks that were taken or released.
    pub locks: Vec<LockChange>,
}

/// Pages whose joint state changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnerChange {
    /// The pages.
    pub pa: Span,
    /// What they were; `None` where that is not known.
    pub before: Option<OwnerRange>,
    /// What they became.
    pub after: Option<OwnerRange>,
}

/// A pool page whose reference count changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CountChange {
    /// The pool's name.
    pub pool: String,
    /// The page.
    pub pa: u64,
    /// The count before.
    pub before: u16,
    /// The count after.
    pub after: u16,
}

/// A lock whose tickets changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockChange {
    /// Its short name.
    pub name: String,
    /// Before.
    pub before: Tickets,
    /// After.
    pub after: Tickets,
}

/// How a story ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// This CPU mapped the address.
    Mapped {
        /// What the new leaf covers.
        leaf: Span,
        /// The leaf's level.
        level: i8,
    },
    /// The address was mapped when this CPU looked.
    AlreadyMapped {
        /// What the leaf covers; `None` where yet another CPU was changing it again at the end.
        leaf: Option<Span>,
        /// The CPU that mapped it, if its story is known.
        by: Option<usize>,
    },
    /// The host got an exception in place of the access.
    Refused {
        /// What it was given.
        exception: Injected,
        /// The branch that decided it, where the CPU was stepped.
        branch: Option<Branch>,
    },
    /// The hypervisor did in the host's place what the instruction was to do.
    Emulated,
    /// The hypercall returned.
    Returned,
    /// The hypervisor panicked.
    Panic {
        /// Where.
        at: Place,
    },
    /// Back at the same instruction with nothing changed: the host will fault again.
    GaveUp {
        /// The branch that decided it, where the CPU was stepped.
        branch: Option<Branch>,
    },
    /// The CPU went elsewhere: into a guest, or never out of EL2.
    Left {
        /// Where it was last seen.
        to: Place,
    },
}

impl Outcome {
    /// The outcome's name, as documents write it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mapped { .. } => "mapped",
            Self::AlreadyMapped { .. } => "already-mapped",
            Self::Refused { .. } => "refused",
            Self::Emulated => "emulated",
            Self::Returned => "returned",
            Self::Panic { .. } => "panic",
            Self::GaveUp { .. } => "gave-up",
            Self::Left { .. } => "left",
        }
    }
}

/// An exception that the hypervisor made the host take, as its registers stood at the return.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Injected {
    /// Offset of the host's vector from `VBAR_EL1`, where that is known.
    pub vector: Option<u64>,
    /// `ESR_EL1`.
    pub esr: Option<u64>,
    /// `FAR_EL1`.
    pub far: Option<u64>,
    /// `ELR_EL1`.
    pub elr: Option<u64>,
}

impl Injected {
    /// The syndrome in words. `S1PTW` is none of a stage-1 fault's (DDI 0487, ESR_EL1): Linux's pKVM sets it to tell the host
    /// that the fault was at stage 2.
    pub fn what(&self) -> Option<String> {
        const S1PTW: u64 = 1 << 7;
        let esr = self.esr?;
        let is_marked = matches!(esr >> 26 & 0x3f, 0x20 | 0x21 | 0x24 | 0x25) && esr & S1PTW != 0;
        Some(match is_marked {
            true => format!("{}, marked as stage 2's", esr::describe(esr & !S1PTW)),
            false => esr::describe(esr),
        })
    }
}

/// A conditional branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Branch {
    /// Where it is.
    pub at: Place,
    /// Where it led.
    pub to: Place,
    /// Whether it was taken; otherwise it led to the next instruction.
    pub taken: bool,
    /// The instruction in words; `None` where memory does not hold it.
    pub instruction: Option<String>,
    /// The function whose code it is, which may be inlined in the one that `at` names; `None` where no debug information
    /// says it.
    pub function: Option<String>,
    /// Its line, where that is known: `file:line`.
    pub source: Option<String>,
}

/// How a story was followed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Road {
    /// Where the entry was seen.
    pub entry: Option<Place>,
    /// Where the end was seen.
    pub exit: Option<Place>,
    /// Functions that the CPU was stopped at, in the order in which it came to them.
    pub functions: Vec<Place>,
    /// Functions that are no stops, and what stands in for them.
    pub missing: Vec<Missing>,
    /// What the writes were found by.
    pub writes: Comparison,
    /// Whether the CPU was stepped, the others standing.
    pub stepped: bool,
}

/// A function that is no stop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    /// Its name.
    pub function: String,
    /// Why not: `no such symbol`, or the server's words.
    pub reason: String,
}

/// Between which two looks at the tables the words changed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Comparison {
    /// From the entry to the end: other CPUs may have written, too.
    #[default]
    EntryToEnd,
    /// While this CPU held the lock, or it never came to where it would have written: these are its own.
    UnderLock,
}
