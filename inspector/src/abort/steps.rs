//! Following a trap instruction by instruction, the other CPUs standing.

use super::Story;
use super::asking::{look, tickets};
use super::branch::Trail;
use super::error::FollowError;
use super::follow::{Follower, run};
use super::following::Seen;
use crate::image::Images;
use crate::target::Target;
use std::collections::HashMap;

/// More instructions than any trap takes.
const MAX_STEPS: u64 = 200_000;
/// After so many steps the others are stepped, too, whatever the CPU waits for.
const PATIENCE: u64 = 1024;
/// An instruction that is executed so often again may be in a loop that waits for a lock.
const AGAIN: u32 = 8;
/// How many instructions the others are stepped by at once.
const OTHERS: u64 = 64;

/// How a CPU has come on by steps.
#[derive(Default, Debug)]
pub(super) struct Steps {
    count: u64,
    visits: HashMap<u64, u32>,
    /// What was executed of the handler.
    pub(super) trail: Trail,
}

/// What a step means for the other CPUs.
enum Others {
    Stand,
    /// This one may wait for one of them.
    MayBeWaitedFor,
    /// They have stood long enough.
    ComeOn,
}

impl Steps {
    fn step(&mut self, pc: u64) -> Others {
        self.count += 1;
        let again = self.visits.entry(pc).or_default();
        *again += 1;
        if *again == AGAIN {
            self.visits.clear();
            Others::MayBeWaitedFor
        } else if self.count.is_multiple_of(PATIENCE) {
            Others::ComeOn
        } else {
            Others::Stand
        }
    }
}

impl Follower {
    /// Has one CPU execute one instruction, the others standing, and sees where it then stands.
    ///
    /// # Errors
    /// The link failed.
    pub fn step(
        &mut self,
        target: &mut dyn Target,
        images: &mut Images,
        cpu: usize,
    ) -> Result<Vec<Story>, FollowError> {
        let story = match self.is_stepped(cpu) {
            true => self.step_on(target, images, cpu)?,
            false => {
                self.last_step = None;
                run(target)?.step(cpu)?;
                let registers = target.registers(cpu)?;
                self.arrived(target, images, cpu, &registers)?
            }
        };
        let mut finished: Vec<_> = story.into_iter().collect();
        self.conclude(target, &mut finished)?;
        Ok(finished)
    }

    /// Whether a CPU is stepped to the end of the trap that it is in: because this is wanted, there are no breakpoints
    /// where traps end, or this abort gave up before, and the branch that decides it is not known yet.
    pub fn is_stepped(&self, cpu: usize) -> bool {
        let following = self.following.get(&cpu);
        following
            .is_some_and(|following| self.wanted.steps || self.only_steps() || following.puzzling)
    }

    /// Whether there are no breakpoints where traps end, so that each must be stepped to its end.
    pub fn only_steps(&self) -> bool {
        self.plan.exits.is_empty()
    }

    /// Leaves it to whoever uses this to step CPUs, or not to. When it is no longer left to them, traps that are
    /// stepped are stepped to their end.
    ///
    /// # Errors
    /// The link failed.
    pub fn by_hand(
        &mut self,
        target: &mut dyn Target,
        images: &mut Images,
        by_hand: bool,
    ) -> Result<Vec<Story>, FollowError> {
        self.by_hand = by_hand;
        let mut finished = Vec::new();
        if !by_hand {
            let cpus = self.following.keys().copied();
            let cpus: Vec<_> = cpus.filter(|cpu| self.is_stepped(*cpu)).collect();
            for cpu in cpus {
                finished.extend(self.step_through(target, images, cpu)?);
            }
            self.conclude(target, &mut finished)?;
        }
        Ok(finished)
    }

    /// Steps a CPU that is followed until it is out of EL2.
    pub(super) fn step_through(
        &mut self,
        target: &mut dyn Target,
        images: &mut Images,
        cpu: usize,
    ) -> Result<Option<Story>, FollowError> {
        for _ in 0..MAX_STEPS {
            if let Some(story) = self.step_on(target, images, cpu)? {
                return Ok(Some(story));
            }
        }
        let registers = target.registers(cpu)?;
        self.finish(target, images, cpu, &registers, Seen::Lost)
    }

    /// Steps a CPU that is followed by one instruction. Answers with its story when it is out of EL2.
    pub(super) fn step_on(
        &mut self,
        target: &mut dyn Target,
        images: &mut Images,
        cpu: usize,
    ) -> Result<Option<Story>, FollowError> {
        let pc = run(target)?.step(cpu)?;
        // Nobody but this CPU has executed anything since the lock was read, and what it executed wrote nothing.
        let last = self.last_step.replace((cpu, pc));
        let same_lock = last
            .is_some_and(|(last, from)| last == cpu && !self.by_hand && !self.plan.may_write(from));
        let Some(following) = self.following.get_mut(&cpu) else {
            return Ok(None);
        };
        let others = following.steps.step(pc);
        let lock = match (following.steps.trail.is_unlocked(), following.known_lock()) {
            (true, _) => None,
            (false, Some(known)) if same_lock => Some(known),
            (false, _) => tickets(target, following.host_lock_at())?,
        };
        following.see_lock(lock);
        let locked = following.holds(lock);
        following.steps.trail.step(&self.plan, pc, locked);
        following.story.instructions = Some(following.steps.count);
        following.story.road.stepped = true;
        let is_exit = self.plan.exits.contains(&pc);
        if is_exit || self.is_place(cpu, pc) || !self.plan.is_text(pc) {
            let registers = target.registers(cpu)?;
            let is_out = registers.exception_level().is_some_and(|el| el < 2);
            if is_exit || is_out {
                self.look_steadily(target, cpu)?;
            }
            if is_out {
                return self.finish(target, images, cpu, &registers, Seen::Host);
            }
            if let Some(story) = self.on_its_way(target, images, cpu, &registers)? {
                return Ok(Some(story));
            }
        }
        let comes_on = match others {
            Others::Stand => false,
            Others::MayBeWaitedFor => self.waits(target, cpu)?,
            Others::ComeOn => true,
        };
        if comes_on {
            self.let_others_step(target, cpu)?;
        }
        Ok(None)
    }

    /// At the end, if no other CPU has executed anything since this one held the lock, the tables are as it left them.
    fn look_steadily(&mut self, target: &mut dyn Target, cpu: usize) -> Result<(), FollowError> {
        if let Some(following) = self.following.get_mut(&cpu)
            && following.is_steady()
        {
            let look = look(target, following)?;
            following.look(look);
        }
        Ok(())
    }

    /// Whether the host's lock is held by another CPU, and waited for.
    fn waits(&self, target: &mut dyn Target, cpu: usize) -> Result<bool, FollowError> {
        let Some(following) = self.following.get(&cpu) else {
            return Ok(false);
        };
        let lock = tickets(target, following.host_lock_at())?;
        let waited_for = lock.is_some_and(|tickets| tickets.waiters() > 0);
        Ok(waited_for && !following.holds(lock))
    }

    /// Steps the other CPUs that are at EL2 a little: one of them may hold the lock that this one waits for.
    fn let_others_step(&mut self, target: &mut dyn Target, cpu: usize) -> Result<(), FollowError> {
        if let Some(following) = self.following.get_mut(&cpu) {
            following.others_stepped();
        }
        self.last_step = None;
        let all = target.all_registers()?;
        for (other, registers) in all.iter().enumerate() {
            let mut at_el2 = other != cpu && registers.exception_level() == Some(2);
            for _ in 0..OTHERS {
                if !at_el2 {
                    break;
                }
                let pc = run(target)?.step(other)?;
                at_el2 = self.plan.is_text(pc);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abort::follow::tests::{HANDLER, follower, plan};
    use crate::abort::testing::Machine;
    use crate::target::testing::Ram;

    /// The host's lock, with the tickets that are served and that come next.
    const LOCK: u64 = 0x4030_8000;
    /// Where another CPU lets go of it.
    const RELEASE: u64 = HANDLER + 0x40;

    /// CPU 0 waits for ticket 6 in a loop of two instructions.
    fn execute(ram: &mut Ram, cpu: usize, pc: u64) -> u64 {
        let served = ram.word(LOCK) & 0xffff;
        match (cpu, pc) {
            (1, RELEASE) => ram.put(LOCK, &6_u16.to_le_bytes()),
            (0, pc) if pc == HANDLER + 4 && served != 6 => return HANDLER,
            _ => {}
        }
        pc + 4
    }

    #[test]
    fn another_cpu_is_stepped_only_if_it_holds_the_lock_that_is_waited_for() {
        for (next, gets_the_lock) in [(7_u32, true), (6, false), (5, false)] {
            let mut machine = Machine::at(&[HANDLER, RELEASE - 8]);
            machine.ram.put(LOCK, &(next << 16 | 5).to_le_bytes());
            machine.execute = execute;
            let mut follower = follower(plan());
            follower.follow(0);
            for count in 1..PATIENCE {
                let images = &mut Images::default();
                let story = follower.step_on(&mut machine, images, 0);
                assert_eq!(story.expect("the link holds"), None);
                // Each is one instruction of its trap, whatever the others execute.
                let counts = follower.in_progress().map(|story| story.instructions);
                assert_eq!(counts.collect::<Vec<_>>(), [Some(count)]);
                if machine.pc(0) > HANDLER + 4 {
                    break;
                }
            }
            assert_eq!(machine.pc(0) > HANDLER + 4, gets_the_lock, "{next}");
            assert_eq!(machine.pc(1) > RELEASE, gets_the_lock, "{next}");
        }
    }
}
