//! Following a trap instruction by instruction, the other CPUs standing.

use super::Story;
use super::follow::{FollowError, Follower, look, run, tickets};
use super::following::Seen;
use crate::image::Images;
use crate::target::Target;
use std::collections::HashMap;

/// More instructions than any trap takes.
const MAX_STEPS: u64 = 200_000;
/// After so many steps the others are stepped, too, whatever the CPU waits for.
const PATIENCE: u64 = 512;
/// An instruction that is executed so often again may be in a loop that waits for a lock.
const AGAIN: u32 = 8;
/// How many instructions the others are stepped by at once.
const OTHERS: u64 = 64;

impl Follower {
    /// Steps a CPU that stands at the entry until it is out of EL2.
    pub(super) fn step_through(
        &mut self,
        target: &mut dyn Target,
        images: &mut Images,
        cpu: usize,
    ) -> Result<Option<Story>, FollowError> {
        let mut left_text = false;
        let mut visits: HashMap<u64, u32> = HashMap::new();
        for count in 1..=MAX_STEPS {
            let pc = run(target)?.step(cpu)?;
            if let Some(following) = self.following.get_mut(&cpu) {
                following.story.instructions = Some(count);
                following.story.road.stepped = true;
            }
            let is_exit = self.plan.exits.contains(&pc);
            let is_place = self.is_place(cpu, pc);
            left_text |= !self.plan.is_text(pc);
            if is_exit || is_place || left_text {
                let registers = target.registers(cpu)?;
                if is_exit || registers.exception_level().is_some_and(|el| el < 2) {
                    self.look_steadily(target, cpu)?;
                }
                if registers.exception_level().is_some_and(|el| el < 2) {
                    return self.finish(target, images, cpu, &registers, Seen::Host);
                }
                left_text = false;
                if let Some(story) = self.on_its_way(target, images, cpu, &registers)? {
                    return Ok(Some(story));
                }
            }
            let again = visits.entry(pc).or_default();
            *again += 1;
            if *again == AGAIN {
                visits.clear();
                if self.waits(target, cpu)? {
                    self.let_others_step(target, cpu)?;
                }
            } else if count % PATIENCE == 0 {
                self.let_others_step(target, cpu)?;
            }
        }
        let registers = target.registers(cpu)?;
        self.finish(target, images, cpu, &registers, Seen::Lost)
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
