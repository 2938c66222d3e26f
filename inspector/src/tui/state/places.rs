//! Going from pane to pane with what the cursor stands on, and back.

use super::State;
use crate::model::System;
use crate::tui::capture::Capture;
use crate::tui::keymap::Action;
use crate::tui::panes::{Focus, PaneId};

/// Where the cursor was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// In which pane.
    pub pane: PaneId,
    /// Index of the map's space.
    pub space: usize,
    /// The map's address.
    pub cursor: u64,
    /// What the cursor stood on.
    pub focus: Focus,
}

/// How many places are remembered.
const HISTORY: usize = 200;

impl State {
    /// What the cursor of the pane stands on.
    pub fn focus(&self) -> Focus {
        let Some(capture) = &self.capture else {
            return Focus::default();
        };
        match self.pane {
            PaneId::Map => self.map.focus(capture),
            PaneId::Tables => self.tables.focus(capture),
            PaneId::Runs => self.runs.focus(capture),
            PaneId::Owners => self.owners.focus(capture),
            PaneId::Page => self.page.focus(),
            PaneId::Locks => self.locks.focus(capture),
            PaneId::Cpus => self.cpus.focus(capture),
            PaneId::Vms => self.vms.focus(capture),
            PaneId::Abort => self.abort.focus(capture),
        }
    }

    fn place(&self) -> Place {
        Place {
            pane: self.pane,
            space: self.map.space,
            cursor: self.map.cursor,
            focus: self.focus(),
        }
    }

    /// Remembers where the cursor is, before a jump.
    pub(super) fn remember(&mut self) {
        let place = self.place();
        if self.back.last() != Some(&place) {
            self.back.push(place);
        }
        if self.back.len() > HISTORY {
            self.back.remove(0);
        }
        self.forward.clear();
    }

    pub(super) fn go_back(&mut self) {
        match self.back.pop() {
            Some(place) => {
                self.forward.push(self.place());
                self.restore(&place);
            }
            None => self.complain("there is nothing to go back to"),
        }
    }

    pub(super) fn go_forward(&mut self) {
        match self.forward.pop() {
            Some(place) => {
                self.back.push(self.place());
                self.restore(&place);
            }
            None => self.complain("there is nothing to go forward to"),
        }
    }

    fn restore(&mut self, place: &Place) {
        self.pane = place.pane;
        let Some(capture) = self.capture.clone() else {
            return;
        };
        let Focus { pa, input, .. } = place.focus;
        match (place.pane, input, pa) {
            (PaneId::Map, ..) => self.map.go(place.space, place.cursor),
            (PaneId::Tables, Some((regime, ia)), _) => {
                self.tables.go(&capture, regime, ia);
            }
            (PaneId::Runs, Some((regime, ia)), _) => {
                self.runs.go(&capture, regime, ia);
            }
            (PaneId::Owners, _, Some(pa)) => {
                self.owners.go(&capture, pa);
            }
            (PaneId::Page, _, Some(pa)) => self.page.go(&capture, pa),
            _ => {}
        }
    }

    /// Goes where an action leads from what the cursor stands on.
    pub(super) fn open(&mut self, action: Action) {
        let Some(capture) = self.capture.clone() else {
            return;
        };
        if action == Action::Open && self.pane == PaneId::Tables && self.tables.open(&capture) {
            return;
        }
        if action == Action::Open && self.pane == PaneId::Vms {
            self.open_vm(&capture);
            return;
        }
        let focus = self.focus();
        let to_tables = action == Action::OpenTables
            || action == Action::Open && (self.pane == PaneId::Page || focus.pa.is_none());
        let host = capture
            .system
            .regimes
            .iter()
            .position(|regime| regime.name == "host-s2");
        let identity = host.and_then(|host| Some((host, focus.pa?)));
        match (action, focus.input, focus.pa) {
            (Action::OpenMap, Some((regime, ia)), _) if self.pane != PaneId::Page => {
                self.jump(PaneId::Map);
                self.map.go(regime + 1, ia);
            }
            (Action::OpenMap, _, Some(pa)) => {
                self.jump(PaneId::Map);
                self.map.go(0, pa);
            }
            // The host's input addresses are physical.
            (_, input, _) if to_tables && input.or(identity).is_some() => {
                self.jump(PaneId::Tables);
                if let Some((regime, ia)) = input.or(identity) {
                    self.tables.go(&capture, regime, ia);
                }
            }
            (Action::Open, _, Some(pa)) => {
                self.jump(PaneId::Page);
                self.page.go(&capture, pa);
            }
            _ => self.complain("the cursor stands on nothing that has a place"),
        }
    }

    /// Shows the runs of the VM under the cursor.
    fn open_vm(&mut self, capture: &Capture) {
        match self.vms.regime(capture) {
            Some(regime) => {
                self.jump(PaneId::Runs);
                self.runs.show(capture, regime);
            }
            None => self.complain("this VM has no tables that were captured"),
        }
    }

    /// Goes on with the numbers that regimes have in a new capture: VMs come and go.
    pub(super) fn renumber(&mut self, old: &System, new: &System) {
        let number = |regime: usize| {
            let name = &old.regimes.get(regime)?.name;
            new.regimes.iter().position(|other| other.name == *name)
        };
        self.map.renumber(number);
        self.tables.renumber(number);
        self.runs.renumber(number);
        let keep = |place: &mut Place| {
            if let Some(regime) = place.space.checked_sub(1) {
                place.space = number(regime).map_or(0, |regime| regime + 1);
            }
            let input = place.focus.input;
            place.focus.input = input.and_then(|(regime, ia)| Some((number(regime)?, ia)));
            place.focus.input.is_some() || input.is_none()
        };
        self.back.retain_mut(keep);
        self.forward.retain_mut(keep);
    }

    /// Remembers this place and shows another pane.
    pub(super) fn jump(&mut self, pane: PaneId) {
        self.remember();
        self.pane = pane;
    }
}
