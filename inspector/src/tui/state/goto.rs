//! Questions: where to go, where to save.

use super::{Effect, State, snapshot_name};
use crate::addr::Span;
use crate::tui::capture::Capture;
use crate::tui::panes::{PaneId, sieve};
use crate::tui::worker::Command;
use crate::view;
use memchr::memmem;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::path::PathBuf;
use tui_input::Input;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PromptKind {
    /// An address or a symbol.
    Goto,
    /// The name of a file.
    Save,
    /// The name of a file for aborts.
    Export,
    /// Where to set a breakpoint: an address or a symbol.
    Break,
    /// What to run up to.
    Until,
    /// Which traps are followed.
    Wanted,
}

/// A question with the answer so far.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// What is asked.
    pub kind: PromptKind,
    /// The answer so far.
    pub input: Input,
    /// Symbols that fit, the best first.
    pub matches: Vec<String>,
    /// Which of them is chosen.
    pub chosen: Option<usize>,
    /// All symbols, each behind a line feed.
    names: String,
}

/// How many symbols are offered.
const MATCHES: usize = 8;

/// What the user wants to see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    /// An address of whatever the pane shows.
    Here(u64),
    /// An address of a space: 0 is physical memory, then the regimes.
    In(usize, u64),
    /// A virtual address of hyp's.
    Symbol(u64),
}

impl State {
    pub(super) fn ask(&mut self, kind: PromptKind) {
        let text = match kind {
            PromptKind::Goto | PromptKind::Break | PromptKind::Until => String::new(),
            PromptKind::Wanted => self.abort.followed.to_string(),
            PromptKind::Save => snapshot_name(self.capture.as_deref()).display().to_string(),
            PromptKind::Export => "aborts.json".to_owned(),
        };
        let capture = self.capture.as_ref();
        let symbols = || {
            capture.map_or_else(String::new, |capture| {
                in_lines(capture.system.symbols.names())
            })
        };
        let names = match kind {
            PromptKind::Goto | PromptKind::Break => symbols(),
            PromptKind::Until => in_lines(self.watches().iter().map(|(name, _)| name.as_str())),
            PromptKind::Save | PromptKind::Export | PromptKind::Wanted => String::new(),
        };
        self.prompt = Some(Prompt {
            kind,
            input: text.into(),
            matches: Vec::new(),
            chosen: None,
            names,
        });
        self.offer();
    }

    pub(super) fn prompt_key(&mut self, key: &KeyEvent, effects: &mut Vec<Effect>) {
        let Some(prompt) = &mut self.prompt else {
            return;
        };
        let control_c = key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL;
        let last = prompt.matches.len().saturating_sub(1);
        match key.code {
            KeyCode::Esc => self.prompt = None,
            _ if control_c => self.prompt = None,
            KeyCode::Enter => {
                let prompt = self.prompt.take();
                if let Some(prompt) = prompt {
                    self.answer(&prompt, effects);
                }
            }
            // What is listed there is no answer.
            KeyCode::Down | KeyCode::Up | KeyCode::Tab if prompt.kind == PromptKind::Wanted => {}
            KeyCode::Down => prompt.chosen = Some(prompt.chosen.map_or(0, |at| (at + 1).min(last))),
            KeyCode::Up => prompt.chosen = prompt.chosen.and_then(|at| at.checked_sub(1)),
            KeyCode::Tab => {
                let pick = prompt.matches.get(prompt.chosen.unwrap_or(0)).cloned();
                if let Some(symbol) = pick {
                    prompt.input = symbol.into();
                    prompt.chosen = None;
                    self.offer();
                }
            }
            _ => {
                if sieve::edit(&mut prompt.input, key) {
                    prompt.chosen = None;
                    self.offer();
                }
            }
        }
    }

    /// Looks for symbols that fit: those that start with the answer before those that hold it.
    fn offer(&mut self) {
        let Some(prompt) = &mut self.prompt else {
            return;
        };
        prompt.matches.clear();
        let text = prompt.input.value();
        let offers = match prompt.kind {
            PromptKind::Goto | PromptKind::Break => !text.is_empty() && !text.starts_with("0x"),
            PromptKind::Until => true,
            PromptKind::Save | PromptKind::Export => false,
            PromptKind::Wanted => {
                prompt.matches = super::wanted::help();
                return;
            }
        };
        if offers {
            prompt.matches = matches(&prompt.names, text);
        }
        if prompt.kind == PromptKind::Until {
            prompt.chosen = Some(0);
        }
    }

    fn answer(&mut self, prompt: &Prompt, effects: &mut Vec<Effect>) {
        let text = prompt.input.value().trim();
        let chosen = prompt.chosen.and_then(|at| prompt.matches.get(at));
        let chosen = chosen.map(String::as_str);
        match prompt.kind {
            PromptKind::Until => self.run_until(chosen.unwrap_or(text), effects),
            PromptKind::Wanted => self.follow_which(text, effects),
            _ if text.is_empty() => {}
            PromptKind::Save => effects.push(Effect::Worker(Command::Save(PathBuf::from(text)))),
            PromptKind::Export => {
                let stories = self.abort.history.stories();
                effects.push(Effect::Export(PathBuf::from(text), stories));
            }
            PromptKind::Goto => self.go(chosen.unwrap_or(text)),
            PromptKind::Break => self.set_breakpoint(chosen.unwrap_or(text), effects),
        }
    }

    fn set_breakpoint(&mut self, text: &str, effects: &mut Vec<Effect>) {
        let wanted = self
            .capture
            .as_ref()
            .and_then(|capture| parse(capture, text));
        match wanted {
            Some(Wanted::Here(pc) | Wanted::Symbol(pc)) if pc % 4 == 0 => {
                effects.push(Effect::Worker(Command::Break(pc)));
            }
            _ => self.complain(format!(
                "`{text}` is no symbol and no address of an instruction"
            )),
        }
    }

    /// Goes to an address or a symbol, in the pane that is shown if it can show it.
    fn go(&mut self, text: &str) {
        let Some(capture) = self.capture.clone() else {
            return;
        };
        let Some(wanted) = parse(&capture, text) else {
            let spaces: Vec<_> = capture
                .spaces
                .iter()
                .map(|space| space.name.as_str())
                .collect();
            let spaces = spaces.join(":…, ");
            self.complain(format!(
                "`{text}` is no symbol, no 0x… address and no {spaces}:…"
            ));
            return;
        };
        let from = self.place_for_goto();
        let shown = match wanted {
            Wanted::Here(address) => self.show_here(&capture, address),
            Wanted::In(space, address) => self.show_in(&capture, space, address),
            Wanted::Symbol(address) => match capture.resolve(address) {
                (_, Some((regime, ia))) if self.by_input() => {
                    self.show_in(&capture, regime + 1, ia)
                }
                (Some(pa), _) => self.show_in(&capture, 0, pa),
                _ => false,
            },
        };
        if shown {
            self.back.push(from);
            self.forward.clear();
        } else {
            self.complain(format!("`{text}` is not mapped, and is not RAM"));
        }
    }

    fn place_for_goto(&mut self) -> super::Place {
        self.remember();
        // `remember` put it there; it is put back only if the jump succeeds.
        self.back.pop().unwrap_or_else(|| super::Place {
            pane: self.pane,
            space: 0,
            cursor: 0,
            focus: Default::default(),
        })
    }

    /// Whether the pane shows input addresses.
    fn by_input(&self) -> bool {
        match self.pane {
            PaneId::Map => self.map.space > 0,
            PaneId::Tables | PaneId::Runs => true,
            _ => false,
        }
    }

    /// Shows an address of what the pane shows.
    fn show_here(&mut self, capture: &Capture, address: u64) -> bool {
        let holds = |regime: &usize| capture.entry_at(*regime, address).is_some();
        let regimes = capture.system.regimes.len();
        let space = match self.pane {
            PaneId::Map => self.map.space,
            PaneId::Tables => self.tables.regime + 1,
            PaneId::Runs => {
                let regime = self.runs.regime.or_else(|| (0..regimes).find(holds));
                regime.map_or(0, |regime| regime + 1)
            }
            _ => match capture.resolve(address) {
                (Some(pa), _) => return self.show_in(capture, 0, pa),
                _ => 0,
            },
        };
        self.show_in(capture, space, address)
    }

    /// Shows an address of a space, in another pane where this one cannot.
    fn show_in(&mut self, capture: &Capture, space: usize, address: u64) -> bool {
        let regime = space.checked_sub(1);
        match (self.pane, regime) {
            (PaneId::Map, _) => self.map.go(space, address),
            (PaneId::Tables, Some(regime)) => return self.tables.go(capture, regime, address),
            (PaneId::Runs, Some(regime)) => return self.runs.go(capture, regime, address),
            (PaneId::Owners, None) => return self.owners.go(capture, address),
            (_, None) => {
                let page = view::page(&capture.system, address);
                if page.owner.is_none() && page.mappings.is_empty() {
                    return false;
                }
                self.pane = PaneId::Page;
                self.page.go(capture, address);
            }
            (_, Some(_)) => {
                self.pane = PaneId::Map;
                self.map.go(space, address);
            }
        }
        true
    }
}

/// Names in one text, each behind a line feed: a kernel has hundreds of thousands, and one search through all of them at
/// each key is several times as fast as one in each.
fn in_lines<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut all = String::new();
    for name in names {
        all.push('\n');
        all.push_str(name);
    }
    all
}

/// The first of the names that start with a text, and behind them the first that hold it elsewhere.
fn matches(all: &str, text: &str) -> Vec<String> {
    let name = |at: usize| {
        let start = all[..at].rfind('\n').map_or(0, |line| line + 1);
        let rest = &all[start..];
        &rest[..rest.find('\n').unwrap_or(rest.len())]
    };
    let start = format!("\n{text}");
    let first = memmem::find_iter(all.as_bytes(), &start).map(|line| name(line + 1));
    let mut found: Vec<_> = first.take(MATCHES).collect();
    if found.len() < MATCHES {
        let room = MATCHES - found.len();
        let hits = memmem::find_iter(all.as_bytes(), text).map(name);
        let mut others: Vec<&str> = Vec::new();
        for other in hits.filter(|name| !name.starts_with(text)) {
            // The same name again: the text is in it twice. Names stand at different places in `all`.
            if others
                .last()
                .is_some_and(|last| last.as_ptr() == other.as_ptr())
            {
                continue;
            }
            others.push(other);
            if others.len() == room {
                break;
            }
        }
        found.extend(others);
    }
    found.into_iter().map(str::to_owned).collect()
}

/// `0x…`, `SPACE:0x…`, `symbol`, `symbol+0x…`.
fn parse(capture: &Capture, text: &str) -> Option<Wanted> {
    let hex = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    if let Some(address) = hex(text) {
        return Some(Wanted::Here(address));
    }
    // Regimes' names may hold a colon themselves.
    if let Some((name, address)) = text.rsplit_once(':')
        && let Some(space) = capture.spaces.iter().position(|space| space.name == name)
    {
        return hex(address).map(|address| Wanted::In(space, address));
    }
    let symbols = &capture.system.symbols;
    if let Some(symbol) = symbols.find(text) {
        return Some(Wanted::Symbol(symbol.start));
    }
    let (name, offset) = text.rsplit_once('+')?;
    let symbol = symbols.find(name)?;
    let offset = hex(offset).or_else(|| offset.parse().ok())?;
    let span = Span::new(symbol.start, symbol.size.max(1));
    span.contains(symbol.start.checked_add(offset)?)
        .then_some(Wanted::Symbol(symbol.start + offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Two searches, one after the other, say the same.
        #[test]
        fn names_that_start_with_the_text_come_first(
            names in prop::collection::vec("[ab]{0,5}", 0..60),
            text in "[ab]{1,3}",
        ) {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let start = names.iter().filter(|name| name.starts_with(&text));
            let hold = names.iter().filter(|name| !name.starts_with(&text) && name.contains(&text));
            let expected: Vec<_> = start.chain(hold).take(MATCHES).copied().collect();
            prop_assert_eq!(matches(&in_lines(names.iter().copied()), &text), expected);
        }
    }
}
