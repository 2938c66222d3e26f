//! Why nothing can be followed, or nothing more.

use crate::target::{Target, TargetError};

/// Why nothing can be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The link failed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The target is not a machine.
    #[error("{target}: it cannot run: host aborts are followed on a machine, not in a file")]
    CannotRun {
        /// What the user asked for.
        target: String,
    },
    /// There is no hypervisor yet, or none that is known.
    #[error("{target}: no hypervisor to follow: {reason}")]
    NoHypervisor {
        /// What the user asked for.
        target: String,
        /// What was found out instead.
        reason: String,
    },
    /// The machine has no such CPU, so that waiting for it would never end.
    #[error("{target}: no CPU {cpu}; there are {count}, numbered from 0")]
    NoCpu {
        /// What the user asked for.
        target: String,
        /// The CPU.
        cpu: usize,
        /// How many CPUs there are.
        count: usize,
    },
    /// The server takes no breakpoint where CPUs enter EL2.
    #[error("{target}: no breakpoint at the entry {entry:#x}: {reason}")]
    NoEntry {
        /// What the user asked for.
        target: String,
        /// The address.
        entry: u64,
        /// The server's words.
        reason: String,
    },
    /// It is not there any more.
    #[error("{target}: the machine has ended")]
    Ended {
        /// What the user asked for.
        target: String,
    },
    /// Nothing more comes of its host.
    #[error(
        "{target}: the machine has panicked, and no trap is followed after that: start it anew"
    )]
    Panicked {
        /// What the user asked for.
        target: String,
    },
    /// It has been reset since the breakpoints were set.
    #[error(
        "{target}: the machine has restarted, so that what was followed is over: follow it anew"
    )]
    Restarted {
        /// What the user asked for.
        target: String,
    },
}

impl FollowError {
    /// That nothing more comes of this machine.
    pub(crate) fn panicked(target: &dyn Target) -> Self {
        let target = target.name().to_owned();
        Self::Panicked { target }
    }
}
