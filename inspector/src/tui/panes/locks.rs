//! Locks: held or free, by whom, since when, and who waits.

use super::{Focus, below, split};
use crate::model::{Lock, System, Tickets};
use crate::tui::capture::Capture;
use crate::tui::details;
use crate::tui::grid;
use crate::tui::keymap::Action;
use crate::tui::list::List;
use crate::tui::panel::Panel;
use crate::tui::theme::Theme;
use crate::view::{Cell, Role, Row, locks_table};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use std::collections::BTreeMap;
use std::time::Duration;

/// State of the pane.
#[derive(Clone, Default, Debug)]
pub struct Locks {
    /// Cursor.
    pub list: List,
    /// By physical address, for locks that are held.
    ages: BTreeMap<u64, Age>,
}

/// Since when a ticket is seen to be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Age {
    ticket: u16,
    /// Number of the capture that saw it first.
    capture: u64,
    /// When that was.
    at: Duration,
}

impl Locks {
    /// Takes a new capture that came at `now`.
    pub fn refresh(&mut self, capture: &Capture, now: Duration) {
        let mut ages = BTreeMap::new();
        for lock in &capture.system.locks {
            let Some(tickets) = lock.tickets.filter(|tickets| tickets.held()) else {
                continue;
            };
            let known = self
                .ages
                .get(&lock.pa)
                .filter(|age| age.ticket == tickets.owner);
            let age = known.copied().unwrap_or(Age {
                ticket: tickets.owner,
                capture: capture.number,
                at: now,
            });
            ages.insert(lock.pa, age);
        }
        self.ages = ages;
    }

    /// Takes the size of the screen.
    pub fn settle(&mut self, capture: &Capture, body: Rect) {
        let rows = below(split(body).0, 2);
        self.list
            .settle(capture.system.locks.len(), usize::from(rows.height));
    }

    /// Moves; whether the action was one that does.
    pub fn act(&mut self, action: Action, capture: &Capture) -> bool {
        self.list.act(action, capture.system.locks.len())
    }

    /// Puts the cursor on a line of the screen.
    pub fn press(&mut self, capture: &Capture, body: Rect, y: u16) -> bool {
        let line = y.checked_sub(below(split(body).0, 2).y).map(usize::from);
        let row = line.and_then(|line| self.list.at_line(line, capture.system.locks.len()));
        row.inspect(|row| self.list.cursor = *row).is_some()
    }

    /// What the cursor stands on.
    pub fn focus(&self, capture: &Capture) -> Focus {
        let lock = capture.system.locks.get(self.list.cursor);
        lock.map_or_else(Focus::default, |lock| Focus {
            pa: Some(lock.pa),
            input: None,
            value: format!("{:#x}", lock.pa),
        })
    }

    /// How long the same ticket is seen to be served: in time, and in captures.
    fn age(&self, lock: &Lock, capture: &Capture, now: Duration) -> Option<(Duration, u64)> {
        let age = self.ages.get(&lock.pa)?;
        // A capture that was kept may be older than the ages.
        let captures = capture.number.saturating_sub(age.capture) + 1;
        Some((now.saturating_sub(age.at), captures))
    }

    /// Draws the pane.
    pub fn draw(
        &self,
        capture: &Capture,
        now: Duration,
        theme: Theme,
        body: Rect,
        buf: &mut Buffer,
    ) {
        let main = split(body).0;
        let locks = &capture.system.locks;
        let held = locks
            .iter()
            .filter(|lock| lock.tickets.is_some_and(Tickets::held))
            .count();
        grid::rule(
            buf,
            main,
            theme,
            "locks",
            &format!("{held} of {} held", locks.len()),
        );
        let mut table = locks_table(&capture.system);
        table.titles.push("AGE");
        let window = self.list.window(locks.len());
        let rows = table
            .rows
            .into_iter()
            .enumerate()
            .skip(window.start)
            .take(window.len());
        let lines: Vec<_> = rows
            .map(|(i, mut row)| {
                row.push(match self.age(&locks[i], capture, now) {
                    Some((time, _)) => Cell::new(Role::Active, format!("≥ {}", span(time))),
                    None => Cell::new(Role::Dim, "-"),
                });
                grid::Line {
                    row,
                    changed: capture.changes.locks.contains(&i),
                    selected: i == self.list.cursor,
                }
            })
            .collect();
        grid::table(buf, below(main, 1), theme, &table.titles, None, &lines);
        if lines.is_empty() {
            grid::note(buf, below(main, 2), theme, why_none(&capture.system));
        }
    }

    /// What the panel shows.
    pub fn panel(&self, capture: &Capture, now: Duration) -> Option<Panel> {
        let lock = capture.system.locks.get(self.list.cursor)?;
        let rows = self.describe(lock, capture, now);
        Some(Panel::new(format!("lock {}", lock.name), "", rows))
    }

    fn describe(&self, lock: &Lock, capture: &Capture, now: Duration) -> Vec<Row> {
        let row = |name: &str, role, value: String| vec![grid::label(name), Cell::new(role, value)];
        let mut rows = vec![
            row("symbol", Role::Symbol, lock.symbol.clone()),
            row("pa", Role::Address, format!("{:#x}", lock.pa)),
        ];
        match lock.tickets {
            Some(t) if t.held() => {
                rows.push(row("serves", Role::Active, format!("ticket {}", t.owner)));
                let waiters = t.waiters();
                let role = if waiters > 0 { Role::Active } else { Role::Dim };
                rows.push(row(
                    "waiting",
                    role,
                    format!("{}, next ticket {}", grid::count(waiters, "CPU"), t.next),
                ));
            }
            Some(t) => rows.push(row("free", Role::Dim, format!("next ticket {}", t.next))),
            None => rows.push(row("tickets", Role::Problem, "could not be read".into())),
        }
        if let Some((time, captures)) = self.age(lock, capture, now) {
            let text = format!(
                "at least {}, in {}",
                span(time),
                grid::count(captures, "capture")
            );
            rows.push(row("age", Role::Plain, text));
        }
        if let Some(holder) = &lock.holder {
            rows.push(row("holder", Role::Active, format!("CPU {}", holder.cpu)));
            let at = holder
                .symbol
                .clone()
                .or_else(|| holder.pc.map(|pc| format!("{pc:#x}")));
            rows.extend(at.map(|at| row("taken at", Role::Symbol, at)));
            let by = holder.by.clone();
            rows.extend(by.map(|by| row("inferred", Role::Dim, by)));
            let cpu = capture
                .system
                .cpus
                .iter()
                .find(|cpu| cpu.number as u64 == holder.cpu);
            let now_at = cpu.and_then(details::place);
            rows.extend(now_at.map(|place| row("now at", Role::Symbol, place)));
        }
        rows
    }
}

fn why_none(system: &System) -> &str {
    match &system.no_locks {
        Some(why) => why,
        None => "no lock is known of this hypervisor",
    }
}

/// A duration as people say it: `3 s`, `2 min 5 s`.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_as_people_do() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (125, "2 min 5 s"),
            (7260, "2 h 1 min"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
