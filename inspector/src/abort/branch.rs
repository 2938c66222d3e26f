//! The branch that decided against the host: where the handler gave up, or where an access was refused.

use super::error::FollowError;
use super::follow::Follower;
use super::plan::{HANDLER, Plan};
use super::{Branch, Fault, Memory, Outcome, Place, Story};
use crate::addr::Span;
use crate::arch::disassembly::{Flow, disassemble, flow};
use crate::image::Images;
use crate::target::{Registers, Target};
use std::collections::VecDeque;

/// The last steps of one abort that are remembered: more than any handler takes that does not wait for a lock.
const MAX_TRAIL: usize = 4096;
/// How many instructions are read at once.
const CHUNK: usize = 64;
/// How many aborts are remembered to have been stepped.
const REMEMBERED: usize = 64;
/// `HCR_EL2.E2H`.
const E2H: u64 = 1 << 34;

/// What makes an abort the same as another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    pc: u64,
    esr: u64,
    far: u64,
}

/// An abort that did not end well for the host.
#[derive(Debug)]
pub(super) struct Puzzle {
    key: Key,
    /// Whether it was stepped, so that nothing more can be found out.
    stepped: bool,
    /// The branch that is to blame.
    branch: Option<Branch>,
}

/// What was executed at EL2.
#[derive(Default, Debug)]
pub(super) struct Trail {
    steps: VecDeque<Passed>,
    last: Option<u64>,
    was_locked: bool,
    unlocked: bool,
}

/// An instruction that was executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Passed {
    from: u64,
    /// The one that was executed next.
    to: u64,
    /// The CPU held the host's lock, and had looked the leaf up.
    locked: bool,
    /// It is the handler's own.
    in_handler: bool,
}

impl Trail {
    /// The CPU has got to `pc`.
    pub(super) fn step(&mut self, plan: &Plan, pc: u64, locked: bool) {
        let handler = plan
            .functions
            .iter()
            .find(|stop| stop.function.name == HANDLER);
        let handler = handler.map(|stop| Span::new(stop.place.pc, stop.size));
        self.unlocked |= self.was_locked && !locked;
        self.was_locked = locked;
        if let Some(from) = self.last.replace(pc) {
            if self.steps.len() == MAX_TRAIL {
                self.steps.pop_front();
            }
            self.steps.push_back(Passed {
                from,
                to: pc,
                locked,
                in_handler: handler.is_some_and(|span| span.contains(from)),
            });
        }
    }

    /// Whether the CPU held the lock, and has let go of it.
    pub(super) fn is_unlocked(&self) -> bool {
        self.unlocked
    }

    /// Instructions among which the deciding branch is looked for, the last one first. The handler gives up in its own
    /// code. An access is refused for what the tables say, which is decided under the lock; or before it is taken.
    fn candidates(&self, outcome: &Outcome) -> Vec<Passed> {
        let is_refused = matches!(outcome, Outcome::Refused { .. });
        let is_locked = is_refused && self.steps.iter().any(|passed| passed.locked);
        let steps = self.steps.iter().rev().filter(|passed| match is_locked {
            true => passed.locked,
            false => passed.in_handler,
        });
        steps.copied().collect()
    }
}

impl Follower {
    /// Whether an abort is to be stepped, once: the host will hardly get what it wants, or did not before, and nobody knows
    /// why yet.
    pub(super) fn is_puzzling(&self, registers: &Registers, fault: Option<&Fault>) -> bool {
        let (Some(key), Some(fault)) = (Key::of(registers), fault) else {
            return false;
        };
        let is_taken = matches!(fault.memory, Memory::Taken { .. });
        match self.puzzles.iter().find(|known| known.key == key) {
            Some(known) => !known.stepped,
            None => is_taken,
        }
    }

    /// Names the branch in a story that did not end well, if it is known, and remembers the abort.
    pub(super) fn explain(&mut self, story: &mut Story) {
        let Some(far) = story.fault().map(|fault| fault.far) else {
            return;
        };
        let key = Key {
            pc: story.host.pc,
            esr: story.esr,
            far,
        };
        let stepped = story.road.stepped;
        let mut none = None;
        let branch = match &mut story.outcome {
            Outcome::GaveUp { branch } | Outcome::Refused { branch, .. } => branch,
            Outcome::Emulated => &mut none,
            _ => return,
        };
        match self.puzzles.iter_mut().find(|known| known.key == key) {
            Some(known) => {
                known.stepped |= stepped;
                match branch {
                    Some(_) => known.branch.clone_from(branch),
                    None => branch.clone_from(&known.branch),
                }
            }
            None => {
                self.puzzles.truncate(REMEMBERED - 1);
                let branch = branch.clone();
                self.puzzles.push_front(Puzzle {
                    key,
                    stepped,
                    branch,
                });
            }
        }
    }

    /// The branch that decided a story that ended so: the last conditional one on the way. One that gives up is taken.
    ///
    /// # Errors
    /// The link failed.
    pub(super) fn deciding_branch(
        &self,
        target: &mut dyn Target,
        images: &mut Images,
        outcome: &Outcome,
        trail: &Trail,
        e2h: bool,
    ) -> Result<Option<Branch>, FollowError> {
        let may_fall_through = matches!(outcome, Outcome::Refused { .. });
        for steps in trail.candidates(outcome).chunks(CHUNK) {
            let known = steps.iter().filter_map(|passed| {
                let pa = self.plan.physical(passed.from)?;
                Some((*passed, Span::new(pa, 4)))
            });
            let (steps, spans): (Vec<_>, Vec<_>) = known.unzip();
            for (passed, bytes) in steps.into_iter().zip(target.read_phys(&spans)?) {
                let word = bytes.ok().and_then(|bytes| bytes.first_chunk().copied());
                let Some(word) = word.map(u32::from_le_bytes) else {
                    continue;
                };
                let Flow::Branch {
                    target: Some(to),
                    conditional: true,
                } = flow(word, passed.from)
                else {
                    continue;
                };
                // One that would lead back and does not is a loop's end.
                let falls_through = may_fall_through && to > passed.from;
                if passed.to == to || falls_through {
                    let branch = self.branch(images, passed, word, e2h);
                    if let Some(branch) = branch {
                        return Ok(Some(branch));
                    }
                }
            }
        }
        Ok(None)
    }

    /// What there is to say of a branch; `None` for one that is part of letting go of a lock, which decides nothing.
    fn branch(&self, images: &mut Images, passed: Passed, word: u32, e2h: bool) -> Option<Branch> {
        let symbols = &self.armed.symbols;
        let place = |pc| Place {
            pc,
            symbol: symbols.name_of(pc),
        };
        let linked = symbols.linked_address(passed.from);
        let functions = linked.map_or(&[][..], |linked| images.functions(linked));
        let mut names = functions
            .iter()
            .filter_map(|function| function.name.as_ref());
        if names.any(|name| name.contains("unlock")) {
            return None;
        }
        let innermost = functions.first();
        let source = innermost.and_then(|function| function.source.as_ref());
        let instruction = disassemble(word, passed.from, e2h, |address| symbols.name_of(address));
        Some(Branch {
            at: place(passed.from),
            to: place(passed.to),
            taken: passed.to != passed.from.wrapping_add(4),
            instruction: Some(instruction.to_string()),
            function: innermost.and_then(|function| function.name.clone()),
            source: source.map(ToString::to_string),
        })
    }
}

/// Whether registers at EL2 are named as EL1's: `HCR_EL2.E2H`.
pub(super) fn is_e2h(registers: &Registers) -> bool {
    registers.get("HCR_EL2").is_some_and(|hcr| hcr & E2H != 0)
}

impl Key {
    fn of(registers: &Registers) -> Option<Self> {
        Some(Self {
            pc: registers.get("ELR_EL2")?,
            esr: registers.get("ESR_EL2")?,
            far: registers.get("FAR_EL2")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abort::Injected;
    use crate::abort::follow::tests::{HANDLER as START, LINEAR, follower, plan};
    use crate::abort::testing::Machine;

    const REFUSED: Outcome = Outcome::Refused {
        exception: Injected {
            vector: None,
            esr: None,
            far: None,
            elr: None,
        },
        branch: None,
    };

    /// Addresses that a CPU came to, and whether it held the lock there.
    fn trail(steps: impl IntoIterator<Item = (u64, bool)>) -> Trail {
        let mut trail = Trail::default();
        for (pc, locked) in steps {
            trail.step(&Plan::default(), pc, locked);
        }
        trail
    }

    fn from(trail: &Trail, outcome: &Outcome) -> Vec<u64> {
        let candidates = trail.candidates(outcome);
        candidates.iter().map(|passed| passed.from).collect()
    }

    #[test]
    fn a_refusal_is_decided_under_the_lock() {
        let steps = [(0, false), (4, true), (8, true), (12, false), (16, false)];
        let locked = trail(steps);
        // An instruction counts as locked that leaves the lock held.
        assert_eq!(from(&locked, &REFUSED), [4, 0]);
        assert!(locked.is_unlocked());
        // What gives up does so in the handler, which there is none of here.
        let gave_up = Outcome::GaveUp { branch: None };
        assert_eq!(from(&locked, &gave_up), [0; 0]);
        assert!(!trail([(0, false), (4, true)]).is_unlocked());
    }

    #[test]
    fn the_last_steps_are_remembered() {
        let steps = (0..2 * MAX_TRAIL as u64).map(|at| (at * 4, true));
        let long = from(&trail(steps), &REFUSED);
        assert_eq!(long.len(), MAX_TRAIL);
        assert_eq!(long[0], (2 * MAX_TRAIL as u64 - 2) * 4);
    }

    #[test]
    fn what_gives_up_is_taken_and_what_refuses_may_fall_through() {
        // A branch that is taken, one that is not, and a loop's end: cbz x0, +8; nop; cbz x0, +8; cbz x0, -8; ret.
        let code = [
            0xb400_0040,
            0xd503_201f,
            0xb400_0040,
            0xb4ff_ffc0,
            0xd65f_03c0_u32,
        ];
        let mut machine = Machine::at(&[]);
        for (pa, word) in (START - LINEAR..).step_by(4).zip(code) {
            machine.ram.put(pa, &word.to_le_bytes());
        }
        let plan = plan();
        let mut trail = Trail::default();
        for offset in [0, 8, 12, 16, 20] {
            trail.step(&plan, START + offset, false);
        }
        let follower = follower(plan);
        let gave_up = Outcome::GaveUp { branch: None };
        for (outcome, at, to, taken) in [(gave_up, 0, 8, true), (REFUSED, 8, 12, false)] {
            let images = &mut Images::default();
            let branch = follower.deciding_branch(&mut machine, images, &outcome, &trail, false);
            let branch = branch.expect("the link holds").expect("there is one");
            let offsets = [branch.at.pc, branch.to.pc].map(|pc| pc - START);
            assert_eq!((offsets, branch.taken), ([at, to], taken), "{outcome:?}");
        }
    }
}
