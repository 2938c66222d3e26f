//! Running a machine up to something: what ends a run, and seeing at each stop whether that was it.

use super::follow::is_restart;
use super::{Machine, Point, Report, Worker};
use crate::abort::{self, Follower, Gates};
use crate::addr::Span;
use crate::arch::disassembly::{Flow, flow};
use crate::model::Tickets;
use crate::target::{Breakpoint, RunControl, RunState, Target};
use std::time::{Duration, Instant};

/// How long a stop is waited for before commands are looked at again.
pub(super) const WAIT: Duration = Duration::from_millis(20);

/// Memory that a run ends at when it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watch {
    /// What it is: `lock host`, `descriptor 0x40312048 of host-s2`.
    pub what: String,
    /// Its bytes as EL2 addresses them; 4 of a lock, 8 of anything else.
    pub at: Span,
    /// Its physical address.
    pub pa: u64,
    /// Which writes are wanted.
    pub until: Until,
}

/// Which writes are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// Those that change the value.
    Changed,
    /// The one that takes the lock, or a ticket for it.
    Taken,
    /// The one that takes a ticket while another CPU has the lock.
    Contended,
}

/// A write that was waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// What was watched.
    pub watch: Watch,
    /// The CPU that wrote.
    pub cpu: usize,
    /// The instruction that wrote.
    pub pc: u64,
    /// What it was.
    pub old: u64,
    /// What it became.
    pub new: u64,
}

/// What a run is to end at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Goal {
    /// A CPU under the host's stage 2; from there on to a point of a trap.
    Ready { point: Point, gates: Gates },
    /// A CPU behind the function that it calls, its stack as it was.
    Behind {
        cpu: usize,
        pc: u64,
        sp: Option<u64>,
    },
    /// A write; the value as it was last seen.
    Write { watch: Watch, old: u64 },
    /// A CPU at the entry of an abort.
    Entry,
    /// A trap that ended like this.
    Outcome(abort::Until),
    /// More steps of the abort that a CPU is in, or its end.
    Stage { cpu: usize, steps: usize },
    /// The end of the abort that a CPU is in.
    End { cpu: usize },
}

impl Goal {
    /// What only this run ends at; traps have stops of their own.
    fn breakpoint(&self) -> Option<Breakpoint> {
        match self {
            Self::Behind { pc, .. } => Some(Breakpoint::Code(*pc)),
            Self::Write { watch, .. } => Some(Breakpoint::Write(watch.at)),
            _ => None,
        }
    }
}

impl Until {
    fn is_met(self, old: u64, new: u64) -> bool {
        // A lock is watched by its 4 bytes.
        let tickets = |word: u64| Tickets::of_word(word as u32);
        let took = tickets(old).next != tickets(new).next;
        match self {
            Self::Changed => old != new,
            Self::Taken => took,
            Self::Contended => took && tickets(new).waiters() > 0,
        }
    }
}

/// The run control of a machine that can run.
pub(super) fn control(machine: &mut dyn Machine) -> anyhow::Result<&mut dyn RunControl> {
    machine
        .run_control()
        .ok_or_else(|| anyhow::anyhow!("a file does not run"))
}

/// A little-endian word of memory.
fn read(target: &mut dyn Target, span: Span) -> anyhow::Result<u64> {
    let answer = target.read_phys(&[span])?.pop();
    let bytes = answer.ok_or_else(|| anyhow::anyhow!("no answer for {span}"))??;
    let bytes = bytes.iter().rev();
    Ok(bytes.fold(0, |word, byte| word << 8 | u64::from(*byte)))
}

/// What stopped a machine that ran.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// Something in it, on this CPU where the server says which.
    ByItself(Option<usize>),
    /// We did, to look at it.
    Ours,
}

/// What a stop turned out to be.
enum Verdict {
    /// Not what is waited for.
    GoOn,
    /// The end of the run; with the write that was waited for.
    Done(Option<Written>),
}

impl Worker {
    /// Has one CPU execute one instruction, the others standing.
    pub(super) fn step(&mut self, cpu: usize, report: &dyn Fn(Report)) -> anyhow::Result<()> {
        self.standing_machine()?;
        report(Report::Working("stepping"));
        self.step_one(cpu, report)?;
        self.capture(report)
    }

    /// The same, but a function that it calls is run through, together with the other CPUs.
    pub(super) fn step_over(&mut self, cpu: usize, report: &dyn Fn(Report)) -> anyhow::Result<()> {
        let registers = self.standing_machine()?.target().registers(cpu)?;
        let code = self.last.as_ref().and_then(|last| last.code.get(cpu));
        let pc = registers.get("pc");
        let word = pc.and_then(|pc| code?.word_at(pc));
        match pc.zip(word) {
            Some((pc, word)) if matches!(flow(word, pc), Flow::Call { .. }) => {
                let pc = pc.wrapping_add(4);
                let sp = registers.get("sp");
                self.aim(Goal::Behind { cpu, pc, sp }, "stepping over", report)
            }
            _ => self.step(cpu, report),
        }
    }

    /// Runs up to a write.
    pub(super) fn watch(&mut self, watch: Watch, report: &dyn Fn(Report)) -> anyhow::Result<()> {
        let span = Span::new(watch.pa, watch.at.size);
        let old = read(self.standing_machine()?.target(), span)?;
        // While one CPU is stepped through its trap the others stand, and who writes is not seen.
        if self.follower.as_ref().is_some_and(Follower::only_steps) {
            self.disarm(report)?;
        }
        self.aim(Goal::Write { watch, old }, "waiting for a write", report)
    }

    /// Sets the user's breakpoint, or takes it away.
    pub(super) fn set_breakpoint(
        &mut self,
        pc: u64,
        set: bool,
        report: &dyn Fn(Report),
    ) -> anyhow::Result<()> {
        let breakpoint = Breakpoint::Code(pc);
        let answer = self.standing(report, |machine| {
            let control = control(machine)?;
            match set {
                true => Ok(control.insert(breakpoint)?),
                false => Ok(Ok(control.remove(breakpoint)?)),
            }
        })?;
        if let Err(reason) = answer {
            report(Report::Failed(format!(
                "no breakpoint at {pc:#x}: {reason}"
            )));
            return Ok(());
        }
        self.breakpoints.retain(|other| *other != pc);
        if set {
            self.breakpoints.push(pc);
        }
        report(Report::Breakpoints(self.breakpoints.clone()));
        Ok(())
    }

    /// Lets the machine run up to something.
    pub(super) fn aim(
        &mut self,
        goal: Goal,
        doing: &'static str,
        report: &dyn Fn(Report),
    ) -> anyhow::Result<()> {
        let control = control(self.standing_machine()?)?;
        if let Some(breakpoint) = goal.breakpoint()
            && let Err(reason) = control.insert(breakpoint)?
        {
            let what = match &goal {
                Goal::Write { watch, .. } => format!("{} cannot be watched", watch.what),
                _ => "no breakpoint behind the call".to_owned(),
            };
            report(Report::Failed(format!("{what}: {reason}")));
            return Ok(());
        }
        // Until there is a host under stage 2, the machine runs only while its gates are watched.
        if !matches!(goal, Goal::Ready { .. }) {
            control.resume()?;
        }
        self.goal = Some(goal);
        self.running = true;
        self.stopped = Instant::now();
        report(Report::Run(RunState::Running));
        report(Report::Working(doing));
        Ok(())
    }

    /// Whether it is waited for the machine itself, commands being looked at in between.
    pub(super) fn waits(&self) -> bool {
        self.goal.is_some() || self.running && self.follower.is_some()
    }

    /// Waits a little for the machine to stop by itself.
    pub(super) fn wait(&mut self) -> anyhow::Result<Option<RunState>> {
        let limit = if self.waits() { WAIT } else { Duration::ZERO };
        let Some(machine) = self.machine.as_deref_mut() else {
            return Ok(None);
        };
        let control = machine.run_control();
        Ok(control.map(|control| control.wait(limit)).transpose()?)
    }

    /// A running machine has stopped by itself, or was stopped to be looked at: goes on unless it is where it was to run to.
    pub(super) fn stopped(&mut self, stop: Stop, report: &dyn Fn(Report)) -> anyhow::Result<()> {
        self.stopped = Instant::now();
        let written = match self.look(stop, report) {
            Ok(Verdict::GoOn) => {
                control(self.open_machine()?)?.resume()?;
                return Ok(());
            }
            Ok(Verdict::Done(written)) => written,
            // The capture finds that, too, and it is said then.
            Err(error) if is_restart(&error) => None,
            Err(error) => return Err(error),
        };
        self.running = false;
        self.forget_goal()?;
        self.capture(report)?;
        if let Some(written) = written {
            report(Report::Written(written));
        }
        self.check_panic()
    }

    /// Takes away what only the end of this run was found by. The machine stands.
    pub(super) fn forget_goal(&mut self) -> anyhow::Result<()> {
        let goal = self.goal.take();
        if let Some(breakpoint) = goal.and_then(|goal| goal.breakpoint()) {
            let users = |pc: &u64| Breakpoint::Code(*pc) == breakpoint;
            if !self.breakpoints.iter().any(users) {
                control(self.open_machine()?)?.remove(breakpoint)?;
            }
        }
        Ok(())
    }

    /// Sees whether a stop is what is waited for. It may be the user's breakpoint just as well, or a stop of a trap
    /// that is followed.
    fn look(&mut self, stop: Stop, report: &dyn Fn(Report)) -> anyhow::Result<Verdict> {
        let cpus = self.open_machine()?.target().all_registers()?;
        if matches!(stop, Stop::Ours) {
            self.check_boot()?;
        }
        let ended = self.see(report)?;
        // It is said once the stop is shown.
        if self.check_panic().is_err() {
            return Ok(Verdict::Done(None));
        }
        let pcs: Vec<_> = cpus.iter().map(|registers| registers.get("pc")).collect();
        let stands_at =
            |breakpoints: &[u64]| pcs.iter().flatten().any(|pc| breakpoints.contains(pc));
        if stands_at(&self.breakpoints) {
            return Ok(Verdict::Done(None));
        }
        let set = control(self.open_machine()?)?.breakpoints();
        let set: Vec<_> = set
            .iter()
            .filter_map(|breakpoint| match breakpoint {
                Breakpoint::Code(pc) => Some(*pc),
                Breakpoint::Write(_) => None,
            })
            .collect();
        // The last stop of a trap may be gone by now.
        let ours = stands_at(&set) || !ended.is_empty() || matches!(stop, Stop::Ours);
        let other = match ours {
            true => Verdict::GoOn,
            false => Verdict::Done(None),
        };
        let Some(goal) = self.goal.clone() else {
            return Ok(other);
        };
        let done = match goal {
            Goal::Behind { cpu, pc, sp } => {
                // Not in a call of the same function by itself.
                pcs.get(cpu) == Some(&Some(pc)) && cpus[cpu].get("sp") == sp
            }
            Goal::Write { watch, old } => {
                let writer = match stop {
                    Stop::ByItself(Some(cpu)) => pcs.get(cpu).and_then(|pc| Some((cpu, (*pc)?))),
                    Stop::ByItself(None) | Stop::Ours => None,
                };
                return match writer.filter(|(_, pc)| !set.contains(pc)) {
                    Some((cpu, pc)) => self.look_at_write(watch, old, cpu, pc, report),
                    None => Ok(other),
                };
            }
            _ => self.is_at(&goal, &cpus, &ended),
        };
        Ok(if done { Verdict::Done(None) } else { other })
    }

    /// A CPU stands before a write that is watched for: has it write. It may come to the user's breakpoint by that.
    fn look_at_write(
        &mut self,
        watch: Watch,
        old: u64,
        cpu: usize,
        pc: u64,
        report: &dyn Fn(Report),
    ) -> anyhow::Result<Verdict> {
        self.step_one(cpu, report)?;
        let span = Span::new(watch.pa, watch.at.size);
        let new = read(self.open_machine()?.target(), span)?;
        if watch.until.is_met(old, new) {
            let written = Written {
                watch,
                cpu,
                pc,
                old,
                new,
            };
            return Ok(Verdict::Done(Some(written)));
        }
        self.goal = Some(Goal::Write { watch, old: new });
        Ok(match self.hit()? {
            true => Verdict::Done(None),
            false => Verdict::GoOn,
        })
    }

    /// Whether a machine that was to be interrupted had come to a breakpoint meanwhile.
    pub(super) fn hit(&mut self) -> anyhow::Result<bool> {
        if self.breakpoints.is_empty() {
            return Ok(false);
        }
        let cpus = self.open_machine()?.target().all_registers()?;
        let mut pcs = cpus.iter().filter_map(|registers| registers.get("pc"));
        Ok(pcs.any(|pc| self.breakpoints.contains(&pc)))
    }

    /// The machine, which has to stand.
    pub(super) fn standing_machine(&mut self) -> anyhow::Result<&mut dyn Machine> {
        let stands = !self.running && self.goal.is_none();
        anyhow::ensure!(stands, "the machine runs: stop it first");
        self.open_machine()
    }

    pub(super) fn open_machine(&mut self) -> anyhow::Result<&mut dyn Machine> {
        match self.machine.as_deref_mut() {
            Some(machine) => Ok(machine),
            None => anyhow::bail!("the link is lost"),
        }
    }
}
