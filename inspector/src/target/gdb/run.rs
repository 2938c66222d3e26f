//! Run control, and leaving the machine as it was found.

use super::breakpoints::Breakpoints;
use super::link::{Link, is_stop, printable};
use super::mark::Mark;
use super::step::Stepped;
use crate::target::{Breakpoint, RunControl, RunState, TargetError};
use std::time::Duration;

/// A CPU as the server names it: `01`, or `p01.01` once a client of this QEMU has negotiated `multiprocess`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Thread {
    process: u64,
    number: u64,
    /// As the server wrote it.
    pub(super) id: String,
}

impl Thread {
    /// Reads a thread id; both numbers are hexadecimal.
    pub(super) fn parse(id: &str) -> Option<Self> {
        let (process, number) = match id.strip_prefix('p') {
            Some(both) => both.split_once('.')?,
            None => ("1", id),
        };
        Some(Self {
            process: u64::from_str_radix(process, 16).ok()?,
            number: u64::from_str_radix(number, 16).ok()?,
            id: id.to_owned(),
        })
    }
}

/// The address of a watchpoint in a stop reply: `T05thread:01;watch:ffff000000401000;`.
pub(super) fn watch_address(packet: &[u8]) -> Option<u64> {
    let text = str::from_utf8(packet).ok()?;
    let digits = text.split(';').find_map(|part| {
        let (kind, address) = part.split_once(':')?;
        kind.ends_with("watch").then_some(address)
    })?;
    u64::from_str_radix(digits, 16).ok()
}

/// What a stop reply says: `T02thread:p01.02;`, `S05`, `W00`, `X09`.
pub(super) fn parse_stop(packet: &[u8], threads: &[Thread]) -> RunState {
    let text = String::from_utf8_lossy(packet);
    if matches!(packet.first(), Some(b'W' | b'X')) {
        return RunState::Exited;
    }
    let thread = text
        .split_once("thread:")
        .and_then(|(_, rest)| Thread::parse(rest.split(';').next()?));
    let signal = text.get(1..3).unwrap_or_default();
    RunState::Stopped {
        cpu: thread.and_then(|thread| {
            threads
                .iter()
                .position(|other| (other.process, other.number) == (thread.process, thread.number))
        }),
        reason: match u8::from_str_radix(signal, 16) {
            Ok(signal) => format!("signal {signal}"),
            Err(_) => "stopped".to_owned(),
        },
    }
}

/// The link to a machine and whether it runs. Dropping it leaves the machine running or standing, as it was found.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) link: Link,
    /// One a CPU, in the order of CPUs.
    pub(super) threads: Vec<Thread>,
    pub(super) state: RunState,
    found_running: bool,
    /// Those that may be set.
    pub(super) breakpoints: Breakpoints,
    /// The CPU that stands before a write that we watch for, as far as the server has told.
    pub(super) before_write: Option<usize>,
    /// The CPU that was stepped last, if no other has run since.
    pub(super) stepped: Option<Stepped>,
    /// The thread that QEMU was told to step, until that has ended.
    pub(super) stepping: Option<String>,
    /// A client that was killed has stopped it: then it is left running if it runs.
    pub(super) ran_before: bool,
    /// The mark that may be set in QEMU.
    pub(super) mark: Option<Mark>,
}

impl Machine {
    /// A machine that attaching stops, if it runs.
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            threads: Vec::new(),
            state: RunState::Stopped {
                cpu: None,
                reason: "as it was found".to_owned(),
            },
            found_running: false,
            breakpoints: Breakpoints::default(),
            before_write: None,
            stepped: None,
            stepping: None,
            ran_before: false,
            mark: None,
        }
    }

    /// Takes in whether the machine ran. A server stops one that does, by SIGINT, and says so before it answers: QEMU when
    /// a client connects, hyp when it is greeted.
    pub(super) fn take_found(&mut self) {
        let stop = self.link.take_stop();
        self.found_running = stop.is_some_and(|stop| stop.starts_with(b"T02"));
        if self.found_running {
            self.state = RunState::Stopped {
                cpu: None,
                reason: "by attaching".to_owned(),
            };
        }
    }

    /// Fails unless the machine stands still.
    pub(super) fn ensure_stopped(&self, doing: &str) -> Result<(), TargetError> {
        match self.state {
            RunState::Stopped { .. } => Ok(()),
            RunState::Running => Err(self.link.protocol(doing, "the machine runs: stop it first")),
            RunState::Exited => Err(self.link.protocol(doing, "the machine has ended")),
        }
    }
}

impl RunControl for Machine {
    fn found_running(&self) -> bool {
        self.found_running
    }

    fn state(&mut self) -> Result<RunState, TargetError> {
        self.wait(Duration::ZERO)
    }

    fn resume(&mut self) -> Result<(), TargetError> {
        if matches!(self.state, RunState::Stopped { .. }) && !self.step_off_breakpoints()? {
            self.link.settle("letting the machine run")?;
            self.state = RunState::Running;
            self.stepped = None;
            self.link.send_only("letting the machine run", "vCont;c")?;
        }
        Ok(())
    }

    fn interrupt(&mut self) -> Result<(), TargetError> {
        let doing = "stopping the machine";
        if self.state()? == RunState::Running {
            self.link.send_interrupt(doing)?;
            let limit = self.link.timeout();
            if self.wait(limit)? == RunState::Running {
                return Err(self.link.protocol(
                    doing,
                    format!("it did not stop within {} s", limit.as_secs_f64()),
                ));
            }
        }
        Ok(())
    }

    fn wait(&mut self, limit: Duration) -> Result<RunState, TargetError> {
        let doing = "waiting for the machine to stop";
        if matches!(self.state, RunState::Stopped { .. }) {
            // Nothing is due, but this is how a link that broke meanwhile is noticed.
            self.link.packet_within(doing, Duration::ZERO)?;
        }
        if self.state == RunState::Running
            && let Some(packet) = self.link.packet_within(doing, limit)?
        {
            if is_stop(&packet) {
                self.stopped(&packet)?;
            } else if packet.first() != Some(&b'O') {
                // `O…` is text of the debuggee's. Anything else is the answer to what let it run.
                self.state = RunState::Stopped {
                    cpu: None,
                    reason: "would not run".to_owned(),
                };
                let reason = format!("the server answered `{}`", printable(&packet));
                return Err(self.link.protocol("letting the machine run", reason));
            }
        }
        Ok(self.state.clone())
    }

    fn insert_all(
        &mut self,
        breakpoints: &[Breakpoint],
    ) -> Result<Vec<Result<(), String>>, TargetError> {
        self.insert_breakpoints(breakpoints)
    }

    fn remove_all(&mut self, breakpoints: &[Breakpoint]) -> Result<(), TargetError> {
        self.remove_breakpoints(breakpoints)
    }

    fn breakpoints(&self) -> Vec<Breakpoint> {
        self.breakpoints.set.clone()
    }

    fn step(&mut self, cpu: usize) -> Result<u64, TargetError> {
        self.step_one(cpu)
    }
}

impl Machine {
    fn leave(&mut self) -> Result<(), TargetError> {
        let doing = "leaving the machine as it was found";
        self.link.begin_leaving(doing)?;
        if !self.link.is_greeted() {
            self.take_found();
        }
        let running = self.state == RunState::Running;
        let runs_on = self.found_running || running && self.ran_before;
        // On a machine that runs, no breakpoint can be removed.
        if running && (!runs_on || self.mark.is_some() || !self.breakpoints.set.is_empty()) {
            self.interrupt()?;
        }
        if !matches!(self.state, RunState::Stopped { .. }) {
            return Ok(());
        }
        self.call_off_step(doing)?;
        let mut requests = self.breakpoints.removals();
        // `D` removes it.
        requests.extend(self.mark.filter(|_| !runs_on).map(Mark::remove));
        self.link.exchange(doing, &requests)?;
        if runs_on {
            // Closing the connection would leave the machine paused. `D` lets even a machine run that was paused, so it is said only here; it clears all breakpoints. A bare `D` is
            // refused by QEMU once a client has negotiated `multiprocess`.
            let process = self.threads.first().map_or(1, |thread| thread.process);
            self.link.ask(doing, &format!("D;{process:x}"))?;
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !self.link.is_lost() {
            // There is nobody left to tell of an error.
            let _ = self.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads() -> Vec<Thread> {
        ["p01.01", "p01.0a"]
            .map(|id| Thread::parse(id).unwrap())
            .to_vec()
    }

    #[test]
    fn thread_ids_of_both_forms() {
        let number = |id| Thread::parse(id).map(|thread| (thread.process, thread.number));
        assert_eq!(number("01"), Some((1, 1)));
        assert_eq!(number("p01.0a"), Some((1, 10)));
        for wrong in ["", "p1", "px.1", "p1.", "-1", "p1.2.3"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn stop_replies() {
        let stopped = |cpu, reason: &str| RunState::Stopped {
            cpu,
            reason: reason.to_owned(),
        };
        let cases = [
            ("T02thread:p01.0a;", stopped(Some(1), "signal 2")),
            ("T05thread:0a;watch:40;", stopped(Some(1), "signal 5")),
            ("T05hwbreak:;thread:p01.01;", stopped(Some(0), "signal 5")),
            ("T05thread:p01.7;", stopped(None, "signal 5")),
            ("S05", stopped(None, "signal 5")),
            ("W00", RunState::Exited),
            ("X09", RunState::Exited),
        ];
        for (packet, state) in cases {
            assert!(is_stop(packet.as_bytes()));
            assert_eq!(parse_stop(packet.as_bytes(), &threads()), state, "{packet}");
        }
    }
}
