//! Breakpoints of ours.
//!
//! What servers leave to their client, as seen with QEMU 7.2 and hyp:
//!
//! - `vCont;s:N` and `vCont;c:N` run that CPU alone. A step of QEMU's takes no interrupts, and never ends where the CPU
//!   waits for one.
//! - A CPU that is let run where it stands at a breakpoint, or before a write that is watched for, stops there again at
//!   once. It has to be stepped with these lifted.
//! - hyp's cannot step through a load-exclusive and its store (see `exclusive`).
//! - Both stop before a watched write is performed. A step meets it too, and then has not happened.
//! - Of several CPUs that get to breakpoints together, one stop reply names one.
//! - A CPU of QEMU's that has met a watchpoint in a stop that named another thinks that this was told: it then writes, stops
//!   after that, and names what may be anything where the watchpoint was removed meanwhile. A stop of its own at the
//!   place where it stands, before it writes, ends that: it names the watchpoint then, and meets it anew later.
//! - QEMU keeps breakpoints over a reset, of which it says nothing, and over the end of a connection; `D` clears
//!   them, watchpoints too, and `?` those of one CPU. It counts one that is set twice as two.

use super::link::printable;
use super::run::Machine;
use crate::target::{Breakpoint, TargetError};

const REMOVING: &str = "removing a breakpoint";

/// Breakpoints of ours, and how to ask this server for them.
#[derive(Debug, Default)]
pub(super) struct Breakpoints {
    /// Those that may be set, in the order they were set in.
    pub(super) set: Vec<Breakpoint>,
    /// Whether the server is QEMU, and not hyp.
    pub(super) qemu: bool,
    /// Asks for the PC of the selected CPU.
    pub(super) pc_request: String,
}

impl Breakpoints {
    pub(super) fn request(&self, action: char, breakpoint: Breakpoint) -> String {
        match breakpoint {
            Breakpoint::Code(address) => {
                // hyp has 64 that it writes to memory, and as few as two in debug registers. QEMU needs memory for none,
                // but where it runs guests by KVM for those of kind 0.
                let kind = if self.qemu { 1 } else { 0 };
                format!("{action}{kind},{address:x},4")
            }
            Breakpoint::Write(span) => format!("{action}2,{:x},{:x}", span.start, span.size),
        }
    }

    /// The requests that take all away.
    pub(super) fn removals(&self) -> Vec<String> {
        let all = self.set.iter();
        all.map(|breakpoint| self.request('z', *breakpoint))
            .collect()
    }

    pub(super) fn is_code(&self, address: u64) -> bool {
        self.set.contains(&Breakpoint::Code(address))
    }

    /// Whether a watchpoint is ours.
    pub(super) fn watches(&self, address: u64) -> bool {
        self.set.iter().any(
            |breakpoint| matches!(breakpoint, Breakpoint::Write(span) if span.contains(address)),
        )
    }

    /// What holds a CPU back that stands at `pc`; with `writes`, whatever it writes to, too.
    pub(super) fn holding(&self, pc: u64, writes: bool) -> Vec<Breakpoint> {
        let holds = |breakpoint: &&Breakpoint| match breakpoint {
            Breakpoint::Code(address) => *address == pc,
            Breakpoint::Write(_) => writes,
        };
        self.set.iter().filter(holds).copied().collect()
    }
}

impl Machine {
    pub(super) fn insert_breakpoint(
        &mut self,
        breakpoint: Breakpoint,
    ) -> Result<Result<(), String>, TargetError> {
        let doing = "setting a breakpoint";
        self.ensure_stopped(doing)?;
        if self.breakpoints.set.contains(&breakpoint) {
            return Ok(Ok(()));
        }
        // It counts as set before it is: whatever becomes of the reply, it is taken away again.
        self.breakpoints.set.push(breakpoint);
        let reply = self
            .link
            .ask(doing, &self.breakpoints.request('Z', breakpoint))?;
        if reply == b"OK" {
            return Ok(Ok(()));
        }
        self.breakpoints.set.pop();
        Ok(Err(refusal(&reply)))
    }

    pub(super) fn remove_breakpoint(&mut self, breakpoint: Breakpoint) -> Result<(), TargetError> {
        if self.breakpoints.set.contains(&breakpoint) {
            self.ensure_stopped(REMOVING)?;
            // One that is gone already is answered with an error, and gone.
            self.link
                .ask(REMOVING, &self.breakpoints.request('z', breakpoint))?;
            self.breakpoints.set.retain(|other| *other != breakpoint);
        }
        Ok(())
    }
}

/// Why a breakpoint was refused: hyp's numbers are Linux's, QEMU has one for everything.
fn refusal(reply: &[u8]) -> String {
    match reply {
        b"" => "the server has no such breakpoints".to_owned(),
        b"E01" => "hyp's debugger itself runs there".to_owned(),
        b"E0e" => "nothing is mapped there that could stop a CPU".to_owned(),
        b"E1c" => "the server has no room for another".to_owned(),
        other => format!("the server answered `{}`", printable(other)),
    }
}
