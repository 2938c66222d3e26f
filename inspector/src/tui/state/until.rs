//! What the machine can run up to: writes to a lock, to the descriptor in question.

use super::{Effect, State};
use crate::addr::Span;
use crate::tui::capture::Capture;
use crate::tui::worker::{Command, Until, Watch};

impl State {
    /// All that can be watched, each with the words that offer it.
    pub(super) fn watches(&self) -> Vec<(String, Watch)> {
        let Some(capture) = &self.capture else {
            return Vec::new();
        };
        let mut watches = Vec::new();
        let mut offer = |words: String, what: String, pa: u64, size: u64, until| {
            if let Some(at) = written_at(capture, pa) {
                let at = Span::new(at, size);
                watches.push((
                    words,
                    Watch {
                        what,
                        at,
                        pa,
                        until,
                    },
                ));
            }
        };
        if let Some((regime, ia)) = self.abort.focus(capture).input
            && let Some(regime) = capture.system.regimes.get(regime)
            && let Some(step) = regime.translate(ia).steps.last()
        {
            let what = format!(
                "the descriptor of {} {ia:#x} at {:#x}",
                regime.name, step.at
            );
            offer(format!("{what} changes"), what, step.at, 8, Until::Changed);
        }
        for lock in &capture.system.locks {
            for (word, until) in [("taken", Until::Taken), ("contended", Until::Contended)] {
                let what = format!("lock {}", lock.name);
                offer(format!("{what} is {word}"), what, lock.pa, 4, until);
            }
        }
        watches
    }

    /// Runs up to what was chosen of them.
    pub(super) fn run_until(&mut self, words: &str, effects: &mut Vec<Effect>) {
        let watches = self.watches();
        match watches.into_iter().find(|(name, _)| name == words) {
            Some((_, watch)) => effects.push(Effect::Worker(Command::Until(watch))),
            None => self.complain(format!("`{words}` cannot be waited for")),
        }
    }
}

/// Where EL2 writes to physical memory: in its own address space.
fn written_at(capture: &Capture, pa: u64) -> Option<u64> {
    let hyp = capture
        .system
        .regimes
        .iter()
        .position(|regime| regime.name == "hyp-s1")?;
    capture.input_of(hyp, pa)
}
