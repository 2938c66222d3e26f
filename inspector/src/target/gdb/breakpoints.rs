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
use super::step::word;
use crate::target::{Breakpoint, TargetError};

const REMOVING: &str = "removing breakpoints";

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

    /// The PC in a stop reply that names it: `T05thread:01;20:0010204040000000;`.
    pub(super) fn pc_in(&self, stop: &[u8]) -> Option<u64> {
        let number = self.pc_request.strip_prefix('p')?;
        let mut parts = stop.get(3..)?.split(|byte| *byte == b';');
        parts.find_map(|part| word(part.strip_prefix(number.as_bytes())?.strip_prefix(b":")?))
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
    pub(super) fn insert_breakpoints(
        &mut self,
        breakpoints: &[Breakpoint],
    ) -> Result<Vec<Result<(), String>>, TargetError> {
        let doing = "setting breakpoints";
        self.ensure_stopped(doing)?;
        let mut added: Vec<Breakpoint> = Vec::new();
        for breakpoint in breakpoints {
            if !self.breakpoints.set.contains(breakpoint) && !added.contains(breakpoint) {
                added.push(*breakpoint);
            }
        }
        // They count as set before they are: whatever becomes of the replies, they are taken away again.
        self.breakpoints.set.extend(&added);
        // An exchange may be begun anew, and QEMU counts what is set twice as two: each is taken away first.
        let pairs = added
            .iter()
            .flat_map(|breakpoint| ['z', 'Z'].map(|action| (action, *breakpoint)));
        let requests: Vec<_> = pairs
            .map(|(action, breakpoint)| self.breakpoints.request(action, breakpoint))
            .collect();
        let replies = self.link.exchange(doing, &requests)?;
        let replies = replies.iter().skip(1).step_by(2);
        let refused: Vec<_> = added
            .into_iter()
            .zip(replies)
            .filter(|(_, reply)| *reply != b"OK")
            .map(|(breakpoint, reply)| (breakpoint, refusal(reply)))
            .collect();
        let find = |breakpoint: &Breakpoint| refused.iter().find(|(of, _)| of == breakpoint);
        self.breakpoints.set.retain(|set| find(set).is_none());
        let answer = |breakpoint| match find(breakpoint) {
            Some((_, reason)) => Err(reason.clone()),
            None => Ok(()),
        };
        Ok(breakpoints.iter().map(answer).collect())
    }

    pub(super) fn remove_breakpoints(
        &mut self,
        breakpoints: &[Breakpoint],
    ) -> Result<(), TargetError> {
        let ours = &self.breakpoints;
        let gone: Vec<_> = breakpoints
            .iter()
            .copied()
            .filter(|breakpoint| ours.set.contains(breakpoint))
            .collect();
        if !gone.is_empty() {
            let requests: Vec<_> = gone
                .iter()
                .map(|breakpoint| ours.request('z', *breakpoint))
                .collect();
            self.ensure_stopped(REMOVING)?;
            // One that is gone already is answered with an error, and gone.
            self.link.exchange(REMOVING, &requests)?;
            self.breakpoints.set.retain(|set| !gone.contains(set));
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
