//! Counters of what hyp has done since it started, for debuggers.

use core::sync::atomic::{AtomicU64, Ordering};

/// One event that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A host abort that was answered by a mapping.
    AbortMapped,
    /// A host abort whose page another CPU had mapped meanwhile.
    AbortAlreadyMapped,
    /// A host abort that was refused: the host got an exception.
    AbortRefused,
    /// A page was shared with hyp.
    Share,
    /// A page was shared again, and nothing changed.
    ShareAgain,
    /// A share that was refused.
    ShareRefused,
    /// The host's pool ran dry: everything that is not RAM was unmapped and the operation tried once more.
    PoolRetry,
    /// A hypercall hyp does not know.
    UnknownHypercall,
}

impl Event {
    /// All events, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::AbortMapped,
        Self::AbortAlreadyMapped,
        Self::AbortRefused,
        Self::Share,
        Self::ShareAgain,
        Self::ShareRefused,
        Self::PoolRetry,
        Self::UnknownHypercall,
    ];

    /// The event's name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AbortMapped => "aborts mapped",
            Self::AbortAlreadyMapped => "aborts already mapped",
            Self::AbortRefused => "aborts refused",
            Self::Share => "shares",
            Self::ShareAgain => "shares repeated",
            Self::ShareRefused => "shares refused",
            Self::PoolRetry => "pool retries",
            Self::UnknownHypercall => "unknown hypercalls",
        }
    }
}

/// One counter for each [`Event`].
#[derive(Debug, Default)]
pub struct Stats {
    counts: [AtomicU64; Event::ALL.len()],
}

impl Stats {
    pub(crate) fn count(&self, event: Event) {
        self.counts[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often `event` has happened.
    pub fn get(&self, event: Event) -> u64 {
        self.counts[event as usize].load(Ordering::Relaxed)
    }
}
