//! The branch that made a handler give up: the last conditional one that was taken before it returned.

use super::follow::{FollowError, Follower};
use super::plan::Plan;
use super::{Branch, Outcome, Place, Story};
use crate::addr::Span;
use crate::arch::disassembly::{Flow, disassemble, flow};
use crate::target::{Registers, Target};

/// The function in which it is looked for.
const HANDLER: &str = "handle_host_mem_abort";
/// More steps of one handler than any takes.
const MAX_TRAIL: usize = 4096;
/// `HCR_EL2.E2H`.
const E2H: u64 = 1 << 34;

/// What makes an abort the same as another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    pc: u64,
    esr: u64,
    far: u64,
}

/// An abort that gave up, and the branch that is to blame once it was stepped.
#[derive(Debug)]
pub(super) struct GaveUp {
    key: Key,
    branch: Option<Branch>,
}

/// Instructions of the handler that were executed, each with the one that followed.
#[derive(Default, Debug)]
pub(super) struct Trail {
    steps: Vec<(u64, u64)>,
    last: Option<u64>,
}

impl Trail {
    /// The CPU has got to `pc`.
    pub(super) fn step(&mut self, plan: &Plan, pc: u64) {
        if let Some(last) = self.last.take()
            && self.steps.len() < MAX_TRAIL
        {
            self.steps.push((last, pc));
        }
        let mut stops = plan.functions.iter();
        let handler = stops.find(|stop| stop.function.name == HANDLER);
        let handler = handler.map(|stop| Span::new(stop.place.pc, stop.size));
        self.last = handler.is_some_and(|span| span.contains(pc)).then_some(pc);
    }
}

impl Follower {
    /// Whether this abort gave up before, and nobody knows why yet: then it is stepped, once.
    pub(super) fn is_puzzling(&self, registers: &Registers) -> bool {
        let key = Key::of(registers);
        let mut known = self.gave_up.iter();
        known.any(|known| Some(known.key) == key && known.branch.is_none())
    }

    /// Names the branch in a story that gave up, if it is known, and remembers the abort if not.
    pub(super) fn explain(&mut self, story: &mut Story) {
        let (esr, pc) = (story.esr, story.host.pc);
        let far = story.fault().map(|fault| fault.far);
        let (Outcome::GaveUp { branch }, Some(far)) = (&mut story.outcome, far) else {
            return;
        };
        let key = Key { pc, esr, far };
        match self.gave_up.iter_mut().find(|known| known.key == key) {
            Some(known) if branch.is_some() => known.branch = branch.clone(),
            Some(known) => *branch = known.branch.clone(),
            None => self.gave_up.push(GaveUp {
                key,
                branch: branch.clone(),
            }),
        }
    }

    /// The last conditional branch that was taken on the way.
    ///
    /// # Errors
    /// The link failed.
    pub(super) fn last_branch(
        &self,
        target: &mut dyn Target,
        registers: &Registers,
        trail: &Trail,
    ) -> Result<Option<Branch>, FollowError> {
        let symbols = &self.symbols;
        for (from, to) in trail.steps.iter().rev() {
            let Some(pa) = self.plan.physical(*from).filter(|_| from + 4 != *to) else {
                continue;
            };
            let Some(Ok(bytes)) = target.read_phys(&[Span::new(pa, 4)])?.pop() else {
                continue;
            };
            let Some(word) = bytes.first_chunk().map(|word| u32::from_le_bytes(*word)) else {
                continue;
            };
            let taken = Flow::Branch {
                target: Some(*to),
                conditional: true,
            };
            if flow(word, *from) != taken {
                continue;
            }
            let place = |pc| Place {
                pc,
                symbol: symbols.name_of(pc),
            };
            let e2h = registers.get("HCR_EL2").is_some_and(|hcr| hcr & E2H != 0);
            let instruction = disassemble(word, *from, e2h, |address| symbols.name_of(address));
            return Ok(Some(Branch {
                at: place(*from),
                to: place(*to),
                instruction: Some(instruction.to_string()),
                source: None,
            }));
        }
        Ok(None)
    }
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
