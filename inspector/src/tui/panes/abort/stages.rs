//! The stages of an abort, lit as far as it has come: a line, or a column with what was done.

use crate::abort::{Stage, Story};
use crate::tui::grid;
use crate::tui::panes::below;
use crate::tui::theme::Theme;
use crate::view::{Role, outcome_role, outcome_text};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// An abort, and whether it is at its end.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) story: &'a Story,
    pub(super) ended: bool,
}

impl Way<'_> {
    /// How a stage is marked: where the abort is now, where it was, where it was not.
    fn mark(self, theme: Theme, stage: Stage) -> (&'static str, Style) {
        let now = self.story.steps.last().map(|step| step.stage);
        let was = self.story.steps.iter().any(|step| step.stage == stage);
        match (now == Some(stage) && !self.ended, was) {
            (true, _) => ("▶", theme.active()),
            (_, true) => ("●", theme.title()),
            _ => ("·", theme.dim()),
        }
    }
}

/// What is said where there is none.
pub(super) struct Idle {
    /// Why.
    pub(super) why: &'static str,
    /// Which ones are followed, where it is not all.
    pub(super) only: Option<String>,
}

/// The stages in one line, and what was done last below it.
pub(super) fn draw_line(
    way: Option<Way<'_>>,
    idle: &Idle,
    theme: Theme,
    area: Rect,
    buf: &mut Buffer,
) {
    let mut x = area.x + 1;
    for stage in Stage::ALL {
        let (mark, style) = way.map_or(("·", theme.dim()), |way| way.mark(theme, stage));
        x = grid::text(buf, area, x, area.y, mark, style);
        x = grid::text(buf, area, x, area.y, &stage.to_string(), style) + 2;
    }
    let (text, style) = match way {
        Some(way) if way.ended => {
            let role = outcome_role(&way.story.outcome);
            (outcome_text(way.story), theme.role(role))
        }
        Some(way) => {
            let last = way.story.steps.last();
            let text = last.map_or_else(String::new, |step| step.text.clone());
            (text, theme.role(Role::Plain))
        }
        None => {
            let words = [Some(idle.why), idle.only.as_deref()];
            let words: Vec<_> = words.into_iter().flatten().collect();
            (words.join("; "), theme.dim())
        }
    };
    let area = below(area, 1);
    let text = grid::shorten(&text, area.width.saturating_sub(2));
    grid::text(buf, area, area.x + 1, area.y, &text, style);
}

/// The stages one below the other, each with what was done, and how it ended, or which ones are followed.
pub(super) fn draw_column(
    way: Option<Way<'_>>,
    idle: &Idle,
    theme: Theme,
    area: Rect,
    buf: &mut Buffer,
) {
    let title = way.map_or(idle.why, |way| match way.ended {
        true => way.story.outcome.name(),
        false => "under way",
    });
    grid::rule(buf, area, theme, title, "");
    let mut area = below(area, 1);
    for stage in Stage::ALL {
        let (mark, style) = way.map_or(("·", theme.dim()), |way| way.mark(theme, stage));
        let x = grid::text(buf, area, area.x + 1, area.y, mark, style) + 1;
        grid::text(buf, area, x, area.y, &stage.to_string(), style);
        area = below(area, 1);
        let steps = way.iter().flat_map(|way| &way.story.steps);
        for step in steps.filter(|step| step.stage == stage) {
            let lines = grid::wrap(&step.text, area.width.saturating_sub(4));
            for line in lines {
                grid::text(buf, area, area.x + 3, area.y, &line, theme.role(Role::Dim));
                area = below(area, 1);
            }
        }
    }
    let (text, style) = match way.filter(|way| way.ended) {
        Some(Way { story, .. }) => (
            outcome_text(story),
            theme.role(outcome_role(&story.outcome)),
        ),
        None => (idle.only.clone().unwrap_or_default(), theme.dim()),
    };
    area = below(area, 1);
    for line in grid::wrap(&text, area.width.saturating_sub(2)) {
        grid::text(buf, area, area.x + 1, area.y, &line, style);
        area = below(area, 1);
    }
}
