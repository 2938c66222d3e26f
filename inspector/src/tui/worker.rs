//! The thread that owns the machine: it alone reads, runs and stops it, saves it, and opens it anew
//! when the link is lost. Commands come in, reports go out.

mod follow;
mod run;

pub use follow::Point;
pub use run::{Until, Watch, Written};

use super::capture::Capture;
use super::{code, source};
use crate::abort::{Follower, Story, Wanted};
use crate::image::Images;
use crate::model::System;
use crate::session::Session;
use crate::target::{RunControl, RunState, Target, TargetError};
use run::{Goal, Stop, control};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A machine that is open.
pub trait Machine: Send {
    /// What the user asked for.
    fn name(&self) -> &str;

    /// What the user should know of how it was found, in sentences.
    fn notes(&self) -> Vec<String>;

    /// Reads everything, as far as it can be read. The machine stands still.
    ///
    /// # Errors
    /// A [`TargetError`] when the link failed; anything else concerns this capture only.
    fn capture(&mut self) -> anyhow::Result<System>;

    /// The target, and the files of what runs there.
    fn parts(&mut self) -> (&mut dyn Target, &mut Images);

    /// Its memory and registers.
    fn target(&mut self) -> &mut dyn Target {
        self.parts().0
    }

    /// Run control, where the machine can run.
    fn run_control(&mut self) -> Option<&mut dyn RunControl> {
        self.target().run_control()
    }

    /// Writes a snapshot.
    ///
    /// # Errors
    /// A [`TargetError`] when the link failed; anything else concerns the file.
    fn save(&mut self, path: &Path) -> anyhow::Result<()>;
}

impl Machine for Session {
    fn name(&self) -> &str {
        self.name()
    }

    fn notes(&self) -> Vec<String> {
        self.notes()
    }

    fn capture(&mut self) -> anyhow::Result<System> {
        let mut system = self.capture()?;
        self.add_lines(&mut system);
        Ok(system)
    }

    fn parts(&mut self) -> (&mut dyn Target, &mut Images) {
        self.parts()
    }

    fn save(&mut self, path: &Path) -> anyhow::Result<()> {
        self.save(path)?;
        Ok(())
    }
}

/// Opens the machine, and opens it again after the link was lost.
pub type Opener = Box<dyn FnMut() -> anyhow::Result<Box<dyn Machine>> + Send>;

/// What the worker is asked to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Capture; a machine that runs is stopped for it and goes on.
    Capture,
    /// Let the machine run.
    Continue,
    /// Stop the machine, and capture.
    Interrupt,
    /// Have one CPU execute one instruction, the others standing.
    Step(usize),
    /// The same, but run through a function that it calls.
    StepOver(usize),
    /// Let the machine run up to a write.
    Until(Watch),
    /// Let the machine run up to a point of a host abort. From then on aborts are followed.
    Follow(Point),
    /// Follow only these traps.
    Want(Wanted),
    /// Let traps pass unseen again.
    Disarm,
    /// Set a breakpoint at an address of code.
    Break(u64),
    /// Take it away.
    Unbreak(u64),
    /// Capture this often while the machine runs; `None` for never.
    Every(Option<Duration>),
    /// Write a snapshot.
    Save(PathBuf),
    /// Let go of the machine and end.
    Quit,
}

/// What the worker has to say.
#[derive(Clone, PartialEq, Debug)]
pub enum Report {
    /// The machine is open.
    Opened {
        /// What the user asked for.
        name: String,
        /// What the user should know of how it was found.
        notes: Vec<String>,
        /// It has run control.
        live: bool,
    },
    /// It is busy with this.
    Working(&'static str),
    /// A capture.
    Captured(Arc<Capture>),
    /// The run state, when it changed.
    Run(RunState),
    /// An abort was followed to its end.
    Told(Arc<Story>),
    /// Whether aborts are followed, and those that are not at their end.
    Following {
        /// They are.
        armed: bool,
        /// What is known so far, a CPU each.
        stories: Vec<Arc<Story>>,
    },
    /// The user's breakpoints, when they changed.
    Breakpoints(Vec<u64>),
    /// The write that was waited for.
    Written(Written),
    /// A snapshot was written.
    Saved(PathBuf),
    /// Something did not work, but the link is fine.
    Failed(String),
    /// The link is lost; it is tried again and again.
    Lost(String),
    /// The worker is gone and nothing more will come: it panicked.
    Gone,
}

/// What the worker is busy with when it captures a machine that goes on.
pub const CAPTURING: &str = "capturing";
/// The same of one that stands from now on.
const LOOKING: &str = "looking";
/// How often a lost link is tried.
const RETRY: Duration = Duration::from_secs(1);
/// How often a running machine is asked whether it stopped by itself.
const POLL: Duration = Duration::from_millis(100);
/// After so long without a stop it is looked whether the machine that is followed still is the same.
const SAME: Duration = Duration::from_secs(1);
/// How often the link to a machine that stands is looked at.
const LINK: Duration = Duration::from_secs(1);

/// Starts the worker on an open machine. Commands go to the sender; `report` is called with each
/// report.
///
/// # Errors
/// The system has no thread to give.
pub fn spawn(
    machine: Box<dyn Machine>,
    opener: Opener,
    report: impl Fn(Report) + Send + 'static,
) -> std::io::Result<(Sender<Command>, JoinHandle<()>)> {
    let (sender, commands) = channel();
    let worker = Worker {
        opener,
        machine: Some(machine),
        last: None,
        captures: 0,
        live: false,
        running: false,
        goal: None,
        follower: None,
        wanted: Wanted::default(),
        last_abort: None,
        breakpoints: Vec::new(),
        every: None,
        due: Instant::now(),
        stopped: Instant::now(),
        report: Box::new(report),
    };
    let handle = std::thread::Builder::new()
        .name("machine".into())
        .spawn(move || worker.run(&commands))?;
    Ok((sender, handle))
}

struct Worker {
    opener: Opener,
    machine: Option<Box<dyn Machine>>,
    last: Option<Arc<Capture>>,
    captures: u64,
    /// The machine has run control.
    live: bool,
    running: bool,
    /// What it runs up to.
    goal: Option<Goal>,
    /// What follows aborts.
    follower: Option<Follower>,
    /// Which traps it follows.
    wanted: Wanted,
    /// The last abort that was followed to its end.
    last_abort: Option<Arc<Story>>,
    /// The user's.
    breakpoints: Vec<u64>,
    every: Option<Duration>,
    /// When the next capture of a running machine, or the next try of a lost link, is due.
    due: Instant,
    /// When the machine stood last.
    stopped: Instant,
    report: Box<dyn Fn(Report) + Send>,
}

/// Says that the worker is gone when it is dropped by a panic.
struct Farewell<'a>(&'a dyn Fn(Report));

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)(Report::Gone);
        }
    }
}

impl Worker {
    fn run(mut self, commands: &Receiver<Command>) {
        let report = std::mem::replace(&mut self.report, Box::new(|_| {}));
        let farewell = Farewell(&*report);
        self.opened(&*report);
        loop {
            let command = match self.patience() {
                Some(limit) => commands.recv_timeout(limit),
                None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let outcome = match command {
                Ok(Command::Quit) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(command) => self.obey(command, &*report),
                Err(RecvTimeoutError::Timeout) => self.idle(&*report),
            };
            if let Err(error) = outcome {
                self.failed(&error, &*report);
            }
        }
        drop(farewell);
    }

    /// How long to wait for a command before looking after the machine; `None` for ever.
    fn patience(&self) -> Option<Duration> {
        let until_due = self.due.saturating_duration_since(Instant::now());
        match (&self.machine, self.running, self.every) {
            // It is waited for the machine itself.
            _ if self.waits() => Some(Duration::ZERO),
            (None, ..) => Some(until_due),
            (Some(_), true, Some(_)) => Some(POLL.min(until_due)),
            (Some(_), true, None) => Some(POLL),
            (Some(_), false, _) => self.live.then_some(LINK),
        }
    }

    fn opened(&mut self, report: &dyn Fn(Report)) {
        let Some(machine) = &mut self.machine else {
            return;
        };
        let live = machine.run_control().is_some();
        report(Report::Opened {
            name: machine.name().to_owned(),
            notes: machine.notes(),
            live,
        });
        self.live = live;
        self.running = false;
        if let Err(error) = self.capture(report) {
            self.failed(&error, report);
        }
    }

    fn obey(&mut self, command: Command, report: &dyn Fn(Report)) -> anyhow::Result<()> {
        if let Command::Every(every) = command {
            self.every = every;
            self.due = Instant::now() + every.unwrap_or_default();
            return Ok(());
        }
        if self.machine.is_none() {
            report(Report::Failed("the link is lost".into()));
            return Ok(());
        }
        let ran = self.running;
        match command {
            Command::Capture
            | Command::Save(_)
            | Command::Disarm
            | Command::Want(_)
            | Command::Break(_)
            | Command::Unbreak(_)
                if self.goal.is_some() =>
            {
                report(Report::Failed(
                    "the machine runs up to something: stop it first".into(),
                ));
                report(Report::Working("running"));
            }
            Command::Capture => return self.capture(report),
            Command::Continue => self.resume(report)?,
            Command::Interrupt => {
                control(self.open_machine()?)?.interrupt()?;
                if std::mem::take(&mut self.running) {
                    self.see(report)?;
                }
                self.forget_goal()?;
                return self.capture(report);
            }
            Command::Follow(point) => self.follow(point, report)?,
            Command::Want(wanted) => self.want(wanted, report)?,
            Command::Disarm => self.disarm(report)?,
            Command::Step(cpu) => self.step(cpu, report)?,
            Command::StepOver(cpu) => self.step_over(cpu, report)?,
            Command::Until(watch) => self.watch(watch, report)?,
            Command::Break(pc) => self.set_breakpoint(pc, true, report)?,
            Command::Unbreak(pc) => self.set_breakpoint(pc, false, report)?,
            // The name is offered, so a wrong Enter must not cost an older snapshot.
            Command::Save(path) if path.exists() => report(Report::Failed(format!(
                "{} exists already: choose another name",
                path.display()
            ))),
            Command::Save(path) => {
                report(Report::Working("saving"));
                self.standing(report, |machine| machine.save(&path))?;
                report(Report::Saved(path));
            }
            Command::Every(_) | Command::Quit => {}
        }
        // It came to a breakpoint just when it was stopped for this.
        if ran && !self.running {
            self.capture(report)?;
        }
        Ok(())
    }

    fn resume(&mut self, report: &dyn Fn(Report)) -> anyhow::Result<()> {
        if self.running {
            return Ok(());
        }
        self.standing_machine()?;
        self.by_hand(false, report)?;
        control(self.open_machine()?)?.resume()?;
        self.running = true;
        self.stopped = Instant::now();
        self.due = Instant::now() + self.every.unwrap_or_default();
        report(Report::Run(RunState::Running));
        Ok(())
    }

    /// Does something with the machine standing still, and lets it go on if it ran.
    fn standing<T>(
        &mut self,
        report: &dyn Fn(Report),
        what: impl FnOnce(&mut dyn Machine) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        if self.running {
            control(self.open_machine()?)?.interrupt()?;
            self.see(report)?;
            self.running = !self.hit()?;
        }
        let result = what(self.open_machine()?);
        if self.running {
            control(self.open_machine()?)?.resume()?;
        }
        result
    }

    fn capture(&mut self, report: &dyn Fn(Report)) -> anyhow::Result<()> {
        report(Report::Working(match self.running {
            true => CAPTURING,
            false => LOOKING,
        }));
        let start = Instant::now();
        let (system, code, state) = self.standing(report, |machine| {
            let system = machine.capture()?;
            let code = code::read(machine.target(), &system)?;
            let state = machine.run_control().map(RunControl::state).transpose()?;
            Ok((system, code, state))
        })?;
        let follower = self.follower.as_ref();
        if follower.is_some_and(|follower| follower.is_of_the_past(&system)) {
            self.disarm(report)?;
            report(Report::Failed(
                "the machine has restarted: what was followed is over; a follows it anew".into(),
            ));
        }
        self.captures += 1;
        let system = Arc::new(system);
        let mut capture =
            Capture::new(system, self.last.as_deref(), self.captures, start.elapsed());
        capture.code = code;
        let folder = std::env::current_dir().unwrap_or_default();
        let cpus = capture.system.cpus.iter();
        capture.source = cpus.map(|cpu| source::read(cpu, &folder)).collect();
        capture.mark_abort(self.last_abort.as_deref());
        let capture = Arc::new(capture);
        self.last = Some(Arc::clone(&capture));
        report(Report::Captured(capture));
        self.report_following(report);
        match state {
            Some(_) if self.running => report(Report::Run(RunState::Running)),
            Some(state) => report(Report::Run(state)),
            None => {}
        }
        Ok(())
    }

    /// Looks after a running machine, or a lost link.
    fn idle(&mut self, report: &dyn Fn(Report)) -> anyhow::Result<()> {
        if self.machine.is_none() {
            match (self.opener)() {
                Ok(machine) => {
                    self.machine = Some(machine);
                    self.opened(report);
                }
                Err(error) => {
                    self.due = Instant::now() + RETRY;
                    report(Report::Lost(format!("{error:#}")));
                }
            }
            return Ok(());
        }
        if self.goal.is_some() && !self.running {
            return self.step_towards(report);
        }
        if let Some(Goal::Ready { point, gates }) = self.goal.clone() {
            return self.wait_for_host(point, &gates, report);
        }
        match self.wait()? {
            Some(RunState::Running) => {
                if self.follower.is_some() && self.stopped.elapsed() >= SAME {
                    control(self.open_machine()?)?.interrupt()?;
                    return self.stopped(Stop::Ours, report);
                }
                let due = self.goal.is_none() && Instant::now() >= self.due;
                if let Some(every) = self.every.filter(|_| due) {
                    self.capture(report)?;
                    self.due = Instant::now() + every;
                }
            }
            // It stands, and so does the link.
            Some(_) if !self.running => {}
            // It stopped by itself.
            Some(RunState::Stopped { cpu, .. }) => self.stopped(Stop::ByItself(cpu), report)?,
            // The server ends with its machine; another may come in its place.
            Some(RunState::Exited) | None => self.lost("the machine has ended".to_owned(), report),
        }
        Ok(())
    }

    /// A failed link is dropped and opened anew; anything else is only said.
    fn failed(&mut self, error: &anyhow::Error, report: &dyn Fn(Report)) {
        let message = format!("{error:#}");
        let broken = match error.downcast_ref() {
            Some(TargetError::Save { .. }) | None => false,
            Some(_) => true,
        };
        if broken {
            self.lost(message, report);
        } else {
            report(Report::Failed(message));
        }
    }

    fn lost(&mut self, reason: String, report: &dyn Fn(Report)) {
        self.machine = None;
        self.running = false;
        self.goal = None;
        self.follower = None;
        self.report_following(report);
        self.breakpoints.clear();
        report(Report::Breakpoints(Vec::new()));
        self.due = Instant::now() + RETRY;
        report(Report::Lost(reason));
    }
}
