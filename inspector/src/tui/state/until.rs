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
        let mut offer = |word: &str, what: String, pa: u64, at: Option<Span>, until| {
            if let Some(at) = at {
                watches.push((
                    format!("{what} {word}"),
                    Watch {
                        what,
                        at,
                        pa,
                        until,
                    },
                ));
            }
        };
        let focus = self.abort.focus(capture);
        if let Some((regime, ia)) = focus.input
            && let Some(regime) = capture.system.regimes.get(regime)
            && let Some(step) = regime.translate(ia).steps.last()
        {
            let what = format!(
                "the descriptor of {} {ia:#x} at {:#x}",
                regime.name, step.at
            );
            offer(
                "changes",
                what,
                step.at,
                written_at(capture, step.at, 8),
                Until::Changed,
            );
        }
        if let Some((page, records)) = focus.pa.zip(capture.system.page_records)
            && let Some(record) = records.record_of(page)
            && let (Some(pa), _) = capture.resolve(record.start)
        {
            let what = format!(
                "the record of page {:#x}",
                page >> records.page_shift << records.page_shift
            );
            // The count and the state are in its first bytes.
            let at = Span::new(record.start, record.size.min(8));
            offer("changes", what, pa, Some(at), Until::Changed);
        }
        for lock in &capture.system.locks {
            for (word, until) in [
                ("is taken", Until::Taken),
                ("is contended", Until::Contended),
            ] {
                let what = format!("lock {}", lock.name);
                offer(word, what, lock.pa, written_at(capture, lock.pa, 4), until);
            }
        }
        watches
    }

    /// Runs up to what was chosen of them.
    pub(super) fn run_until(&mut self, words: &str, effects: &mut Vec<Effect>) {
        let watches = self.watches();
        match watches.into_iter().find(|(name, _)| name == words) {
            Some((_, watch)) => self.run_up(Command::Until(watch), effects),
            None => self.complain(format!("`{words}` cannot be waited for")),
        }
    }
}

/// Where EL2 writes to physical memory: in its own address space.
fn written_at(capture: &Capture, pa: u64, size: u64) -> Option<Span> {
    let mut regimes = capture.system.regimes.iter();
    let hyp = regimes.position(|regime| regime.name == "hyp-s1")?;
    let at = capture.input_of(hyp, pa)?;
    Some(Span::new(at, size))
}
