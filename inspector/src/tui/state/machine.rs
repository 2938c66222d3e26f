//! Keys about the machine, and what the worker says of its runs.

use super::{Effect, Link, PromptKind, RATES, State, seconds};
use crate::target::RunState;
use crate::tui::keymap::Action;
use crate::tui::worker::{Command, Point, Written};

impl State {
    /// Keys about the machine.
    pub(super) fn machine(&mut self, action: Action, effects: &mut Vec<Effect>) {
        let mut tell = |command| effects.push(Effect::Worker(command));
        match action {
            Action::Rate => {
                self.rate = (self.rate + 1) % RATES.len();
                if !self.frozen {
                    tell(Command::Every(RATES[self.rate]));
                }
                self.say(match RATES[self.rate] {
                    Some(rate) => {
                        format!("a capture every {} while the machine runs", seconds(rate))
                    }
                    None => "no captures while the machine runs".to_owned(),
                });
            }
            Action::Freeze => {
                self.frozen = !self.frozen;
                let every = if self.frozen { None } else { RATES[self.rate] };
                tell(Command::Every(every));
                if let Some(newer) = self.newer.take() {
                    self.take(newer);
                }
            }
            _ if self.link != Link::Up => {
                self.complain("the link is lost; it is tried every second");
            }
            Action::Capture => tell(Command::Capture),
            _ if !self.live => self.complain("this target is a file: it does not run"),
            Action::Continue => tell(Command::Continue),
            _ => tell(Command::Interrupt),
        }
    }

    /// Keys that run the machine by and by.
    pub(super) fn run_control(&mut self, action: Action, effects: &mut Vec<Effect>) {
        let cpu = self.abort.cpu;
        let command = match action {
            _ if self.link != Link::Up => {
                return self.complain("the link is lost; it is tried every second");
            }
            _ if !self.live => return self.complain("this target is a file: it does not run"),
            Action::Break => return self.ask(PromptKind::Break),
            Action::Disarm => Command::Disarm,
            Action::Unbreak => match self.abort.breakpoint() {
                Some(pc) => Command::Unbreak(pc),
                None => return self.complain("there is no breakpoint to delete"),
            },
            _ if self.run == Some(RunState::Running) => {
                return self.complain("the machine runs; i stops it");
            }
            // Keys that repeat faster than the machine steps do not pile up.
            _ if self.working.is_some() => return,
            Action::Until => return self.ask(PromptKind::Until),
            Action::NextAbort => Command::Follow(Point::Entry),
            Action::NextRefused => Command::Follow(Point::Refused),
            Action::NextStage => Command::Follow(Point::Stage(cpu)),
            Action::EndAbort => Command::Follow(Point::End(cpu)),
            Action::StepOver => Command::StepOver(cpu),
            _ => Command::Step(cpu),
        };
        effects.push(Effect::Worker(command));
    }

    /// The machine runs, or stands.
    pub(super) fn ran(&mut self, run: RunState) {
        match run {
            RunState::Running => self.abort.written = None,
            // What stopped the machine is worth looking at.
            RunState::Stopped { cpu: Some(cpu), .. } if self.run == Some(RunState::Running) => {
                self.abort.choose(cpu);
            }
            _ => {}
        }
        self.run = Some(run);
    }

    /// What was watched was written.
    pub(super) fn written(&mut self, written: Written) {
        let Written {
            watch,
            cpu,
            old,
            new,
            ..
        } = &written;
        self.say(format!(
            "CPU {cpu} wrote {}: {old:#x} → {new:#x}",
            watch.what
        ));
        self.abort.choose(*cpu);
        self.abort.written = Some(written);
    }
}
