//! Following traps on a machine: breakpoints, looks, and what became of each CPU.

use super::asking::{
    arm_handler, arm_panic, arm_vectors, host_registers, leads_below, look, tickets,
};
use super::boot::Boot;
use super::branch::{Puzzle, is_e2h};
use super::calls;
use super::error::FollowError;
use super::following::{Following, Kind, Seen, kind};
use super::plan::{Plan, Role, Stop};
use super::{Missing, Outcome, Place, Road, Story, Wanted};
use crate::addr::Span;
use crate::arch::esr;
use crate::hypervisor;
use crate::image::Images;
use crate::model::System;
use crate::target::{Breakpoint, Registers, RunControl, RunState, Target};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How many mappings are remembered, to say which CPU was faster.
const REMEMBERED: usize = 64;

/// The registers that tell whether a CPU stands at an entry for something that is to be followed. A hypercall's number is
/// in x0.
const AT_ENTRY: [&str; 5] = ["pc", "ESR_EL2", "FAR_EL2", "HPFAR_EL2", "x0"];

/// Traps of all CPUs, each followed from its entry to its end. The breakpoints are the target's, which takes them away
/// when it is dropped.
#[derive(Debug)]
pub struct Follower {
    pub(super) plan: Plan,
    /// Which boot the breakpoints are of.
    boot: Boot,
    pub(super) wanted: Wanted,
    /// Whoever uses it steps and runs CPUs that are followed.
    pub(super) by_hand: bool,
    /// It was looked where CPUs stand, since they ran.
    seen: bool,
    /// A CPU came to its panic: nothing goes on.
    has_panicked: bool,
    /// The CPU that was stepped last to follow it, and where it got to, while nothing else has run since.
    pub(super) last_step: Option<(usize, u64)>,
    /// Functions that the server refuses to stop at.
    refused: Vec<Missing>,
    /// Breakpoints that are set while a trap is followed only.
    on_the_way: Vec<Breakpoint>,
    pub(super) following: BTreeMap<usize, Following>,
    /// Ranges mapped lately, and by which CPU.
    mapped: VecDeque<(usize, Span)>,
    /// Aborts that did not end well for the host, the last one first.
    pub(super) puzzles: VecDeque<Puzzle>,
    /// What was captured when the breakpoints were set: names, and what does not change while EL2 is the same.
    pub(super) armed: System,
}

pub(super) fn run(target: &mut dyn Target) -> Result<&mut dyn RunControl, FollowError> {
    let name = target.name().to_owned();
    target
        .run_control()
        .ok_or(FollowError::CannotRun { target: name })
}

/// Whether stage 2 is on for a CPU's host.
pub(super) fn is_under_stage2(registers: &Registers) -> bool {
    /// `HCR_EL2.VM`.
    const VM: u64 = 1;
    let get = |name| registers.get(name).unwrap_or(0);
    get("HCR_EL2") & VM != 0 && get("VTTBR_EL2") != 0
}

impl Follower {
    /// Sets breakpoints at the entries of EL2. The machine must stand.
    ///
    /// # Errors
    /// The target cannot run, no hypervisor protects itself on it, or its server has no breakpoint for the entry.
    pub fn arm(
        target: &mut dyn Target,
        images: &mut Images,
        wanted: Wanted,
    ) -> Result<Self, FollowError> {
        run(target)?;
        let system = hypervisor::capture(target, images)?;
        let count = system.cpus.len();
        if let Some(cpu) = wanted.cpu.filter(|&cpu| cpu >= count) {
            let target = target.name().to_owned();
            return Err(FollowError::NoCpu { target, cpu, count });
        }
        if hypervisor::panicked(&system.cpus).is_some() {
            return Err(FollowError::panicked(target));
        }
        let mut plan = Plan::make(target, &system)?;
        if plan.entries.is_empty() {
            let reason = match system.problems.is_empty() {
                true => "no CPU runs its host under stage 2".to_owned(),
                false => system.problems.join("; "),
            };
            let target = target.name().to_owned();
            return Err(FollowError::NoHypervisor { target, reason });
        }
        let boot = Boot::of(&system, &plan);
        // All instructions are to be counted where a CPU is stepped anyway.
        let by_handler = wanted.call.is_none() && !wanted.steps && !plan.exits.is_empty();
        if !(by_handler && arm_handler(target, &mut plan)?) {
            arm_vectors(target, &mut plan)?;
        }
        arm_panic(target, &mut plan)?;
        if let Some(start) = boot.start {
            // hyp's own server refuses it, and does not outlive a reset.
            let _ = run(target)?.insert(Breakpoint::Code(start))?;
        }
        Ok(Self {
            plan,
            boot,
            wanted,
            by_hand: false,
            seen: false,
            has_panicked: false,
            last_step: None,
            refused: Vec::new(),
            on_the_way: Vec::new(),
            following: BTreeMap::new(),
            mapped: VecDeque::new(),
            puzzles: VecDeque::new(),
            armed: system,
        })
    }

    /// Whether a CPU runs its host under stage 2, so that there is something to follow. The machine must stand.
    ///
    /// # Errors
    /// The link failed, or the target cannot run.
    pub fn is_ready(target: &mut dyn Target) -> Result<bool, FollowError> {
        run(target)?;
        Ok(target.all_registers()?.iter().any(is_under_stage2))
    }

    /// Stories that are not at their end yet, as far as they are known.
    pub fn in_progress(&self) -> impl Iterator<Item = &Story> {
        self.following.values().map(|following| &following.story)
    }

    /// Lets the machine run until a trap has been followed to its end, or for `limit`. It may run afterwards only if
    /// nothing is being followed.
    ///
    /// # Errors
    /// The link failed, or the machine is not what it was.
    pub fn next(
        &mut self,
        target: &mut dyn Target,
        images: &mut Images,
        limit: Duration,
    ) -> Result<Vec<Story>, FollowError> {
        let end = Instant::now() + limit;
        loop {
            self.check_panic(target)?;
            // A CPU may stand at an entry when it is armed, or come to one while somebody else stops the machine.
            if std::mem::take(&mut self.seen) {
                run(target)?.resume()?;
            }
            let left = end.saturating_duration_since(Instant::now());
            let state = run(target)?.wait(left)?;
            let finished = match state {
                RunState::Running => return Ok(Vec::new()),
                RunState::Exited => {
                    let target = target.name().to_owned();
                    return Err(FollowError::Ended { target });
                }
                RunState::Stopped { .. } => self.stopped(target, images)?,
            };
            if !finished.is_empty() || Instant::now() >= end {
                return Ok(finished);
            }
        }
    }

    /// Takes all breakpoints away. The machine must stand.
    ///
    /// # Errors
    /// The link failed.
    pub fn disarm(&mut self, target: &mut dyn Target) -> Result<(), FollowError> {
        let control = run(target)?;
        control.remove_all(&control.breakpoints())?;
        self.on_the_way.clear();
        self.following.clear();
        Ok(())
    }

    /// Whether traps still come: whether no CPU has come to the hypervisor's panic since the breakpoints were set.
    ///
    /// # Errors
    /// One has.
    pub fn check_panic(&self, target: &dyn Target) -> Result<(), FollowError> {
        match self.has_panicked {
            true => Err(FollowError::panicked(target)),
            false => Ok(()),
        }
    }

    /// Whether EL2 still is where the breakpoints were set. The machine must stand.
    ///
    /// # Errors
    /// The link failed, or it is not.
    pub fn check(&self, target: &mut dyn Target) -> Result<(), FollowError> {
        if self.boot.is_over(&target.all_registers()?) {
            let target = target.name().to_owned();
            return Err(FollowError::Restarted { target });
        }
        Ok(())
    }

    /// Whether EL2 is no more what it was when the breakpoints were set, by a capture.
    pub fn is_of_the_past(&self, system: &System) -> bool {
        let cpus = system.cpus.iter().map(|cpu| cpu.registers.clone());
        self.boot.is_over(&cpus.collect::<Vec<_>>())
    }

    /// Sees where all CPUs of a machine stand that ran: several may have come to breakpoints at once. Answers with the
    /// traps that are at their end.
    ///
    /// # Errors
    /// The link failed.
    pub fn stopped(
        &mut self,
        target: &mut dyn Target,
        images: &mut Images,
    ) -> Result<Vec<Story>, FollowError> {
        self.seen = true;
        self.last_step = None;
        let mut finished = Vec::new();
        let cpus = target.some_registers(&AT_ENTRY)?;
        // Whether that CPU is followed or not.
        self.has_panicked |= cpus.iter().any(|registers| self.is_panic(registers));
        if self.boot.begins(&cpus) {
            self.check(target)?;
        }
        for (cpu, registers) in cpus.into_iter().enumerate() {
            if self.concerns(cpu, &registers) {
                // While another one was stepped, this one may have been, too.
                let registers = target.registers(cpu)?;
                finished.extend(self.arrived(target, images, cpu, &registers)?);
            }
        }
        self.conclude(target, &mut finished)?;
        Ok(finished)
    }

    /// Whether a CPU is followed, or may have to be. Traps that are not wanted cost no more than this.
    fn concerns(&self, cpu: usize, registers: &Registers) -> bool {
        let is_entry = |pc| self.plan.entries.contains(&pc);
        self.following.contains_key(&cpu)
            || registers.get("pc").is_some_and(is_entry)
                && self.wants(cpu, registers)
                && (self.frame(registers).is_some() || self.is_called(registers))
    }

    /// Whether the hypervisor panics on a CPU that stands there.
    fn is_panic(&self, registers: &Registers) -> bool {
        let stop = registers.get("pc").and_then(|pc| self.plan.function(pc));
        stop.is_some_and(Stop::is_panic)
    }

    /// Where the host's registers are, of a CPU at an entry that is the function that the vector calls.
    fn frame(&self, registers: &Registers) -> Option<u64> {
        let by_function = self.plan.called_by_vector == registers.get("pc");
        registers.get("x0").filter(|_| by_function)
    }

    /// A CPU has come to where it stands.
    pub(super) fn arrived(
        &mut self,
        target: &mut dyn Target,
        images: &mut Images,
        cpu: usize,
        registers: &Registers,
    ) -> Result<Option<Story>, FollowError> {
        match registers.get("pc") {
            Some(pc) if self.plan.entries.contains(&pc) => {
                self.entered(target, images, cpu, registers)
            }
            Some(_) if self.following.contains_key(&cpu) => {
                self.on_its_way(target, images, cpu, registers)
            }
            _ => Ok(None),
        }
    }

    /// Traps are at their end.
    pub(super) fn conclude(
        &mut self,
        target: &mut dyn Target,
        finished: &mut [Story],
    ) -> Result<(), FollowError> {
        for story in &*finished {
            self.remember(story);
        }
        if self.following.is_empty() {
            run(target)?.remove_all(&std::mem::take(&mut self.on_the_way))?;
        }
        for story in finished {
            self.name_the_faster(story);
            self.explain(story);
        }
        Ok(())
    }

    fn wants(&self, cpu: usize, registers: &Registers) -> bool {
        let is_kind = match kind(registers) {
            Some(Kind::Abort) => self.wanted.call.is_none(),
            Some(Kind::Call) => self.wanted.call.is_some(),
            None => false,
        };
        let get = |name| registers.get(name);
        let ipa = || esr::faulting_ipa(get("ESR_EL2")?, get("HPFAR_EL2")?, get("FAR_EL2")?);
        is_kind
            && self.wanted.cpu.is_none_or(|wanted| wanted == cpu)
            && self
                .wanted
                .ipa
                .is_none_or(|wanted| ipa().is_some_and(|ipa| wanted.contains(ipa)))
    }

    /// A CPU stands at the entry.
    fn entered(
        &mut self,
        target: &mut dyn Target,
        images: &mut Images,
        cpu: usize,
        registers: &Registers,
    ) -> Result<Option<Story>, FollowError> {
        let following = self.following.get(&cpu);
        if following.is_some_and(|following| following.is_still_at_entry(cpu, registers)) {
            // It was told of twice, and has executed nothing in between.
            return Ok(None);
        }
        let mut lost = None;
        if let Some(following) = self.following.remove(&cpu) {
            let now = hypervisor::capture(target, images)?;
            lost = Some(following.end(&now, registers, Seen::Lost));
        }
        if !self.wants(cpu, registers) {
            return Ok(lost);
        }
        let frame = self.frame(registers);
        let host = host_registers(target, &self.armed, frame, registers)?;
        if !self.is_called(&host) {
            return Ok(lost);
        }
        let before = hypervisor::capture(target, images)?;
        let pc = registers.get("pc").unwrap_or(0);
        self.arm_the_way(target)?;
        let entry = Place {
            pc,
            symbol: before.symbols.name_of(pc),
        };
        let road = Road {
            entry: Some(entry),
            missing: [&self.plan.missing[..], &self.refused].concat(),
            ..Road::default()
        };
        let maps = |stop: &&Stop| matches!(stop.function.role, Role::Map { .. });
        let mapping = self.plan.functions.iter().find(maps);
        let is_set = |stop: &Stop| self.on_the_way.contains(&Breakpoint::Code(stop.place.pc));
        let sees_mapping = mapping.is_some_and(is_set);
        if let Some(mut following) = Following::begin(before, cpu, &host, road, sees_mapping, frame)
        {
            following.puzzling = self.is_puzzling(&host, following.story.fault());
            self.following.insert(cpu, following);
            // The entry may be a function on the way as well.
            self.pass(target, cpu, registers)?;
            if self.is_stepped(cpu) && !self.by_hand {
                let story = self.step_through(target, images, cpu)?;
                return Ok(lost.or(story));
            }
        }
        Ok(lost)
    }

    /// Whether a hypercall has the name that is wanted, by the host's registers; aborts have none.
    fn is_called(&self, host: &Registers) -> bool {
        self.wanted.call.as_ref().is_none_or(|wanted| {
            let (_, name) = calls::named(&self.armed, host.get("x0").unwrap_or(0));
            name.is_some_and(|name| name.contains(wanted.as_str()))
        })
    }

    /// Sets the breakpoints that see a CPU on its way.
    fn arm_the_way(&mut self, target: &mut dyn Target) -> Result<(), FollowError> {
        if !self.on_the_way.is_empty() {
            return Ok(());
        }
        self.refused.clear();
        // Entries and panics stay set.
        let functions = self.plan.functions.iter();
        let functions: Vec<_> = functions
            .filter(|stop| !self.plan.entries.contains(&stop.place.pc) && !stop.is_panic())
            .map(|stop| (stop.place.pc, stop.function.name.to_owned()))
            .collect();
        self.arm_stops(target, functions)?;
        let exits = self.plan.exits.iter();
        let exits: Vec<_> = exits.map(|pc| (*pc, format!("ERET at {pc:#x}"))).collect();
        let sees_all = self.arm_stops(target, exits)?;
        if !sees_all {
            // Where an ERET itself cannot be seen, the way back to it is.
            let ways = self.plan.ways_back.iter().map(|pc| Breakpoint::Code(*pc));
            let ways: Vec<_> = ways.collect();
            let answers = run(target)?.insert_all(&ways)?;
            for (pc, answer) in self.plan.ways_back.iter().zip(answers) {
                if answer.is_ok() {
                    self.on_the_way.push(Breakpoint::Code(*pc));
                    if !self.plan.exits.contains(pc) {
                        self.plan.exits.push(*pc);
                    }
                }
            }
        }
        Ok(())
    }

    /// Sets breakpoints that are called so. False when the server refuses one of them.
    fn arm_stops(
        &mut self,
        target: &mut dyn Target,
        stops: Vec<(u64, String)>,
    ) -> Result<bool, FollowError> {
        let refused = self.refused.len();
        let breakpoints: Vec<_> = stops.iter().map(|(pc, _)| Breakpoint::Code(*pc)).collect();
        let answers = run(target)?.insert_all(&breakpoints)?;
        for ((pc, function), answer) in stops.into_iter().zip(answers) {
            match answer {
                Ok(()) => self.on_the_way.push(Breakpoint::Code(pc)),
                Err(reason) => self.refused.push(Missing { function, reason }),
            }
        }
        Ok(self.refused.len() == refused)
    }

    /// A CPU that is followed stands somewhere else than at the entry.
    pub(super) fn on_its_way(
        &mut self,
        target: &mut dyn Target,
        images: &mut Images,
        cpu: usize,
        registers: &Registers,
    ) -> Result<Option<Story>, FollowError> {
        let pc = registers.get("pc").unwrap_or(0);
        self.pass(target, cpu, registers)?;
        let is_panic = self.is_panic(registers);
        self.has_panicked |= is_panic;
        let seen = match is_panic {
            true => Seen::Panic,
            // From inside EL2, exceptions return to EL2.
            false if self.plan.exits.contains(&pc) && leads_below(registers) => Seen::Returns,
            false => return Ok(None),
        };
        self.finish(target, images, cpu, registers, seen)
    }

    pub(super) fn finish(
        &mut self,
        target: &mut dyn Target,
        images: &mut Images,
        cpu: usize,
        registers: &Registers,
        seen: Seen,
    ) -> Result<Option<Story>, FollowError> {
        let after = hypervisor::capture(target, images)?;
        let Some(mut following) = self.following.remove(&cpu) else {
            return Ok(None);
        };
        let host = host_registers(target, &after, following.frame, registers)?;
        let trail = std::mem::take(&mut following.steps.trail);
        let mut story = following.end(&after, &host, seen);
        let e2h = is_e2h(registers);
        let found = self.deciding_branch(target, images, &story.outcome, &trail, e2h)?;
        if let Outcome::GaveUp { branch } | Outcome::Refused { branch, .. } = &mut story.outcome {
            *branch = found;
        }
        Ok(Some(story))
    }

    /// Whether a CPU that is followed has something to tell there.
    pub(super) fn is_place(&self, cpu: usize, pc: u64) -> bool {
        let following = self.following.get(&cpu);
        let returns =
            following.is_some_and(|following| following.returns.iter().any(|(at, _)| *at == pc));
        returns || self.plan.function(pc).is_some()
    }

    /// A CPU that is followed may stand at a function, or where one returns.
    fn pass(
        &mut self,
        target: &mut dyn Target,
        cpu: usize,
        registers: &Registers,
    ) -> Result<(), FollowError> {
        let pc = registers.get("pc").unwrap_or(0);
        let Some(following) = self.following.get_mut(&cpu) else {
            return Ok(());
        };
        let lock = tickets(target, following.host_lock_at())?;
        if let Some(stop) = self.plan.function(pc) {
            following.reach(stop, registers, lock);
            match stop.function.role {
                Role::LookUp | Role::Map { .. }
                    if !following.has_looked() && following.may_look(lock) =>
                {
                    let look = look(target, following)?;
                    following.look(look);
                }
                _ => {}
            }
            match stop.function.role {
                Role::Map { .. } | Role::Transition => {
                    for (pc, _) in &following.returns {
                        let breakpoint = Breakpoint::Code(*pc);
                        // Where it is refused, the end tells what was written.
                        if !self.on_the_way.contains(&breakpoint)
                            && run(target)?.insert(breakpoint)?.is_ok()
                        {
                            self.on_the_way.push(breakpoint);
                        }
                    }
                }
                _ => {}
            }
        }
        let returned = following.returns.iter().rposition(|(at, _)| *at == pc);
        if let Some(at) = returned {
            let (_, stop) = following.returns.remove(at);
            following.returned(&stop, registers);
            if following.may_look(lock) {
                let look = look(target, following)?;
                following.look(look);
            }
        }
        Ok(())
    }

    fn remember(&mut self, story: &Story) {
        if let Outcome::Mapped { leaf, .. } = story.outcome {
            self.mapped.push_front((story.cpu, leaf));
            self.mapped.truncate(REMEMBERED);
        }
    }

    /// Says which CPU had mapped the address, if its story is known.
    fn name_the_faster(&self, story: &mut Story) {
        if let Outcome::AlreadyMapped { leaf, by } = &mut story.outcome {
            let mut known = self.mapped.iter();
            let faster = known.find(|(cpu, mapped)| *cpu != story.cpu && Some(*mapped) == *leaf);
            *by = faster.map(|(cpu, _)| *cpu);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
