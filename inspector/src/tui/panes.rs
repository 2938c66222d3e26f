//! The panes. Each has a state that moves with keys, the mouse and new captures, and is drawn from
//! a capture; none reads a machine.

pub mod abort;
pub mod cpus;
pub mod locks;
pub mod map;
pub mod owners;
pub mod page;
pub mod runs;
pub mod sieve;
pub mod tables;
pub mod vms;

use ratatui::layout::Rect;

/// Which pane.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PaneId {
    /// Address spaces as cells.
    Map,
    /// Table pages as a tree.
    Tables,
    /// Entries merged into runs.
    Runs,
    /// Owners of RAM.
    Owners,
    /// One physical page.
    Page,
    /// Locks.
    Locks,
    /// CPUs and their registers.
    Cpus,
    /// VMs.
    Vms,
    /// Host aborts.
    Abort,
}

impl PaneId {
    /// All, in the order of the tabs.
    pub const ALL: [Self; 9] = [
        Self::Map,
        Self::Tables,
        Self::Runs,
        Self::Owners,
        Self::Page,
        Self::Locks,
        Self::Cpus,
        Self::Vms,
        Self::Abort,
    ];

    /// Its name on the tab.
    pub fn title(self) -> &'static str {
        match self {
            Self::Map => "Map",
            Self::Tables => "Tables",
            Self::Runs => "Runs",
            Self::Owners => "Owners",
            Self::Page => "Page",
            Self::Locks => "Locks",
            Self::Cpus => "CPUs",
            Self::Vms => "VMs",
            Self::Abort => "Abort",
        }
    }

    /// The pane `by` tabs further, round and round.
    pub fn step(self, by: isize) -> Self {
        let at = Self::ALL.iter().position(|pane| *pane == self).unwrap_or(0) as isize;
        Self::ALL[(at + by).rem_euclid(Self::ALL.len() as isize) as usize]
    }
}

/// What the cursor of a pane stands on, for the keys that all panes share.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Focus {
    /// The physical address, where there is one.
    pub pa: Option<u64>,
    /// Index of a regime and an input address, where there is one.
    pub input: Option<(usize, u64)>,
    /// What is copied.
    pub value: String,
}

/// The body of the screen: the pane itself and, where there is room, a panel for what the cursor
/// stands on: beside it from `wide` columns on, or else below it.
fn split_at(body: Rect, wide: u16) -> (Rect, Option<Rect>) {
    if body.width >= wide {
        let side = (body.width * 34 / 100).clamp(40, 96);
        let main = Rect {
            width: body.width - side - 1,
            ..body
        };
        let side = Rect {
            x: body.right() - side,
            width: side,
            ..body
        };
        (main, Some(side))
    } else if body.height >= 16 {
        let below = if body.height >= 30 { 12 } else { 6 };
        let main = Rect {
            height: body.height - below,
            ..body
        };
        let side = Rect {
            y: body.y + main.height,
            height: below,
            ..body
        };
        (main, Some(side))
    } else {
        (body, None)
    }
}

/// For panes of rows, which want all the width.
pub fn split(body: Rect) -> (Rect, Option<Rect>) {
    split_at(body, 150)
}

/// For the map, which wants the height.
pub fn split_map(body: Rect) -> (Rect, Option<Rect>) {
    split_at(body, 110)
}

/// All but the first `lines` of an area.
pub fn below(area: Rect, lines: u16) -> Rect {
    let lines = lines.min(area.height);
    Rect {
        y: area.y + lines,
        height: area.height - lines,
        ..area
    }
}
