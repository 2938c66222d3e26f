//! Keys about the machine, and what the worker says of its runs.

use super::{Effect, Link, PromptKind, RATES, State, seconds};
use crate::abort::Story;
use crate::target::RunState;
use crate::tui::keymap::{self, Action};
use crate::tui::worker::{CAPTURING, Command, Point, Written};
use std::sync::Arc;

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
            Action::Continue => {
                tell(Command::Continue);
                self.aim = None;
            }
            _ => {
                tell(Command::Interrupt);
                self.next = None;
            }
        }
    }

    /// The user's breakpoints are these now. The list need not be on the screen, so a new one is said.
    pub(super) fn breakpoints(&mut self, addresses: Vec<u64>) {
        let known = std::mem::replace(&mut self.abort.breakpoints, addresses);
        let mut addresses = self.abort.breakpoints.iter();
        if let Some(at) = addresses.find(|at| !known.contains(at)).copied() {
            let capture = self.capture.as_ref();
            let name = capture.and_then(|capture| capture.system.symbols.name_of(at));
            let name = name.map_or_else(String::new, |name| format!(", {name}"));
            self.say(format!("breakpoint at {at:#x}{name}"));
        }
    }

    /// Keys that run the machine by and by.
    pub(super) fn run_control(&mut self, action: Action, effects: &mut Vec<Effect>) {
        let cpu = self.abort.cpu;
        let mut tell = |command| effects.push(Effect::Worker(command));
        let command = match action {
            _ if self.link != Link::Up => {
                return self.complain("the link is lost; it is tried every second");
            }
            _ if !self.live => return self.complain("this target is a file: it does not run"),
            Action::Break => return self.ask(PromptKind::Break),
            Action::Wanted => return self.ask(PromptKind::Wanted),
            // These run nothing.
            Action::Disarm => return tell(Command::Disarm),
            Action::Unbreak => match self.abort.breakpoint() {
                Some(pc) => return tell(Command::Unbreak(pc)),
                None if self.abort.breakpoints.is_empty() => {
                    return self.complain("there is no breakpoint to delete");
                }
                None => {
                    return self.complain("choose one in the list of breakpoints: v comes to it");
                }
            },
            _ if self.is_under_way() => return self.ask_later(action),
            Action::NextAbort => Command::Follow(Point::Entry),
            Action::NextRefused => Command::Follow(Point::Outcome(self.abort.followed.until())),
            _ if self.run == Some(RunState::Running) => {
                return self.complain("the machine runs; i stops it");
            }
            Action::Until => return self.ask(PromptKind::Until),
            Action::NextStage => Command::Follow(Point::Stage(cpu)),
            Action::EndAbort => Command::Follow(Point::End(cpu)),
            Action::StepOver => Command::StepOver(cpu),
            _ => Command::Step(cpu),
        };
        self.run_up(command, effects);
    }

    /// Tells the worker to run the machine; from now on that is under way.
    pub(super) fn run_up(&mut self, command: Command, effects: &mut Vec<Effect>) {
        self.working = Some(match command {
            Command::Step(_) => "stepping",
            _ => "running",
        });
        self.aim = match command {
            Command::Follow(point) => Some(point),
            _ => None,
        };
        effects.push(Effect::Worker(command));
    }

    /// Whether something is under way that ends with the machine standing.
    pub(super) fn is_under_way(&self) -> bool {
        let runs = self.run == Some(RunState::Running);
        self.working.is_some_and(|what| !runs || what != CAPTURING)
    }

    /// Keys that repeat faster than the machine steps do not pile up: one is remembered.
    fn ask_later(&mut self, action: Action) {
        self.next = Some(action);
        let key = keymap::label(action).unwrap_or_default();
        let doing = self.working.unwrap_or_default();
        self.say(format!(
            "{doing}: {key} comes next, when the machine stands; i stops it"
        ));
    }

    /// The machine runs, or stands.
    pub(super) fn ran(&mut self, run: RunState, effects: &mut Vec<Effect>) {
        match run {
            RunState::Running => self.abort.written = None,
            // What stopped the machine is worth looking at.
            RunState::Stopped { cpu: Some(cpu), .. } if self.run == Some(RunState::Running) => {
                let cpu = self.stopper(cpu);
                self.abort.choose(cpu);
            }
            _ => {}
        }
        let stands = run != RunState::Running;
        self.run = Some(run);
        if let Some(action) = self.next.take_if(|_| stands) {
            self.message = None;
            self.run_control(action, effects);
        }
    }

    /// The CPU that the machine stands for. Several may have come to a stop at once, of which the server names one.
    fn stopper(&self, named: usize) -> usize {
        let cpus = self.capture.iter().flat_map(|capture| &capture.system.cpus);
        let pcs: Vec<_> = cpus.map(|cpu| cpu.pc).collect();
        let pc = |cpu: usize| pcs.get(cpu).copied().flatten();
        if pc(named).is_some_and(|pc| self.abort.breakpoints.contains(&pc)) {
            return named;
        }
        let is_at_entry = |story: &&Arc<Story>| {
            let entry = story.road.entry.as_ref().map(|entry| entry.pc);
            entry.is_some() && entry == pc(story.cpu)
        };
        let mut entered = self.abort.under_way.iter().filter(is_at_entry);
        match self.aim {
            Some(Point::Stage(cpu) | Point::End(cpu)) => cpu,
            Some(Point::Entry) => {
                let others = entered.clone().next();
                let of_named = entered.find(|story| story.cpu == named);
                of_named.or(others).map_or(named, |story| story.cpu)
            }
            Some(Point::Outcome(_)) => self.abort.history.latest().unwrap_or(named),
            None => named,
        }
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
