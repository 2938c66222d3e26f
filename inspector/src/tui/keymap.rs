//! The keys: one table, of which the dispatcher, the help screen, the footer and a test are made.

use super::panes::PaneId;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Show a pane.
    Show(PaneId),
    /// Show the next pane.
    NextPane,
    /// Show the previous pane.
    PreviousPane,
    /// Move the cursor up.
    Up,
    /// Move the cursor down.
    Down,
    /// Move the cursor left, or to what is left or above.
    Left,
    /// Move the cursor right, or to what is right or below.
    Right,
    /// A screenful up.
    PageUp,
    /// A screenful down.
    PageDown,
    /// To the first.
    First,
    /// To the last.
    Last,
    /// Scroll the panel up.
    PanelUp,
    /// Scroll the panel down.
    PanelDown,
    /// Open what the cursor stands on.
    Open,
    /// Show what the cursor stands on in the map.
    OpenMap,
    /// Show what the cursor stands on in the tables.
    OpenTables,
    /// Back to where the last jump started.
    Back,
    /// Undo the last `Back`.
    Forward,
    /// Ask for an address or a symbol and go there.
    Goto,
    /// Filter rows.
    Filter,
    /// Sort by the next column.
    Sort,
    /// Turn the order round.
    Reverse,
    /// The next address space, regime or CPU.
    View,
    /// Half the bytes a cell.
    ZoomIn,
    /// Twice the bytes a cell.
    ZoomOut,
    /// All of the address space on the screen.
    Fit,
    /// To the next thing that changed.
    NextChange,
    /// To the previous thing that changed.
    PreviousChange,
    /// To the next problem.
    NextProblem,
    /// To the previous problem.
    PreviousProblem,
    /// Let the machine run.
    Continue,
    /// Stop the machine.
    Interrupt,
    /// Have the chosen CPU execute one instruction.
    Step,
    /// The same, but run through calls.
    StepOver,
    /// Let the machine run up to something.
    Until,
    /// Run to the next abort.
    NextAbort,
    /// Run to the next abort that is refused.
    NextRefused,
    /// Run to the next step of this abort.
    NextStage,
    /// Run to the end of this abort.
    EndAbort,
    /// Choose which traps are followed.
    Wanted,
    /// Let traps pass unseen again.
    Disarm,
    /// Write the aborts that are shown to a file.
    Export,
    /// Set a breakpoint.
    Break,
    /// Delete the breakpoint under the cursor.
    Unbreak,
    /// Capture now.
    Capture,
    /// Another rate of captures while the machine runs.
    Rate,
    /// Hold the capture on the screen.
    Freeze,
    /// Write a snapshot.
    Save,
    /// Copy the value under the cursor.
    Copy,
    /// Take or release the mouse.
    Mouse,
    /// Give the terminal back to the shell for a while.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Show this list.
    Help,
    /// Leave.
    Quit,
}

/// One key with its modifiers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key(pub KeyModifiers, pub KeyCode);

impl Key {
    /// As it is written on the screen.
    pub fn label(self) -> String {
        let code = match self.1 {
            KeyCode::Char(' ') => "Space".into(),
            KeyCode::Char(c) => c.to_string(),
            KeyCode::F(n) => format!("F{n}"),
            KeyCode::Up => "↑".into(),
            KeyCode::Down => "↓".into(),
            KeyCode::Left => "←".into(),
            KeyCode::Right => "→".into(),
            KeyCode::PageUp => "PgUp".into(),
            KeyCode::PageDown => "PgDn".into(),
            KeyCode::BackTab => "Shift-Tab".into(),
            KeyCode::Backspace => "Bksp".into(),
            other => format!("{other:?}"),
        };
        if self.0.contains(KeyModifiers::CONTROL) {
            format!("Ctrl-{}", code.to_uppercase())
        } else if self.0.contains(KeyModifiers::ALT) {
            format!("Alt-{code}")
        } else {
            code
        }
    }

    /// Whether a key event is this key. Shift is part of the character, so it does not count.
    pub fn matches(self, event: &KeyEvent) -> bool {
        self.1 == event.code && self.0 == event.modifiers.difference(KeyModifiers::SHIFT)
    }
}

/// Sections of the help screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Moving about.
    Move,
    /// Going elsewhere.
    Jump,
    /// The machine.
    Machine,
    /// What is shown and how.
    Look,
    /// The program.
    Program,
}

impl Group {
    /// All, in the order of the help screen.
    pub const ALL: [Self; 5] = [
        Self::Move,
        Self::Jump,
        Self::Look,
        Self::Machine,
        Self::Program,
    ];

    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Move => "Move",
            Self::Jump => "Jump",
            Self::Machine => "Machine",
            Self::Look => "Look",
            Self::Program => "Program",
        }
    }
}

/// A row of the table.
pub struct Binding {
    /// The keys; any of them.
    pub keys: &'static [Key],
    /// What they do.
    pub action: Action,
    /// The panes in which they do; empty for all.
    pub panes: &'static [PaneId],
    /// Where the help screen has it.
    pub group: Group,
    /// One word for the footer; empty when it does not stand there.
    pub short: &'static str,
    /// One line for the help screen.
    pub help: &'static str,
}

impl Binding {
    /// Whether it holds in a pane.
    pub fn holds_in(&self, pane: PaneId) -> bool {
        self.panes.is_empty() || self.panes.contains(&pane)
    }
}

const fn key(c: char) -> Key {
    Key(KeyModifiers::NONE, KeyCode::Char(c))
}

const fn code(code: KeyCode) -> Key {
    Key(KeyModifiers::NONE, code)
}

const fn ctrl(c: char) -> Key {
    Key(KeyModifiers::CONTROL, KeyCode::Char(c))
}

const fn alt(code: KeyCode) -> Key {
    Key(KeyModifiers::ALT, code)
}

const fn bind(
    keys: &'static [Key],
    action: Action,
    panes: &'static [PaneId],
    group: Group,
    short: &'static str,
    help: &'static str,
) -> Binding {
    Binding {
        keys,
        action,
        panes,
        group,
        short,
        help,
    }
}

use Action as A;
use Group as G;
use PaneId as P;

/// Panes with marked changes and problems to go through.
const MARKED: &[P] = &[P::Map, P::Runs, P::Owners];
/// Panes with rows to filter.
const ROWS: &[P] = &[P::Runs, P::Owners, P::Abort];
/// Panes with rows to sort.
const SORTED: &[P] = &[P::Runs, P::Owners];

/// Every key there is.
#[rustfmt::skip]
pub const KEYMAP: &[Binding] = &[
    bind(&[key('a')], A::NextAbort, &[P::Abort], G::Machine, "abort", "run to the next host abort; from then on all are followed"),
    bind(&[key('A')], A::NextRefused, &[P::Abort], G::Machine, "refused", "run to the end of the next one that is refused, or ends as F says"),
    bind(&[key('n')], A::NextStage, &[P::Abort], G::Machine, "stage", "run to the next step of the abort that this CPU is in"),
    bind(&[key('e')], A::EndAbort, &[P::Abort], G::Machine, "end", "run to the end of the abort that this CPU is in"),
    bind(&[key('F')], A::Wanted, &[P::Abort], G::Machine, "which", "follow which: --ipa A..B, --cpu N, --call NAME (hypercalls), --until OUTCOME, --steps"),
    bind(&[key('D')], A::Disarm, &[P::Abort], G::Machine, "", "disarm: let aborts pass unseen again"),
    bind(&[key('E')], A::Export, &[P::Abort], G::Machine, "", "write the aborts of the history to a file, as inspector abort --json does"),
    bind(&[key('s')], A::Step, &[P::Abort], G::Machine, "step", "one instruction of the CPU that is shown, the others standing"),
    bind(&[key('o')], A::StepOver, &[P::Abort], G::Machine, "over", "the same, but run through a function that it calls"),
    bind(&[key('u')], A::Until, &[P::Abort], G::Machine, "until", "run until a lock is taken or contended, this descriptor or this page's record changes"),
    bind(&[key('b')], A::Break, &[P::Abort], G::Machine, "break", "set a breakpoint at an address or a symbol"),
    bind(&[key('x')], A::Unbreak, &[P::Abort], G::Machine, "", "delete the breakpoint under the cursor"),

    bind(&[key('1')], A::Show(P::Map), &[], G::Jump, "", "Map: address spaces as cells"),
    bind(&[key('2')], A::Show(P::Tables), &[], G::Jump, "", "Tables: the tree of table pages, word by word"),
    bind(&[key('3')], A::Show(P::Runs), &[], G::Jump, "", "Runs: every entry of every regime, merged"),
    bind(&[key('4')], A::Show(P::Owners), &[], G::Jump, "", "Owners: who owns and shares each page of RAM"),
    bind(&[key('5')], A::Show(P::Page), &[], G::Jump, "", "Page: one physical page in all regimes"),
    bind(&[key('6')], A::Show(P::Locks), &[], G::Jump, "", "Locks: held, by whom, who waits"),
    bind(&[key('7')], A::Show(P::Cpus), &[], G::Jump, "", "CPUs: where they are, registers, decoded"),
    bind(&[key('8')], A::Show(P::Vms), &[], G::Jump, "", "VMs: their vCPUs, their memory, their tables"),
    bind(&[key('9')], A::Show(P::Abort), &[], G::Jump, "", "Abort: a host abort step by step, code, breakpoints"),
    bind(&[code(KeyCode::Tab)], A::NextPane, &[], G::Jump, "", "next pane"),
    bind(&[code(KeyCode::BackTab)], A::PreviousPane, &[], G::Jump, "", "previous pane"),
    bind(&[code(KeyCode::Enter)], A::Open, &[P::Map, P::Tables, P::Runs, P::Owners, P::Page, P::Locks, P::Cpus, P::Vms, P::Abort], G::Jump, "open", "open what the cursor stands on"),
    bind(&[key('m')], A::OpenMap, &[P::Tables, P::Runs, P::Owners, P::Page, P::Locks, P::Vms, P::Abort], G::Jump, "map", "the same place in the map"),
    bind(&[key('t')], A::OpenTables, &[P::Map, P::Runs, P::Owners, P::Page, P::Locks, P::Vms, P::Abort], G::Jump, "tables", "the same place in the tables"),
    bind(&[key('g')], A::Goto, &[], G::Jump, "go to", "go to an address or a symbol"),
    bind(&[code(KeyCode::Backspace), key('['), alt(KeyCode::Left)], A::Back, &[], G::Jump, "", "back to where the last jump started"),
    bind(&[key(']'), alt(KeyCode::Right)], A::Forward, &[], G::Jump, "", "forward again"),
    bind(&[key('n')], A::NextChange, MARKED, G::Jump, "change", "next change since the last capture"),
    bind(&[key('N')], A::PreviousChange, MARKED, G::Jump, "", "previous change"),
    bind(&[key('p')], A::NextProblem, MARKED, G::Jump, "", "next problem"),
    bind(&[key('P')], A::PreviousProblem, MARKED, G::Jump, "", "previous problem"),

    bind(&[code(KeyCode::Up), key('k')], A::Up, &[], G::Move, "", "up"),
    bind(&[code(KeyCode::Down), key('j')], A::Down, &[], G::Move, "", "down"),
    bind(&[code(KeyCode::Left), key('h')], A::Left, &[P::Map, P::Tables, P::Page, P::Cpus, P::Abort], G::Move, "", "left; tables: the parent; page, CPUs, abort: the one before"),
    bind(&[code(KeyCode::Right), key('l')], A::Right, &[P::Map, P::Tables, P::Page, P::Cpus, P::Abort], G::Move, "", "right; tables: into the entries; page, CPUs, abort: the next one"),
    bind(&[code(KeyCode::PageUp), ctrl('b')], A::PageUp, &[], G::Move, "", "a screenful up"),
    bind(&[code(KeyCode::PageDown), ctrl('f')], A::PageDown, &[], G::Move, "", "a screenful down"),
    bind(&[code(KeyCode::Home)], A::First, &[], G::Move, "", "to the first"),
    bind(&[code(KeyCode::End), key('G')], A::Last, &[], G::Move, "", "to the last"),
    bind(&[key('K')], A::PanelUp, &[], G::Move, "", "panel up"),
    bind(&[key('J')], A::PanelDown, &[], G::Move, "", "panel down: the rest of what is known of the thing under the cursor"),

    bind(&[key('+'), key('=')], A::ZoomIn, &[P::Map], G::Look, "zoom", "zoom in: half the bytes a cell"),
    bind(&[key('-')], A::ZoomOut, &[P::Map], G::Look, "", "zoom out: twice the bytes a cell"),
    bind(&[key('0')], A::Fit, &[P::Map], G::Look, "fit", "everything on one screen"),
    bind(&[key('v')], A::View, &[P::Map, P::Tables, P::Runs, P::Abort], G::Look, "view", "next address space or regime; abort: code, history, regions, breakpoints"),
    bind(&[key('/')], A::Filter, ROWS, G::Look, "filter", "keep only rows with these words or addresses"),
    bind(&[key('s')], A::Sort, SORTED, G::Look, "sort", "sort by the next column"),
    bind(&[key('S')], A::Reverse, SORTED, G::Look, "", "turn the order round"),

    bind(&[key('c')], A::Continue, &[], G::Machine, "continue", "let the machine run"),
    bind(&[key('i')], A::Interrupt, &[], G::Machine, "interrupt", "stop the machine"),
    bind(&[key('r')], A::Capture, &[], G::Machine, "capture", "capture now (a running machine is stopped for it and goes on)"),
    bind(&[key('R')], A::Rate, &[], G::Machine, "", "how often to capture while the machine runs"),
    bind(&[key('f')], A::Freeze, &[], G::Machine, "freeze", "freeze: hold this capture; again: follow the machine"),
    bind(&[key('w')], A::Save, &[], G::Machine, "save", "write a snapshot to a file"),

    bind(&[key('y')], A::Copy, &[], G::Program, "copy", "copy the value under the cursor (OSC 52)"),
    bind(&[key('M')], A::Mouse, &[], G::Program, "", "mouse on or off (off lets the terminal select text)"),
    bind(&[ctrl('z')], A::Suspend, &[], G::Program, "", "back to the shell; fg returns"),
    bind(&[ctrl('l')], A::Redraw, &[], G::Program, "", "draw everything anew"),
    bind(&[key('?'), code(KeyCode::F(1))], A::Help, &[], G::Program, "help", "this list"),
    bind(&[key('q'), ctrl('c')], A::Quit, &[], G::Program, "quit", "leave; the machine is left as it was found"),
];

/// The action of a key in a pane.
pub fn action(pane: PaneId, event: &KeyEvent) -> Option<Action> {
    KEYMAP
        .iter()
        .find(|binding| binding.holds_in(pane) && binding.keys.iter().any(|key| key.matches(event)))
        .map(|binding| binding.action)
}

/// How the first key of an action is written.
pub fn label(action: Action) -> Option<String> {
    let binding = KEYMAP.iter().find(|binding| binding.action == action)?;
    Some(binding.keys.first()?.label())
}

/// What the footer offers in a pane: the pane's own keys first, then everybody's.
pub fn footer(pane: PaneId) -> impl Iterator<Item = (String, &'static str)> {
    let named = move |own: bool| {
        KEYMAP.iter().filter(move |binding| {
            !binding.short.is_empty() && binding.holds_in(pane) && own != binding.panes.is_empty()
        })
    };
    named(true)
        .chain(named(false))
        .map(|binding| (binding.keys[0].label(), binding.short))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn no_key_has_two_meanings_in_one_pane() {
        for pane in PaneId::ALL {
            let mut seen = BTreeMap::new();
            for binding in KEYMAP.iter().filter(|binding| binding.holds_in(pane)) {
                for key in binding.keys {
                    let earlier = seen.insert(key.label(), binding.help);
                    assert_eq!(earlier, None, "{} in {}", key.label(), pane.title());
                }
            }
        }
    }

    #[test]
    fn every_binding_is_documented_and_no_action_stands_twice() {
        let mut actions = Vec::new();
        for binding in KEYMAP {
            assert!(!binding.keys.is_empty() && !binding.help.is_empty());
            assert!(!actions.contains(&binding.action), "{:?}", binding.action);
            actions.push(binding.action);
        }
    }

    #[test]
    fn shift_does_not_matter_where_the_character_says_it() {
        let event = KeyEvent::new(KeyCode::Char('S'), KeyModifiers::SHIFT);
        assert_eq!(action(PaneId::Runs, &event), Some(Action::Reverse));
        assert_eq!(action(PaneId::Map, &event), None);
        let backtab = KeyEvent::new(KeyCode::BackTab, KeyModifiers::SHIFT);
        assert_eq!(action(PaneId::Map, &backtab), Some(Action::PreviousPane));
    }

    #[test]
    fn the_footer_starts_with_the_panes_own_keys() {
        let map: Vec<_> = footer(PaneId::Map).map(|(_, short)| short).collect();
        assert_eq!(map[..3], ["open", "tables", "change"]);
        assert_eq!(map.last(), Some(&"quit"));
    }

    #[test]
    fn keys_are_written_as_on_the_keyboard() {
        assert_eq!(ctrl('z').label(), "Ctrl-Z");
        assert_eq!(alt(KeyCode::Left).label(), "Alt-←");
        assert_eq!(code(KeyCode::BackTab).label(), "Shift-Tab");
        assert_eq!(code(KeyCode::Enter).label(), "Enter");
    }
}
