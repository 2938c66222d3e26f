//! Which range an abort makes the hypervisor map, worked out from the tables before.
//!
//! The rule is that of `host_stage2_adjust_range` and of hyp's `largest_block`: from the level of the hole down, the
//! first level that has blocks and whose block around the address lies inside the region of RAM, or the gap, that
//! the address is in. What stands in the tables beside the hole keeps the hole small, so it need not be looked at.
//!
//! Older kernels ask of the level below whether it has blocks (up to "KVM: arm64: Adjust range correctly during host
//! stage-2 faults", 2025), which makes a difference only where a hole at a level without blocks lies inside the region as
//! a whole: they then ask for more than one block.

use crate::addr::Span;
use crate::arch::regime::{Granule, Regime};

/// The range to be mapped, and why it is that one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The zero descriptor that the walk ended in: what it covers.
    pub hole: Span,
    /// The level of that descriptor.
    pub hole_level: i8,
    /// The region of RAM, or the gap between two, which may not be left.
    pub region: Span,
    /// Every level looked at, from the hole's down; the last one is taken unless it is refused, too.
    pub candidates: Vec<Candidate>,
    /// The range that was asked for or mapped, where it was seen.
    pub seen: Option<Span>,
}

/// A level whose block was considered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The level.
    pub level: i8,
    /// The range around the address.
    pub range: Span,
    /// Whether it can be taken.
    pub verdict: Verdict,
}

/// Whether a block can be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It can.
    Taken,
    /// The hypervisor makes no leaf at this level.
    NoLeaf,
    /// It reaches beyond the region.
    LeavesRegion,
}

impl Choice {
    /// The range that the rule gives; `None` where no level fits.
    pub fn range(&self) -> Option<Span> {
        let last = self.candidates.last()?;
        (last.verdict == Verdict::Taken).then_some(last.range)
    }

    /// The level of that range.
    pub fn level(&self) -> Option<i8> {
        let last = self.candidates.last()?;
        (last.verdict == Verdict::Taken).then_some(last.level)
    }
}

/// Whether the hypervisor maps leaves at this level: blocks of 1 GiB and 2 MiB with pages of 4 KiB, else only the
/// smallest blocks (`kvm_level_supports_block_mapping`). The architecture may have more.
fn has_leaves(granule: Granule, level: i8) -> bool {
    level == 3 || level == 2 || level == 1 && granule == Granule::Kib4
}

/// The range for `ia`, whose walk ended in a zero descriptor at `hole_level`, inside `region`.
pub fn choose(regime: &Regime, ia: u64, hole_level: i8, region: Span) -> Choice {
    let around = |level: i8| {
        let size = regime.entry_size(level);
        Span::new(ia & !(size - 1), size)
    };
    let mut candidates = Vec::new();
    for level in hole_level..=3 {
        let range = around(level);
        let verdict = match (has_leaves(regime.granule, level), region.covers(range)) {
            (false, _) => Verdict::NoLeaf,
            (true, false) => Verdict::LeavesRegion,
            (true, true) => Verdict::Taken,
        };
        candidates.push(Candidate {
            level,
            range,
            verdict,
        });
        if verdict == Verdict::Taken {
            break;
        }
    }
    Choice {
        hole: around(hole_level),
        hole_level,
        region,
        candidates,
        seen: None,
    }
}

/// The region of RAM around `pa`, or else the gap between two.
pub fn region(ram: &[Span], pa: u64, ia_bits: u32) -> (Span, bool) {
    if let Some(region) = ram.iter().find(|region| region.contains(pa)) {
        return (*region, true);
    }
    let end = |region: &Span| region.start.saturating_add(region.size);
    let start = ram.iter().map(end).filter(|end| *end <= pa).max();
    let next = ram.iter().map(|region| region.start);
    let next = next.filter(|start| *start > pa).min();
    let (start, next) = (start.unwrap_or(0), next.unwrap_or(1 << ia_bits));
    (Span::new(start, next.saturating_sub(start)), false)
}

#[cfg(test)]
mod tests;
