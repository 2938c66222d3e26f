//! The joint state of physical pages: what each side's tables say, and who owns the page.
//!
//! Layout profile A: the state of a mapped page is in bits 56:55 of its leaf, the owner of an
//! annotated one in bits 9:2 of an invalid descriptor. RAM that the host's stage 2 says nothing about
//! is the host's: it is mapped when the host first touches it.

use super::walk::{self, Entry, Kind, Regime};
use super::{Inferior, PAGE, Region};
use core::fmt;

/// What one side says of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Exclusive.
    Owned,
    /// Owned and lent.
    SharedOwned,
    /// Borrowed.
    SharedBorrowed,
    /// Not this side's.
    NoPage,
    /// State bits 0b11, which mean nothing.
    Reserved,
    /// The tables do not say: they are damaged there.
    Unknown,
}

/// Who owns a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The host.
    Host,
    /// Hyp.
    Hyp,
    /// No side says it owns it.
    None,
    /// Both do.
    Conflict,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Owned => "owned",
            Self::SharedOwned => "shared-owned",
            Self::SharedBorrowed => "shared-borrowed",
            Self::NoPage => "no-page",
            Self::Reserved => "reserved",
            Self::Unknown => "unknown",
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Host => "host",
            Self::Hyp => "hyp",
            Self::None => "none",
            Self::Conflict => "conflict",
        })
    }
}

impl Side {
    /// The state that an entry of a side's own table carries. `empty` is what descriptor 0 means.
    pub fn of(entry: &Entry, empty: Self) -> Self {
        match entry.kind {
            Kind::Empty => empty,
            Kind::Invalid => Self::NoPage,
            Kind::Block | Kind::Page => match entry.raw >> 55 & 3 {
                0 => Self::Owned,
                1 => Self::SharedOwned,
                2 => Self::SharedBorrowed,
                _ => Self::Reserved,
            },
            Kind::Reserved | Kind::Loop | Kind::Unreadable | Kind::OutOfRange => Self::Unknown,
        }
    }

    fn owns(self) -> bool {
        matches!(self, Self::Owned | Self::SharedOwned)
    }
}

/// Physical pages in one joint state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Joint {
    /// First address.
    pub pa: u64,
    /// Size in bytes.
    pub size: u64,
    /// The host's side.
    pub host: Side,
    /// Hyp's side.
    pub hyp: Side,
}

impl Joint {
    /// Who owns the pages.
    pub fn owner(&self) -> Owner {
        match (self.host.owns(), self.hyp.owns()) {
            (true, true) => Owner::Conflict,
            (true, false) => Owner::Host,
            (false, true) => Owner::Hyp,
            (false, false) => Owner::None,
        }
    }
}

/// The joint state at `pa`, and as far behind it as both lookups reach, but not beyond `end`.
fn joint_at(inferior: &impl Inferior, pa: u64, end: u64) -> Joint {
    let host = walk::lookup(inferior, Regime::HostS2, pa);
    let va = inferior.facts().hyp_va(pa);
    let hyp = walk::lookup(inferior, Regime::HypS1, va);
    let reach = (host.end() - pa).min(hyp.end() - va).min(end - pa);
    Joint {
        pa,
        size: reach,
        host: Side::of(&host, Side::Owned),
        hyp: Side::of(&hyp, Side::NoPage),
    }
}

/// Visits the RAM in `range` in order, neighbours in the same joint state as one, until `visit` returns
/// false. A page is visited from its start.
pub fn owners(inferior: &impl Inferior, range: Region, mut visit: impl FnMut(&Joint) -> bool) {
    let mut run: Option<Joint> = None;
    for region in inferior.facts().ram {
        let mut pa = region.base.max(range.base & !(PAGE - 1));
        let end = region.end().min(range.end());
        while pa < end {
            let next = joint_at(inferior, pa, end);
            pa = next.pa + next.size;
            match &mut run {
                Some(run)
                    if run.pa + run.size == next.pa
                        && (run.host, run.hyp) == (next.host, next.hyp) =>
                {
                    run.size += next.size;
                }
                _ => {
                    if let Some(done) = run.replace(next)
                        && !visit(&done)
                    {
                        return;
                    }
                }
            }
        }
    }
    if let Some(done) = run {
        visit(&done);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, HOST_ROOT, RAM};
    use super::*;
    use std::prelude::rust_2024::*;

    fn all(fake: &Fake, range: Region) -> Vec<(u64, u64, Owner, Side, Side)> {
        let mut rows = Vec::new();
        owners(fake, range, |j| {
            rows.push((j.pa, j.size, j.owner(), j.host, j.hyp));
            true
        });
        rows
    }

    fn pages(base: u64, count: u64) -> Region {
        Region {
            base,
            size: count * PAGE,
        }
    }

    #[test]
    fn every_joint_state_is_a_row_and_ram_is_covered() {
        use Side::{NoPage, Owned, SharedBorrowed, SharedOwned};
        let rows = all(&Fake::with_tables(), Region::ALL);
        assert_eq!(
            rows,
            [
                (0x4000_0000, 0x1000, Owner::Host, Owned, NoPage),
                (
                    0x4000_1000,
                    0x1000,
                    Owner::Host,
                    SharedOwned,
                    SharedBorrowed
                ),
                (0x4000_2000, 0x2000, Owner::Hyp, NoPage, Owned),
                (0x4000_4000, 0x1000, Owner::Hyp, SharedBorrowed, SharedOwned),
                (0x4000_5000, RAM.size - 0x5000, Owner::Host, Owned, NoPage),
            ]
        );
    }

    #[test]
    fn conflicts_orphans_and_damage_are_said() {
        let mut fake = Fake::with_tables();
        fake.words.extend([
            (0x4010_4010, 0x0000_0000_4000_27ff), // the host claims what hyp owns
            (0x4010_6018, 0),                     // annotated, but hyp does not have it
            (0x4010_4020, 0x0180_0000_4000_47ff), // state 0b11
            (0x4010_4028, 0x4000_57fd),           // reserved form
        ]);
        let rows = all(&fake, pages(0x4000_2000, 4));
        let sides: Vec<_> = rows.iter().map(|row| (row.2, row.3, row.4)).collect();
        assert_eq!(
            sides,
            [
                (Owner::Conflict, Side::Owned, Side::Owned),
                (Owner::None, Side::NoPage, Side::NoPage),
                (Owner::Hyp, Side::Reserved, Side::SharedOwned),
                (Owner::None, Side::Unknown, Side::NoPage),
            ]
        );
    }

    #[test]
    fn an_unreadable_table_hides_only_what_is_below_it() {
        let mut fake = Fake::with_tables();
        fake.words.insert(HOST_ROOT + 8, 0x9000_0003);
        let rows = all(&fake, pages(0x4000_0000, 2));
        assert!(rows.iter().all(|row| row.3 == Side::Unknown));
        assert_eq!(rows.iter().map(|row| row.1).sum::<u64>(), 0x2000);
    }

    #[test]
    fn a_visit_ends_when_told_to() {
        let mut rows = 0;
        owners(&Fake::with_tables(), Region::ALL, |_| {
            rows += 1;
            rows < 2
        });
        assert_eq!(rows, 2);
    }
}
