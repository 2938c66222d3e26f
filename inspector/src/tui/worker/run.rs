//! Running a machine up to something: what ends a run, and seeing at each stop whether that was it.

use super::{Machine, Report, Worker};
use crate::addr::Span;
use crate::arch::disassembly::{Flow, flow};
use crate::model::Tickets;
use crate::target::{Breakpoint, Registers, RunControl, RunState, Target};
use std::time::Duration;

/// How long a stop is waited for before commands are looked at again.
const WAIT: Duration = Duration::from_millis(20);

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
    /// A CPU behind the function that it calls, its stack as it was.
    Behind {
        cpu: usize,
        pc: u64,
        sp: Option<u64>,
    },
    /// A write; the value as it was last seen.
    Write { watch: Watch, old: u64 },
}

impl Goal {
    fn breakpoint(&self) -> Breakpoint {
        match self {
            Self::Behind { pc, .. } => Breakpoint::Code(*pc),
            Self::Write { watch, .. } => Breakpoint::Write(watch.at),
        }
    }
}

impl Until {
    fn is_met(self, old: u64, new: u64) -> bool {
        let tickets = |word: u64| Tickets {
            owner: word as u16,
            next: (word >> 16) as u16,
        };
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
        report(Report::Working("stepping"));
        control(self.standing_machine()?)?.step(cpu)?;
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
        let answer = self.standing(|machine| {
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
    fn aim(
        &mut self,
        goal: Goal,
        doing: &'static str,
        report: &dyn Fn(Report),
    ) -> anyhow::Result<()> {
        let breakpoint = goal.breakpoint();
        let control = control(self.standing_machine()?)?;
        if let Err(reason) = control.insert(breakpoint)? {
            let what = match &goal {
                Goal::Behind { pc, .. } => format!("no breakpoint at {pc:#x}"),
                Goal::Write { watch, .. } => format!("{} cannot be watched", watch.what),
            };
            report(Report::Failed(format!("{what}: {reason}")));
            return Ok(());
        }
        control.resume()?;
        self.goal = Some(goal);
        self.running = true;
        report(Report::Run(RunState::Running));
        report(Report::Working(doing));
        Ok(())
    }

    /// Waits a little for the machine to stop by itself.
    pub(super) fn wait(&mut self) -> anyhow::Result<Option<RunState>> {
        let limit = if self.goal.is_some() {
            WAIT
        } else {
            Duration::ZERO
        };
        let Some(machine) = self.machine.as_deref_mut() else {
            return Ok(None);
        };
        let control = machine.run_control();
        Ok(control.map(|control| control.wait(limit)).transpose()?)
    }

    /// A running machine has stopped by itself: goes on unless it is where it was to run to.
    pub(super) fn stopped(
        &mut self,
        cpu: Option<usize>,
        report: &dyn Fn(Report),
    ) -> anyhow::Result<()> {
        let written = match self.look(cpu)? {
            Verdict::GoOn => {
                control(self.open_machine()?)?.resume()?;
                return Ok(());
            }
            Verdict::Done(written) => written,
        };
        self.running = false;
        self.forget_goal()?;
        self.capture(report)?;
        if let Some(written) = written {
            report(Report::Written(written));
        }
        Ok(())
    }

    /// Takes away what only the end of this run was found by. The machine stands.
    pub(super) fn forget_goal(&mut self) -> anyhow::Result<()> {
        let Some(goal) = self.goal.take() else {
            return Ok(());
        };
        let breakpoint = goal.breakpoint();
        let users = |pc: &u64| Breakpoint::Code(*pc) == breakpoint;
        if !self.breakpoints.iter().any(users) {
            control(self.open_machine()?)?.remove(breakpoint)?;
        }
        Ok(())
    }

    /// Sees whether a stop is what is waited for. It may be the user's breakpoint just as well.
    fn look(&mut self, cpu: Option<usize>) -> anyhow::Result<Verdict> {
        let Self {
            machine: Some(machine),
            goal: Some(goal),
            breakpoints,
            ..
        } = self
        else {
            return Ok(Verdict::Done(None));
        };
        let cpus = machine.target().all_registers()?;
        let pc = |registers: &Registers| registers.get("pc");
        if cpus
            .iter()
            .filter_map(pc)
            .any(|pc| breakpoints.contains(&pc))
        {
            return Ok(Verdict::Done(None));
        }
        match goal {
            Goal::Behind { cpu, pc: end, sp } => {
                let is_it = |registers: &Registers| {
                    pc(registers) == Some(*end) && registers.get("sp") == *sp
                };
                // Another CPU, or this one in a call of the same function by itself.
                let others = cpus.iter().any(|registers| pc(registers) == Some(*end));
                let there = cpus.get(*cpu).is_some_and(is_it);
                Ok(if others && !there {
                    Verdict::GoOn
                } else {
                    Verdict::Done(None)
                })
            }
            Goal::Write { watch, old } => {
                let Some((cpu, pc)) = cpu.and_then(|cpu| Some((cpu, pc(cpus.get(cpu)?)?))) else {
                    return Ok(Verdict::Done(None));
                };
                control(machine.as_mut())?.step(cpu)?;
                let new = read(machine.target(), Span::new(watch.pa, watch.at.size))?;
                let before = std::mem::replace(old, new);
                if !watch.until.is_met(before, new) {
                    return Ok(Verdict::GoOn);
                }
                let watch = watch.clone();
                let old = before;
                Ok(Verdict::Done(Some(Written {
                    watch,
                    cpu,
                    pc,
                    old,
                    new,
                })))
            }
        }
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
    fn standing_machine(&mut self) -> anyhow::Result<&mut dyn Machine> {
        anyhow::ensure!(!self.running, "the machine runs: stop it first");
        self.open_machine()
    }

    pub(super) fn open_machine(&mut self) -> anyhow::Result<&mut dyn Machine> {
        match self.machine.as_deref_mut() {
            Some(machine) => Ok(machine),
            None => anyhow::bail!("the link is lost"),
        }
    }
}
