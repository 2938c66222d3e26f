//! Where bytes come from: a gdb server, or a file that remembers a machine.
//!
//! A target knows nothing of hypervisors. What it cannot do it answers with `None`.

mod core;
pub mod dump;
pub mod gdb;
mod recorder;
pub mod rsp;
pub mod snapshot;
#[cfg(test)]
pub(crate) mod testing;

pub use recorder::Recorder;

use crate::addr::Span;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Opens what a name stands for: `HOST:PORT`, `:PORT` (on 127.0.0.1), `unix:PATH`, or a file.
///
/// `timeout` is how long a silent server is waited for, each time.
///
/// # Errors
/// One sentence that says what is wrong with the name, the server or the file.
pub fn open(name: &str, timeout: Duration) -> Result<Box<dyn Target>, TargetError> {
    if let Some(address) = gdb::Address::parse(name)? {
        return Ok(Box::new(gdb::Gdb::attach(name, &address, timeout)?));
    }
    let file = core::open(Path::new(name)).map_err(|reason| TargetError::Open {
        target: name.to_owned(),
        reason,
    })?;
    Ok(match dump::Dump::open(name, file)? {
        Some(dump) => Box::new(dump),
        None => Box::new(snapshot::Snapshot::open(name)?),
    })
}

/// Set it, from a handler of Ctrl-C for example, and every wait of every target of this process ends with
/// [`TargetError::Cancelled`]; the targets are then dropped in the ordinary way and leave their machines as found.
pub fn cancellation() -> &'static Arc<AtomicBool> {
    static CANCELLED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
    &CANCELLED
}

/// Why a target as a whole failed; after this nothing more can be read from it.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The name of the target does not say what it is, or nothing is there.
    #[error("{target}: {reason}")]
    Open {
        /// What the user asked for.
        target: String,
        /// What was tried, what was seen, and what to do.
        reason: String,
    },
    /// The link was fine and then broke.
    #[error("{target}: link lost while {doing}: {reason}")]
    Lost {
        /// What the user asked for.
        target: String,
        /// What the client was doing.
        doing: String,
        /// What the system or the server said.
        reason: String,
    },
    /// The server stayed silent.
    #[error(
        "{target}: no answer within {seconds} s while {doing}; is another client attached? (--timeout sets the limit)"
    )]
    Timeout {
        /// What the user asked for.
        target: String,
        /// What the client was doing.
        doing: String,
        /// The limit that passed.
        seconds: f64,
    },
    /// The user asked to stop: see [`cancellation`].
    #[error("{target}: interrupted while {doing}")]
    Cancelled {
        /// What the user asked for.
        target: String,
        /// What the client was doing.
        doing: String,
    },
    /// A snapshot could not be written; nothing was left behind.
    #[error("{path}: {reason}")]
    Save {
        /// The file.
        path: String,
        /// What the system said, or what does not fit.
        reason: String,
    },
    /// The server answered what it may not.
    #[error("{target}: {doing}: {reason}")]
    Protocol {
        /// What the user asked for.
        target: String,
        /// What the client was doing.
        doing: String,
        /// The answer, and what was expected.
        reason: String,
    },
}

/// Why one range of physical memory could not be read; others may be fine.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// The range is not, or not all, in the machine's RAM: the read was not performed.
    #[error("nothing is backed at physical {0}")]
    Unbacked(Span),
    /// The machine refused.
    #[error("physical {span} is unreadable: {reason}")]
    Refused {
        /// What was asked for.
        span: Span,
        /// The machine's answer.
        reason: String,
    },
    /// A snapshot or a memory dump does not hold it.
    #[error("physical {0} is not in this file")]
    NotSaved(Span),
}

/// The registers of one CPU by name.
///
/// General registers are `x0`…`x30`, `sp`, `pc`, `cpsr`; system registers have their architectural
/// name in upper case (`VTTBR_EL2`), whatever the server calls them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Registers(pub BTreeMap<String, u64>);

impl Registers {
    /// The value of a register, or `None` where this CPU or server has none of that name.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// The exception level that `cpsr` says.
    pub fn exception_level(&self) -> Option<u8> {
        self.get("cpsr").map(|cpsr| (cpsr >> 2 & 3) as u8)
    }
}

/// Something that holds a machine's memory and registers.
///
/// A target is stopped while it is read: whoever opens it keeps it so until it is dropped or resumed.
/// Dropping it leaves the machine as it was found.
pub trait Target: Send {
    /// What the user asked for, for messages and for the `target` field of documents.
    fn name(&self) -> &str;

    /// How many CPUs there are; they are numbered from 0.
    ///
    /// # Errors
    /// The link failed.
    fn cpu_count(&mut self) -> Result<usize, TargetError>;

    /// All registers of one CPU that can be read.
    ///
    /// # Errors
    /// The link failed.
    fn registers(&mut self, cpu: usize) -> Result<Registers, TargetError>;

    /// Those of every CPU, in order: over a link, in one wait for all.
    ///
    /// # Errors
    /// The link failed.
    fn all_registers(&mut self) -> Result<Vec<Registers>, TargetError> {
        let cpus = 0..self.cpu_count()?;
        cpus.map(|cpu| self.registers(cpu)).collect()
    }

    /// At least these registers of every CPU, in order, as far as each has them: what is asked for often.
    ///
    /// # Errors
    /// The link failed.
    fn some_registers(&mut self, names: &[&str]) -> Result<Vec<Registers>, TargetError> {
        let _ = names;
        self.all_registers()
    }

    /// The machine's RAM as the target itself knows it, in order of address.
    ///
    /// # Errors
    /// The link failed.
    fn ram(&mut self) -> Result<Option<Vec<Span>>, TargetError>;

    /// Reads ranges of physical memory, all in as few waits as the link allows.
    /// The answers stand in the order of the requests; each is exactly as long as asked.
    ///
    /// # Errors
    /// The link failed. What is wrong with one range is that range's [`ReadError`].
    fn read_phys(
        &mut self,
        requests: &[Span],
    ) -> Result<Vec<Result<Vec<u8>, ReadError>>, TargetError>;

    /// The self-description a hypervisor exports over its own channel, as JSON text.
    ///
    /// # Errors
    /// The link failed.
    fn description(&mut self) -> Result<Option<String>, TargetError>;

    /// What the target remembers of symbols and types, as JSON text (snapshots do).
    ///
    /// # Errors
    /// The file is damaged.
    fn saved_symbols(&mut self) -> Result<Option<String>, TargetError> {
        Ok(None)
    }

    /// What is missing of the machine, in sentences: no answer is complete then.
    fn problems(&self) -> Vec<String> {
        Vec::new()
    }

    /// What the user should know of how the target was found, in sentences.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Run control, where the machine can run.
    fn run_control(&mut self) -> Option<&mut dyn RunControl> {
        None
    }
}

/// Whether the machine runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RunState {
    /// CPUs execute; memory and registers cannot be read.
    Running,
    /// All CPUs stand still.
    Stopped {
        /// The CPU that stopped the others, where the server named one.
        cpu: Option<usize>,
        /// Why, in the server's or our words (`signal 2`, `about to write to 0x40001000`).
        reason: String,
    },
    /// The machine ended.
    Exited,
}

/// What makes CPUs stop. Addresses are virtual, in whichever regime a CPU is in when it gets there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Breakpoint {
    /// The instruction at this address: a CPU stops before it executes it.
    Code(u64),
    /// These bytes: a CPU stops before it writes to any of them. So its PC is that of the writing instruction and memory
    /// still holds the old value; [`RunControl::step`] has it write.
    Write(Span),
}

/// Making a machine run and stop.
///
/// Several CPUs may get to breakpoints at once, and [`RunState::Stopped`] names one of them: who sets breakpoints looks
/// at the PC of each CPU after a stop. Dropping the target takes all its breakpoints away.
pub trait RunControl {
    /// Whether the machine ran when it was found.
    fn found_running(&self) -> bool;

    /// The state as of the last packet seen; waits for nothing.
    ///
    /// # Errors
    /// The link failed.
    fn state(&mut self) -> Result<RunState, TargetError>;

    /// Lets all CPUs run. Does nothing when they do.
    ///
    /// Those that stand at a breakpoint of ours are stepped first, each while all others stand. If one of them gets to
    /// the next breakpoint by that, the machine stays stopped, and its state says so.
    ///
    /// # Errors
    /// The link failed.
    fn resume(&mut self) -> Result<(), TargetError>;

    /// Stops all CPUs and waits until they stand. Does nothing when they do.
    ///
    /// # Errors
    /// The link failed, or the machine did not stop in time.
    fn interrupt(&mut self) -> Result<(), TargetError>;

    /// Waits up to `limit` for the machine to stop by itself.
    ///
    /// # Errors
    /// The link failed.
    fn wait(&mut self, limit: Duration) -> Result<RunState, TargetError>;

    /// Sets breakpoints on all CPUs of a machine that stands, all in one exchange. One that is set stays so.
    ///
    /// An answer for each, in order: `Err(reason)` when the server refuses this one: it has no room, or nothing is there.
    ///
    /// # Errors
    /// The link failed, or the machine runs.
    fn insert_all(
        &mut self,
        breakpoints: &[Breakpoint],
    ) -> Result<Vec<Result<(), String>>, TargetError>;

    /// Takes breakpoints of ours away, on a machine that stands, all in one exchange. Those that are not set are left out.
    ///
    /// # Errors
    /// The link failed, or the machine runs.
    fn remove_all(&mut self, breakpoints: &[Breakpoint]) -> Result<(), TargetError>;

    /// Sets one breakpoint, as [`RunControl::insert_all`] does.
    ///
    /// # Errors
    /// The link failed, or the machine runs.
    fn insert(&mut self, breakpoint: Breakpoint) -> Result<Result<(), String>, TargetError> {
        let answer = self.insert_all(&[breakpoint])?.pop();
        Ok(answer.unwrap_or(Ok(())))
    }

    /// Takes one breakpoint away, as [`RunControl::remove_all`] does.
    ///
    /// # Errors
    /// The link failed, or the machine runs.
    fn remove(&mut self, breakpoint: Breakpoint) -> Result<(), TargetError> {
        self.remove_all(&[breakpoint])
    }

    /// Those of ours that are set, in the order they were set in.
    fn breakpoints(&self) -> Vec<Breakpoint>;

    /// Has one CPU execute one instruction while all others stand, and returns its new PC. Breakpoints of ours do not
    /// hold it back. A CPU that waits for an interrupt stays where it is.
    ///
    /// # Errors
    /// The link failed, the machine runs, or that CPU is off.
    fn step(&mut self, cpu: usize) -> Result<u64, TargetError>;
}

/// Sorts ranges and joins those that touch or overlap; empty ones vanish.
pub(crate) fn merge(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|span| span.size > 0);
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.start - last.start <= last.size => {
                last.size = last
                    .size
                    .max((span.start - last.start).saturating_add(span.size));
            }
            _ => merged.push(span),
        }
    }
    merged
}

/// Whether all of `span` lies in the ranges of `merged`, which [`merge`] made.
pub(crate) fn covered(merged: &[Span], span: Span) -> bool {
    let after = merged.partition_point(|range| range.start <= span.start);
    span.size == 0
        || merged[..after]
            .last()
            .is_some_and(|range| range.covers(span))
}
