//! Following host traps while the machine runs, and running up to a point of one of them.

use super::run::{Goal, WAIT, control};
use super::{Machine, Report, Worker};

use crate::abort::{FollowError, Follower, Gates, Story, Until, Wanted};
use crate::image::Images;
use crate::target::{Breakpoint, Registers, Target};
use std::sync::Arc;
use std::time::Instant;

/// Which point of a trap a run is to end at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// The entry of the next one, on any CPU.
    Entry,
    /// The end of the next one that ends like this.
    Outcome(Until),
    /// The next step of the one that this CPU is in.
    Stage(usize),
    /// The end of the one that this CPU is in.
    End(usize),
}

/// What a follower says, as the worker's errors: those of the link stay what they are.
fn plainly<T>(result: Result<T, FollowError>) -> anyhow::Result<T> {
    result.map_err(|error| match error {
        FollowError::Target(error) => error.into(),
        other => other.into(),
    })
}

/// Whether a machine turned out to have started anew since it was followed.
pub(super) fn is_restart(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(FollowError::Restarted { .. }))
}

/// A follower takes away what it set, the user's breakpoint at the same place with it: sets that again.
fn keep(machine: &mut dyn Machine, breakpoints: &[u64]) -> anyhow::Result<()> {
    let control = control(machine)?;
    for pc in breakpoints {
        // There was room for it.
        let _ = control.insert(Breakpoint::Code(*pc))?;
    }
    Ok(())
}

impl Worker {
    /// Runs up to a point of a trap; arms what follows them first.
    pub(super) fn follow(&mut self, point: Point, report: &dyn Fn(Report)) -> anyhow::Result<()> {
        self.check_panic()?;
        let is_next = matches!(point, Point::Entry | Point::Outcome(_));
        if self.running && self.goal.is_none() && is_next {
            control(self.open_machine()?)?.interrupt()?;
            self.running = false;
            self.see(report)?;
        }
        let is_ready = plainly(Follower::is_ready(self.standing_machine()?.target()))?;
        if is_next && self.follower.is_none() && !is_ready {
            let gates = Gates::of(self.open_machine()?.parts().1);
            let goal = Goal::Ready { point, gates };
            return self.aim(goal, "waiting for a host under stage 2", report);
        }
        self.arm()?;
        self.report_following(report);
        let goal = match point {
            Point::Entry => Goal::Entry,
            Point::Outcome(until) => Goal::Outcome(until),
            Point::Stage(cpu) | Point::End(cpu) => {
                let steps = self.steps_of(cpu);
                anyhow::ensure!(
                    steps.is_some(),
                    "CPU {cpu} is in no abort that was followed from its entry: run to one first"
                );
                match (point, steps) {
                    (Point::Stage(_), Some(steps)) => Goal::Stage { cpu, steps },
                    _ => Goal::End { cpu },
                }
            }
        };
        // The traps before the next one are no longer by hand.
        if matches!(goal, Goal::Entry) {
            self.by_hand(false, report)?;
        }
        self.by_hand(!matches!(goal, Goal::Outcome(_)), report)?;
        if let Goal::Stage { cpu, .. } | Goal::End { cpu } = goal {
            let follower = self.follower.as_ref();
            if follower.is_some_and(|follower| follower.is_stepped(cpu)) {
                self.goal = Some(goal);
                report(Report::Working("stepping"));
                return Ok(());
            }
        }
        self.aim(goal, "following", report)
    }

    /// Leaves it to the user to run CPUs up to points of their traps, or not to.
    pub(super) fn by_hand(&mut self, by_hand: bool, report: &dyn Fn(Report)) -> anyhow::Result<()> {
        let turn = |follower: &mut Follower, target: &mut dyn Target, images: &mut Images| {
            follower.by_hand(target, images, by_hand)
        };
        self.with_follower(report, turn)?;
        Ok(())
    }

    /// Steps for a while towards a point of a trap that is stepped.
    pub(super) fn step_towards(&mut self, report: &dyn Fn(Report)) -> anyhow::Result<()> {
        let start = Instant::now();
        while let Some(goal) = self.goal.clone() {
            let (Goal::Stage { cpu, .. } | Goal::End { cpu }) = goal else {
                break;
            };
            let ended = self.step_one(cpu, report)?;
            if self.is_at(&goal, &[], &ended) || self.hit()? {
                self.goal = None;
                return self.capture(report);
            }
            if start.elapsed() >= WAIT {
                break;
            }
        }
        Ok(())
    }

    /// Lets the machine run for a while, or until a CPU comes under the host's stage 2. Between two such whiles it stands, so
    /// that nothing is missed.
    pub(super) fn wait_for_host(
        &mut self,
        point: Point,
        gates: &Gates,
        report: &dyn Fn(Report),
    ) -> anyhow::Result<()> {
        let breakpoints = self.breakpoints.clone();
        let machine = self.open_machine()?;
        control(machine)?.interrupt()?;
        let is_ready = match gates.wait(machine.target(), WAIT) {
            Err(error @ FollowError::Ended { .. }) => {
                self.lost(error.to_string(), report);
                return Ok(());
            }
            is_ready => plainly(is_ready)?,
        };
        keep(machine, &breakpoints)?;
        let hit = self.hit()?;
        if !is_ready && !hit {
            return Ok(());
        }
        (self.goal, self.running) = (None, false);
        match hit {
            true => self.capture(report),
            false => self.follow(point, report),
        }
    }

    fn arm(&mut self) -> anyhow::Result<()> {
        if self.follower.is_none() {
            let wanted = self.wanted.clone();
            let (target, images) = self.open_machine()?.parts();
            self.follower = Some(plainly(Follower::arm(target, images, wanted))?);
        }
        Ok(())
    }

    /// From now on follows others; those that are under way are forgotten.
    pub(super) fn want(&mut self, wanted: Wanted, report: &dyn Fn(Report)) -> anyhow::Result<()> {
        self.wanted = wanted.clone();
        if self.follower.is_some() {
            self.disarm(report)?;
            let follower = self.standing(report, |machine| {
                let (target, images) = machine.parts();
                plainly(Follower::arm(target, images, wanted))
            })?;
            self.follower = Some(follower);
            self.report_following(report);
        }
        Ok(())
    }

    /// Lets traps pass unseen again.
    pub(super) fn disarm(&mut self, report: &dyn Fn(Report)) -> anyhow::Result<()> {
        if let Some(mut follower) = self.follower.take() {
            let breakpoints = self.breakpoints.clone();
            self.standing(report, |machine| {
                plainly(follower.disarm(machine.target()))?;
                keep(machine, &breakpoints)
            })?;
        }
        self.report_following(report);
        Ok(())
    }

    /// How many steps of a CPU's trap are known; `None` when it is in none.
    fn steps_of(&self, cpu: usize) -> Option<usize> {
        let mut stories = self.follower.iter().flat_map(Follower::in_progress);
        let story = stories.find(|story| story.cpu == cpu)?;
        Some(story.steps.len())
    }

    /// Fails if a machine that is followed, and stands, has started anew since.
    pub(super) fn check_boot(&mut self) -> anyhow::Result<()> {
        match (&self.follower, &mut self.machine) {
            (Some(follower), Some(machine)) => plainly(follower.check(machine.target())),
            _ => Ok(()),
        }
    }

    /// Fails if what is followed has come to its panic.
    pub(super) fn check_panic(&mut self) -> anyhow::Result<()> {
        match (&self.follower, &mut self.machine) {
            (Some(follower), Some(machine)) => plainly(follower.check_panic(machine.target())),
            _ => Ok(()),
        }
    }

    /// A machine that ran stands: sees which traps came to an end, and tells of them.
    pub(super) fn see(&mut self, report: &dyn Fn(Report)) -> anyhow::Result<Vec<Arc<Story>>> {
        self.with_follower(report, Follower::stopped)
    }

    /// Has a CPU execute one instruction, and sees what came of it.
    pub(super) fn step_one(
        &mut self,
        cpu: usize,
        report: &dyn Fn(Report),
    ) -> anyhow::Result<Vec<Arc<Story>>> {
        if self.follower.is_none() {
            control(self.open_machine()?)?.step(cpu)?;
            return Ok(Vec::new());
        }
        let step = |follower: &mut Follower, target: &mut dyn Target, images: &mut Images| {
            follower.step(target, images, cpu)
        };
        self.with_follower(report, step)
    }

    fn with_follower(
        &mut self,
        report: &dyn Fn(Report),
        act: impl FnOnce(&mut Follower, &mut dyn Target, &mut Images) -> Result<Vec<Story>, FollowError>,
    ) -> anyhow::Result<Vec<Arc<Story>>> {
        let (Some(follower), Some(machine)) = (&mut self.follower, &mut self.machine) else {
            return Ok(Vec::new());
        };
        let breakpoints = self.breakpoints.clone();
        let (target, images) = machine.parts();
        let stories = plainly(act(follower, target, images))?;
        let stories: Vec<_> = stories.into_iter().map(Arc::new).collect();
        for story in &stories {
            self.last_abort = Some(Arc::clone(story));
            report(Report::Told(Arc::clone(story)));
        }
        keep(self.open_machine()?, &breakpoints)?;
        Ok(stories)
    }

    /// Tells how far the traps are that are being followed.
    pub(super) fn report_following(&self, report: &dyn Fn(Report)) {
        let stories = self.follower.iter().flat_map(Follower::in_progress);
        report(Report::Following {
            armed: self.follower.is_some(),
            stories: stories.cloned().map(Arc::new).collect(),
        });
    }

    /// Whether a point of a trap is reached, some of which have just ended.
    pub(super) fn is_at(&self, goal: &Goal, cpus: &[Registers], ended: &[Arc<Story>]) -> bool {
        let of = |cpu: usize| ended.iter().any(|story| story.cpu == cpu);
        match goal {
            Goal::Entry => {
                let mut stories = self.follower.iter().flat_map(Follower::in_progress);
                stories.any(|story| {
                    let entry = story.road.entry.as_ref().map(|entry| entry.pc);
                    let stands = cpus
                        .get(story.cpu)
                        .and_then(|registers| registers.get("pc"));
                    entry.is_some() && entry == stands
                })
            }
            Goal::Outcome(until) => ended.iter().any(|story| until.is_met(story)),
            Goal::Stage { cpu, steps } => {
                of(*cpu) || self.steps_of(*cpu).is_none_or(|known| known > *steps)
            }
            Goal::End { cpu } => of(*cpu) || self.steps_of(*cpu).is_none(),
            Goal::Ready { .. } | Goal::Behind { .. } | Goal::Write { .. } => false,
        }
    }
}
