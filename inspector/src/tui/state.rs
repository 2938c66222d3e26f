//! Everything on the screen. Events come in, effects go out; nothing here touches a terminal, a
//! machine or a clock.

mod goto;
mod machine;
mod mouse;
mod places;
mod until;
mod wanted;

pub use goto::{Prompt, PromptKind};
pub use places::Place;
pub use wanted::Followed;

use super::capture::Capture;
use super::keymap::{self, Action};
use super::panel::Scroll;
use super::panes::{self, PaneId};
use super::screen;
use super::theme::Theme;
use super::worker::{CAPTURING, Command, Point, Report};
use crate::abort::Story;
use crate::target::RunState;
use ratatui::crossterm::event::{Event as TerminalEvent, KeyCode, KeyEvent, KeyEventKind};
use ratatui::layout::Rect;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A key, the mouse, a new size.
    Terminal(TerminalEvent),
    /// The worker said something.
    Worker(Report),
    /// Aborts were written to a file, or why not.
    Exported(Result<PathBuf, String>),
    /// Time passed.
    Tick,
}

/// Something to do outside.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Tell the worker.
    Worker(Command),
    /// Put text on the clipboard.
    Copy(String),
    /// Write aborts to a file.
    Export(PathBuf, Vec<Arc<Story>>),
    /// Take or release the mouse.
    Mouse(bool),
    /// Give the terminal back to the shell for a while.
    Suspend,
    /// Draw every cell anew.
    Redraw,
    /// Leave; with an error if the worker is gone.
    Quit(Option<String>),
}

/// What an event led to.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Update {
    /// The screen looks different.
    pub redraw: bool,
    /// What is to be done, in order.
    pub effects: Vec<Effect>,
}

/// The link to the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Link {
    /// It stands.
    Up,
    /// It is lost: why, and since when.
    Lost {
        /// In the target's words.
        reason: String,
        /// When it was noticed.
        since: Duration,
    },
}

/// Something said to the user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// One sentence.
    pub text: String,
    /// Something did not work.
    pub problem: bool,
    /// When it disappears.
    until: Duration,
}

/// How often a running machine is captured: the choices.
pub const RATES: [Option<Duration>; 6] = [
    Some(Duration::from_millis(250)),
    Some(Duration::from_millis(500)),
    Some(Duration::from_secs(1)),
    Some(Duration::from_secs(2)),
    Some(Duration::from_secs(5)),
    None,
];

/// How long a message stands.
const MESSAGE: Duration = Duration::from_secs(6);

/// The state of the program.
pub struct State {
    /// Colours.
    pub theme: Theme,
    /// Time since the start, as of the last event.
    pub now: Duration,
    /// The screen.
    pub area: Rect,
    /// What the user asked for.
    pub target: String,
    /// The pane that is shown.
    pub pane: PaneId,
    /// The capture that is shown, once there is one.
    pub capture: Option<Arc<Capture>>,
    /// When it came.
    pub captured_at: Duration,
    /// A newer capture, kept back while frozen.
    pub newer: Option<Arc<Capture>>,
    /// The capture on the screen stays.
    pub frozen: bool,
    /// The link.
    pub link: Link,
    /// The target can run at all.
    pub live: bool,
    /// Whether it does, once known.
    pub run: Option<RunState>,
    /// What the worker is busy with.
    pub working: Option<&'static str>,
    /// The point of a trap that the machine runs to, or ran to last.
    aim: Option<Point>,
    /// What was asked for while it was, to be done when the machine stands.
    pub next: Option<Action>,
    /// Index in [`RATES`].
    pub rate: usize,
    /// The mouse is ours.
    pub mouse: bool,
    /// A question at the bottom of the screen.
    pub prompt: Option<Prompt>,
    /// The help screen, and how far down it is.
    pub help: Option<u16>,
    /// What was said last.
    pub message: Option<Message>,
    /// Where jumps started, the latest last.
    pub back: Vec<Place>,
    /// Where `back` came from, the latest last.
    pub forward: Vec<Place>,
    /// The map.
    pub map: panes::map::Map,
    /// The tables.
    pub tables: panes::tables::Tables,
    /// The runs.
    pub runs: panes::runs::Runs,
    /// The owners.
    pub owners: panes::owners::Owners,
    /// The page.
    pub page: panes::page::Page,
    /// The locks.
    pub locks: panes::locks::Locks,
    /// The CPUs.
    pub cpus: panes::cpus::Cpus,
    /// The VMs.
    pub vms: panes::vms::Vms,
    /// Aborts.
    pub abort: panes::abort::Abort,
    /// How far the panel is scrolled.
    pub scroll: Scroll,
}

impl State {
    /// The state before anything happened.
    pub fn new(theme: Theme, target: impl Into<String>, mouse: bool) -> Self {
        Self {
            theme,
            now: Duration::ZERO,
            area: Rect::ZERO,
            target: target.into(),
            pane: PaneId::Map,
            capture: None,
            captured_at: Duration::ZERO,
            newer: None,
            frozen: false,
            link: Link::Up,
            live: false,
            run: None,
            working: None,
            aim: None,
            next: None,
            rate: 2,
            mouse,
            prompt: None,
            help: None,
            message: None,
            back: Vec::new(),
            forward: Vec::new(),
            map: Default::default(),
            tables: Default::default(),
            runs: Default::default(),
            owners: Default::default(),
            page: Default::default(),
            locks: Default::default(),
            cpus: Default::default(),
            vms: Default::default(),
            abort: Default::default(),
            scroll: Scroll::default(),
        }
    }

    /// Takes an event that happened at `now`, the time since the start.
    pub fn update(&mut self, now: Duration, event: Event) -> Update {
        let seconds = self.now.as_secs();
        self.now = now;
        let mut effects = Vec::new();
        let redraw = match event {
            Event::Tick => {
                let expired = self
                    .message
                    .take_if(|message| message.until <= now)
                    .is_some();
                expired || now.as_secs() != seconds
            }
            Event::Worker(report) => {
                self.report(report, &mut effects);
                true
            }
            Event::Exported(result) => {
                match result {
                    Ok(path) => self.say(format!("saved {}", path.display())),
                    Err(reason) => self.complain(reason),
                }
                true
            }
            Event::Terminal(event) => self.terminal(&event, &mut effects),
        };
        if redraw {
            self.settle();
        }
        Update { redraw, effects }
    }

    fn terminal(&mut self, event: &TerminalEvent, effects: &mut Vec<Effect>) -> bool {
        match event {
            TerminalEvent::Key(key) if key.kind != KeyEventKind::Release => {
                self.key(key, effects);
                true
            }
            TerminalEvent::Mouse(event) if self.mouse => self.mouse_event(event, effects),
            TerminalEvent::Resize(width, height) => {
                self.area = Rect::new(0, 0, *width, *height);
                true
            }
            TerminalEvent::Paste(text) => {
                let keys = text.chars().filter(|c| !c.is_control()).take(256);
                for c in keys {
                    self.typed(&KeyEvent::from(KeyCode::Char(c)), effects);
                }
                true
            }
            _ => false,
        }
    }

    fn key(&mut self, key: &KeyEvent, effects: &mut Vec<Effect>) {
        if let Some(scroll) = self.help {
            let lines = screen::help_lines(screen::layout(self).help());
            self.help = match keymap::action(self.pane, key) {
                Some(Action::Up) => Some(scroll.saturating_sub(1)),
                Some(Action::Down) => Some((scroll + 1).min(lines)),
                Some(Action::PageUp) => Some(scroll.saturating_sub(10)),
                Some(Action::PageDown) => Some((scroll + 10).min(lines)),
                Some(Action::Quit) if key.code != KeyCode::Char('q') => {
                    effects.push(Effect::Quit(None));
                    None
                }
                _ => None,
            };
            return;
        }
        self.message = None;
        if self.typed(key, effects) {
            return;
        }
        if let Some(action) = keymap::action(self.pane, key) {
            self.act(action, effects);
        } else if key.code == KeyCode::Esc {
            self.clear_filter();
        }
    }

    /// Gives a key to whatever is being typed; whether there was something.
    fn typed(&mut self, key: &KeyEvent, effects: &mut Vec<Effect>) -> bool {
        if self.prompt.is_some() {
            self.prompt_key(key, effects);
            return true;
        }
        let Some(sieve) = self.sieve().filter(|sieve| sieve.typing) else {
            return false;
        };
        // Moving goes on while typing, so that what is found can be gone through at once.
        let moves = matches!(
            key.code,
            KeyCode::Up | KeyCode::Down | KeyCode::PageUp | KeyCode::PageDown
        );
        if moves {
            return false;
        }
        let interrupt = keymap::action(PaneId::Map, key) == Some(Action::Quit);
        if interrupt && key.code == KeyCode::Char('c') {
            return false;
        }
        if sieve.key(key) {
            self.choose();
        }
        true
    }

    fn sieve(&mut self) -> Option<&mut panes::sieve::Sieve> {
        match self.pane {
            PaneId::Runs => Some(&mut self.runs.sieve),
            PaneId::Owners => Some(&mut self.owners.sieve),
            PaneId::Abort => Some(&mut self.abort.history.sieve),
            _ => None,
        }
    }

    /// Chooses the rows of the pane anew.
    fn choose(&mut self) {
        if let Some(capture) = self.capture.clone() {
            match self.pane {
                PaneId::Runs => self.runs.refresh(&capture),
                PaneId::Owners => self.owners.refresh(&capture),
                PaneId::Abort => self.abort.history.refresh(),
                _ => {}
            }
        }
    }

    fn clear_filter(&mut self) {
        if let Some(sieve) = self.sieve() {
            sieve.filter.reset();
            self.choose();
        }
    }

    /// Does what an action says.
    pub fn act(&mut self, action: Action, effects: &mut Vec<Effect>) {
        match action {
            Action::Show(pane) => self.pane = pane,
            Action::NextPane => self.pane = self.pane.step(1),
            Action::PreviousPane => self.pane = self.pane.step(-1),
            Action::Help => self.help = Some(0),
            Action::Quit => effects.push(Effect::Quit(None)),
            Action::Suspend => effects.push(Effect::Suspend),
            Action::Redraw => effects.push(Effect::Redraw),
            Action::Mouse => {
                self.mouse = !self.mouse;
                effects.push(Effect::Mouse(self.mouse));
                let text = if self.mouse {
                    "mouse on"
                } else {
                    "mouse off: the terminal selects text"
                };
                self.say(text);
            }
            Action::Copy => match self.focus().value {
                value if value.is_empty() => self.complain("there is nothing to copy here"),
                value => {
                    self.say(format!("copied {value}"));
                    effects.push(Effect::Copy(value));
                }
            },
            Action::Goto => self.ask(PromptKind::Goto),
            Action::Save => self.ask(PromptKind::Save),
            Action::Export => self.ask(PromptKind::Export),
            Action::Filter => {
                self.abort.view = panes::abort::View::History;
                if let Some(sieve) = self.sieve() {
                    sieve.typing = true;
                }
            }
            Action::Continue
            | Action::Interrupt
            | Action::Capture
            | Action::Rate
            | Action::Freeze => {
                self.machine(action, effects);
            }
            Action::NextAbort
            | Action::NextRefused
            | Action::NextStage
            | Action::EndAbort
            | Action::Wanted
            | Action::Disarm
            | Action::Step
            | Action::StepOver
            | Action::Until
            | Action::Break
            | Action::Unbreak => {
                self.run_control(action, effects);
            }
            Action::Back => self.go_back(),
            Action::Forward => self.go_forward(),
            Action::Open | Action::OpenMap | Action::OpenTables => self.open(action),
            Action::PanelUp | Action::PanelDown => {
                self.scroll_panel(action == Action::PanelDown);
            }
            _ => self.pane_act(action),
        }
    }

    /// Says something for a while.
    pub fn say(&mut self, text: impl Into<String>) {
        self.message = Some(Message {
            text: text.into(),
            problem: false,
            until: self.now + MESSAGE,
        });
    }

    /// Says for a while that something did not work.
    pub fn complain(&mut self, text: impl Into<String>) {
        self.say(text);
        if let Some(message) = &mut self.message {
            message.problem = true;
        }
    }

    fn report(&mut self, report: Report, effects: &mut Vec<Effect>) {
        match report {
            Report::Opened { name, notes, live } => {
                let back = (self.link != Link::Up).then(|| "the link is back".to_owned());
                let said: Vec<_> = back.into_iter().chain(notes).collect();
                if !said.is_empty() {
                    self.say(said.join("; "));
                }
                self.link = Link::Up;
                (self.target, self.live) = (name, live);
                let every = if self.frozen { None } else { RATES[self.rate] };
                effects.push(Effect::Worker(Command::Every(every)));
            }
            Report::Working(what) => self.working = Some(what),
            Report::Captured(capture) => {
                // Of a machine it is said next whether it runs.
                if !self.live {
                    self.working = None;
                }
                if self.frozen && self.capture.is_some() {
                    self.newer = Some(capture);
                } else {
                    self.take(capture);
                }
            }
            Report::Run(state) => {
                // What a run is for goes on with it.
                if state != RunState::Running || self.working == Some(CAPTURING) {
                    self.working = None;
                }
                self.ran(state, effects);
            }
            Report::Told(story) => self.abort.history.push(story, self.now),
            Report::Following { armed, stories } => {
                self.abort.armed = armed;
                self.abort.under_way = stories;
            }
            Report::Breakpoints(addresses) => self.breakpoints(addresses),
            Report::Written(written) => self.written(written),
            Report::Saved(path) => {
                self.working = None;
                self.say(format!("saved {}", path.display()));
            }
            Report::Failed(text) => {
                (self.working, self.next) = (None, None);
                self.complain(text);
            }
            Report::Lost(reason) => {
                (self.working, self.next) = (None, None);
                self.run = None;
                let since = match self.link {
                    Link::Lost { since, .. } => since,
                    Link::Up => self.now,
                };
                self.link = Link::Lost { reason, since };
            }
            Report::Gone => effects.push(Effect::Quit(Some(
                "the thread that reads the machine ended in a panic".into(),
            ))),
        }
    }

    /// Shows a capture.
    fn take(&mut self, capture: Arc<Capture>) {
        self.captured_at = self.now;
        if let Some(before) = self.capture.take() {
            self.renumber(&before.system, &capture.system);
        }
        self.tables.refresh(&capture);
        self.runs.refresh(&capture);
        self.owners.refresh(&capture);
        self.page.refresh(&capture);
        self.locks.refresh(&capture, self.now);
        self.cpus.refresh(&capture);
        self.vms.refresh(&capture);
        self.abort.refresh(&capture);
        self.capture = Some(capture);
    }

    /// Fits all panes to the screen.
    fn settle(&mut self) {
        let Some(capture) = self.capture.clone() else {
            return;
        };
        let body = screen::layout(self).body;
        self.map.settle(&capture, body);
        self.tables.settle(body);
        self.runs.settle(body);
        self.owners.settle(body);
        self.page.settle(&capture, body);
        self.locks.settle(&capture, body);
        self.cpus.settle(&capture, body);
        self.vms.settle(body);
        self.abort.settle(body);
        self.settle_panel();
    }

    fn pane_act(&mut self, action: Action) {
        let Some(capture) = self.capture.clone() else {
            return;
        };
        let done = match self.pane {
            PaneId::Map => self.map.act(action, &capture),
            PaneId::Tables => self.tables.act(action, &capture),
            PaneId::Runs => self.runs.act(action, &capture),
            PaneId::Owners => self.owners.act(action, &capture),
            PaneId::Page => self.page.act(action, &capture),
            PaneId::Locks => self.locks.act(action, &capture),
            PaneId::Cpus => self.cpus.act(action, &capture),
            PaneId::Vms => self.vms.act(action),
            PaneId::Abort => self.abort.act(action, &capture),
        };
        match action {
            _ if done => {}
            Action::NextChange | Action::PreviousChange => self.complain("no further change here"),
            Action::NextProblem | Action::PreviousProblem => {
                self.complain("no further problem here");
            }
            _ => {}
        }
    }
}

/// A short time in seconds, as the header shows it.
pub fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

/// The name that is offered for a snapshot.
fn snapshot_name(capture: Option<&Capture>) -> PathBuf {
    let number = capture.map_or(0, |capture| capture.number);
    PathBuf::from(format!("snapshot-{number}.core"))
}
