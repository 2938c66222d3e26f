//! How a client of QEMU that is killed is known to the next one, and what it left is cleared.
//!
//! QEMU keeps breakpoints when a connection closes and stops at them with nobody there; only `D` and `?` clear them, `?`
//! those of one CPU. It lists them nowhere, and `?` says `T05` whatever the machine stopped for. But `z` is answered `OK` where there was a
//! breakpoint and `E22` where there was none (all seen on 7.2), so one can be asked for whose address is known:
//!
//! - While it is attached, an inspector has a breakpoint where no instruction can be: its mark. It removes it when it
//!   leaves, so a mark that is found is that of an inspector that was killed. There are two, to know what it cannot put
//!   back any more: whether the machine ran when it came.
//! - A CPU that an earlier client's breakpoint stopped still stands there, and one that a watchpoint stopped before the
//!   access.
//!
//! Breakpoints of somebody else's killed client elsewhere cannot be seen; they are cleared all the same. A client that
//! is killed before its mark is set, its third request, has read nothing and leaves nothing but a machine that stands.

use super::access::accessed;
use super::registers::Layout;
use super::run::Machine;
use crate::addr::Span;
use crate::target::{Registers, RunControl, TargetError};
use std::collections::BTreeMap;

const LOOKING: &str = "looking for an earlier client's breakpoints";

/// The breakpoint that an attached inspector has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mark {
    /// The machine ran before.
    Ran,
    /// It stood.
    Stood,
}

impl Mark {
    /// Neither aligned as an instruction is, nor within the 56 bits that are not a tag, sign-extended.
    fn address(self) -> u64 {
        u64::from_be_bytes(match self {
            Self::Ran => *b"inspectR",
            Self::Stood => *b"inspectS",
        })
    }

    /// As a hardware breakpoint: where QEMU runs guests by KVM, others are written to memory.
    fn set(self) -> String {
        format!("Z1,{:x},4", self.address())
    }

    /// Answered `OK` if it was set.
    pub(super) fn remove(self) -> String {
        format!("z1,{:x},4", self.address())
    }
}

/// What was found of an earlier client.
#[derive(Debug)]
pub(super) struct Traces {
    /// The mark of an inspector that was killed.
    mark: Option<Mark>,
    /// CPUs that stand at a breakpoint, with their PCs.
    stopped: BTreeMap<u64, usize>,
    /// CPUs that stand before an access to a watchpoint, which begins there.
    watching: Vec<(usize, u64)>,
}

impl Traces {
    /// Looks for the mark of an earlier inspector, and sets the own one.
    pub(super) fn find(machine: &mut Machine) -> Result<Self, TargetError> {
        let own = match machine.found_running() {
            true => Mark::Ran,
            false => Mark::Stood,
        };
        machine.mark = Some(own);
        // In one write: QEMU acts on all of it or on none, whenever this process is killed.
        let requests = [Mark::Ran.remove(), Mark::Stood.remove(), own.set()];
        let replies = machine
            .link
            .exchange("looking for an earlier client's mark", &requests)?;
        let mark = [Mark::Ran, Mark::Stood]
            .into_iter()
            .zip(&replies)
            .find_map(|(mark, reply)| (reply == b"OK").then_some(mark));
        machine.ran_before = mark == Some(Mark::Ran);
        Ok(Self {
            mark,
            stopped: BTreeMap::new(),
            watching: Vec::new(),
        })
    }

    /// Clears all breakpoints but the own mark, and finds out which of them CPUs stand at.
    pub(super) fn clear(
        &mut self,
        machine: &mut Machine,
        layout: &Layout,
    ) -> Result<(), TargetError> {
        let registers = general_registers(machine, layout)?;
        let mut pcs = BTreeMap::new();
        for (cpu, registers) in registers.iter().enumerate() {
            if let Some(pc) = registers.get("pc") {
                pcs.entry(pc).or_insert(cpu);
            }
        }
        let requests: Vec<_> = pcs
            .keys()
            .flat_map(|pc| [format!("z0,{pc:x},4"), format!("z1,{pc:x},4")])
            .collect();
        let replies = machine.link.exchange(LOOKING, &requests)?;
        let mut replies = replies.chunks(2);
        self.stopped = pcs
            .into_iter()
            .filter(|_| {
                replies
                    .next()
                    .is_some_and(|pair| pair.contains(&b"OK".to_vec()))
            })
            .collect();
        // A machine that runs has met none.
        if !machine.found_running() {
            for (cpu, registers) in registers.iter().enumerate() {
                let watched = clear_watchpoint(machine, cpu, registers)?;
                self.watching.extend(watched.map(|at| (cpu, at)));
            }
        }
        // Should this process be killed too, the next one is to know that the machine ran before either came.
        if machine.ran_before {
            machine.mark = Some(Mark::Ran);
        }
        // Each `?` clears those of one CPU only, the one that `Hc` selects (7.2).
        let threads = machine.threads.iter();
        let clears = threads.flat_map(|thread| [format!("Hc{}", thread.id), "?".to_owned()]);
        let requests: Vec<_> = clears.chain(machine.mark.map(Mark::set)).collect();
        machine
            .link
            .exchange("clearing an earlier client's breakpoints", &requests)?;
        Ok(())
    }

    /// What the user should know, in sentences. `stale_mode` says that physical memory mode was found on.
    pub(super) fn notes(&self, stale_mode: bool, found_running: bool) -> Vec<String> {
        let mut notes = Vec::new();
        if stale_mode {
            notes.push(
                "QEMU's physical memory mode was still on, so an earlier client was killed while it read; it is off now."
                    .to_owned(),
            );
        }
        if self.mark.is_some() {
            notes.push(
                "An earlier inspector was killed; breakpoints that it may have left are cleared."
                    .to_owned(),
            );
        }
        for (pc, cpu) in &self.stopped {
            notes.push(format!(
                "CPU {cpu} stands at a breakpoint that an earlier client left, at {pc:#x}; all breakpoints are cleared."
            ));
        }
        for (cpu, at) in &self.watching {
            notes.push(format!(
                "CPU {cpu} stands at a watchpoint that an earlier client left, on {at:#x}; all watchpoints are cleared."
            ));
        }
        match self.mark {
            Some(Mark::Ran) if !found_running => notes.push(
                "The machine ran before that inspector came, and stands since: continue it in the TUI (key c), and it \
                 runs on when you leave."
                    .to_owned(),
            ),
            None if stale_mode && !found_running => notes.push(
                "If the machine ran before that client came, it stands since.".to_owned(),
            ),
            _ => {}
        }
        notes
    }
}

/// The general registers of all CPUs.
fn general_registers(
    machine: &mut Machine,
    layout: &Layout,
) -> Result<Vec<Registers>, TargetError> {
    let threads = machine.threads.iter();
    let requests: Vec<_> = threads
        .flat_map(|thread| [format!("Hg{}", thread.id), "g".to_owned()])
        .collect();
    let link = &mut machine.link;
    let replies = link.exchange(LOOKING, &requests)?;
    let general = replies.iter().skip(1).step_by(2);
    general
        .map(|general| layout.values(link, LOOKING, std::slice::from_ref(general)))
        .collect()
}

/// Removes the watchpoint that a CPU stands at, if it stands at one; where that begins.
fn clear_watchpoint(
    machine: &mut Machine,
    cpu: usize,
    registers: &Registers,
) -> Result<Option<u64>, TargetError> {
    let (Some(thread), Some(pc)) = (machine.threads.get(cpu), registers.get("pc")) else {
        return Ok(None);
    };
    let id = thread.id.clone();
    let code = machine.code(LOOKING, &id, pc)?;
    let register = |number| match number {
        31 => registers.get("sp"),
        number => registers.get(&format!("x{number}")),
    };
    let Some(span) = code.first().and_then(|word| accessed(*word, register)) else {
        return Ok(None);
    };
    let places = watchpoints(span);
    let requests: Vec<_> = places
        .iter()
        .flat_map(|place| {
            [2, 3, 4].map(|kind| format!("z{kind},{:x},{:x}", place.start, place.size))
        })
        .collect();
    let replies = machine.link.exchange(LOOKING, &requests)?;
    let mut found = places.iter().zip(replies.chunks(3));
    let found = found.find(|(_, replies)| replies.contains(&b"OK".to_vec()));
    Ok(found.map(|(place, _)| place.start))
}

/// Where watchpoints may be that an access meets. A server removes only what is named exactly; debuggers watch a variable of
/// 1 to 8 bytes, at a multiple of its size.
fn watchpoints(access: Span) -> Vec<Span> {
    let last = access.last().unwrap_or(access.start);
    [1, 2, 4, 8_u64]
        .into_iter()
        .flat_map(|size| {
            let first = access.start & !(size - 1);
            let starts = std::iter::successors(Some(first), move |at| at.checked_add(size));
            let starts = starts.take_while(move |at| *at <= last);
            starts.map(move |start| Span::new(start, size))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_may_meet_what_overlaps_it() {
        let met = watchpoints(Span::new(0x1006, 4));
        let of = |size| met.iter().filter(move |span| span.size == size);
        let starts = |size| of(size).map(|span| span.start).collect::<Vec<_>>();
        assert_eq!(starts(1), [0x1006, 0x1007, 0x1008, 0x1009]);
        assert_eq!(starts(4), [0x1004, 0x1008]);
        assert_eq!(starts(8), [0x1000, 0x1008]);
        assert_eq!(watchpoints(Span::new(u64::MAX, 1)).len(), 4);
    }
}
