//! Steps of a trap that no stop showed, and that follow from what was before and after.

use super::{Following, HOST_STAGE2, host_lock};
use crate::abort::{Cause, Outcome, Stage, Step, Word};
use crate::addr::size_text;
use crate::model::System;

impl Following {
    /// Steps that follow from what was before and after, where no stop showed them.
    pub(super) fn fill(&mut self, after: &System) {
        let stages: Vec<Stage> = self.story.steps.iter().map(|step| step.stage).collect();
        let leaf = match &self.story.outcome {
            Outcome::Mapped { leaf, .. } => Some(*leaf),
            _ => None,
        };
        if leaf.is_some() || stages.contains(&Stage::Map) {
            self.fill_choice();
        }
        if let (Some(leaf), Cause::Abort(fault)) = (leaf, &mut self.story.cause)
            && let Some(choice) = &mut fault.choice
        {
            choice.seen.get_or_insert(leaf);
        }
        if !self.story.writes.is_empty() && !stages.contains(&Stage::Map) {
            let text = match self.story.writes.len() {
                1 => "writes a word of a table".to_owned(),
                words => format!("writes {words} words of tables"),
            };
            self.insert(Stage::Map, text);
        }
        if let Some(text) = self.recycled() {
            self.insert(Stage::Map, text);
        }
        if matches!(self.story.outcome, Outcome::Refused { .. }) && !stages.contains(&Stage::Refuse)
        {
            self.insert(Stage::Refuse, "has the host take an exception".to_owned());
        }
        self.fill_locks(after);
        let exit = self.story.road.exit.clone();
        if let Some(to) = self.story.after.clone() {
            let to = to.symbol.unwrap_or_else(|| format!("{:#x}", to.pc));
            self.step(Stage::Return, exit, format!("returns to {to}"));
        }
    }

    /// The range was chosen before it was mapped: the one that was asked for, or else the one that the rule gives.
    pub(super) fn fill_choice(&mut self) {
        let steps = &self.story.steps;
        if steps.iter().any(|step| step.stage == Stage::Choose) {
            return;
        }
        let choice = self.story.fault().and_then(|fault| fault.choice.as_ref());
        let Some((choice, rule)) = choice.and_then(|choice| Some((choice, choice.range()?))) else {
            return;
        };
        let range = choice.seen.unwrap_or(rule);
        let mut text = format!("chooses {} at {:#x}", size_text(range.size), range.start);
        if range != rule {
            text.push_str(&format!(", not the {} of the rule", size_text(rule.size)));
        }
        self.insert(Stage::Choose, text);
    }

    /// What follows from mappings that are gone and were no RAM's: they can come back by themselves, so they are unmapped
    /// when there is no table page left.
    fn recycled(&self) -> Option<String> {
        let is_ram = |ia: u64| self.before.ram.iter().any(|ram| ram.contains(ia));
        let is_leaf =
            |word: &Option<Word>| word.is_some_and(|word| word.descriptor.attributes.is_some());
        let writes = self.story.writes.iter();
        let gone = writes.filter(|write| {
            write.regime == HOST_STAGE2 && is_leaf(&write.old) && !is_leaf(&write.new)
        });
        let gone = gone.filter(|write| !is_ram(write.ia)).count();
        let freed = self.story.changes.tables_freed.len();
        let count = |count: usize, one: &str, many: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {many}"),
        };
        (gone > 0).then(|| {
            format!(
                "the pool was exhausted: unmaps what is no RAM, {}, which frees {}, and tries once more",
                count(gone, "entry", "entries"),
                count(freed, "table page", "table pages")
            )
        })
    }

    fn fill_locks(&mut self, after: &System) {
        let tickets = |system| host_lock(system).and_then(|lock| lock.tickets);
        let (Some(before), Some(after)) = (tickets(&self.before), tickets(after)) else {
            return;
        };
        match self.ticket {
            Some(ticket) => {
                // Tickets wrap around.
                let served = after.owner.wrapping_sub(ticket);
                if (1..0x8000).contains(&served) {
                    self.insert(Stage::Unlock, "lets go of the lock host".to_owned());
                }
            }
            None if before.next == after.next => {}
            None => {
                let taken = after.next.wrapping_sub(before.next);
                let times = match taken {
                    1 => "once".to_owned(),
                    times => format!("{times} times"),
                };
                let text =
                    format!("the lock host is taken {times} meanwhile, by whom was not seen");
                self.insert(Stage::Lock, text);
            }
        }
    }

    /// Puts a step without a place behind those of its stage and of stages before it.
    fn insert(&mut self, stage: Stage, text: String) {
        let at = self
            .story
            .steps
            .iter()
            .rposition(|step| step.stage <= stage);
        let step = Step {
            stage,
            place: None,
            text,
            lock: None,
        };
        self.story.steps.insert(at.map_or(0, |at| at + 1), step);
    }
}
