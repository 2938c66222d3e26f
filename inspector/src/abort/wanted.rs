//! Which traps are followed, in the words of the command line.

use super::{Cause, Outcome, Story};
use crate::addr::{Span, parse_range};
use clap::{Args, ValueEnum};
use std::fmt;

/// Which traps are followed.
#[derive(Clone, PartialEq, Eq, Default, Args, Debug)]
pub struct Wanted {
    /// Only aborts at IPAs in this range, B not included
    ///
    /// Addresses of bytes, decimal or 0x…, such as 0x40200000..0x40400000.
    #[arg(long, value_name = "A..B", value_parser = parse_ipas, conflicts_with = "call")]
    pub ipa: Option<Span>,
    /// Only those of this CPU
    ///
    /// CPUs are numbered from 0, as `cpus` shows them.
    #[arg(long, value_name = "N")]
    pub cpu: Option<usize>,
    /// Hypercalls whose name has this in it, not aborts
    ///
    /// Names are the hypervisor's, such as __pkvm_host_share_hyp: share, unshare, donate, vcpu_run. Both sides' states of the
    /// pages are told before and after.
    #[arg(long, value_name = "NAME")]
    pub call: Option<String>,
    /// Step instruction by instruction, and count them
    ///
    /// The other CPUs stand meanwhile, unless one holds a lock that this one waits for. Without it, CPUs are stopped at
    /// functions only.
    #[arg(long)]
    pub steps: bool,
}

/// Reads a range that an abort can be in: for one in an empty range everybody waited for ever.
fn parse_ipas(text: &str) -> Result<Span, String> {
    match parse_range(text)? {
        Span { size: 0, .. } => Err(
            "no address is in it, for B is not part: expected A..B with A below B, such as 0x40000000..0x40200000"
                .to_owned(),
        ),
        range => Ok(range),
    }
}

impl fmt::Display for Wanted {
    /// As it is written on a command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |ipa: Span| {
            format!(
                "--ipa {:#x}..{:#x}",
                ipa.start,
                ipa.start.saturating_add(ipa.size)
            )
        };
        let words = [
            self.ipa.map(range),
            self.cpu.map(|cpu| format!("--cpu {cpu}")),
            self.call.as_ref().map(|call| format!("--call {call}")),
            self.steps.then(|| "--steps".to_owned()),
        ];
        let words: Vec<_> = words.into_iter().flatten().collect();
        f.write_str(&words.join(" "))
    }
}

/// How a trap may end.
#[derive(Clone, Copy, PartialEq, Eq, Default, ValueEnum, Debug)]
pub enum Until {
    /// The host has got what it touched
    Mapped,
    /// The host got an exception, or an error from its hypercall
    #[default]
    Refused,
    /// The hypervisor panicked
    Panic,
    /// Another CPU had mapped it
    AlreadyMapped,
    /// The hypervisor did what the instruction was to do
    Emulated,
    /// Nothing came of it: the host will fault again
    GaveUp,
    /// The CPU went into a guest, or never came back
    Left,
}

impl Until {
    /// The outcome's name in documents.
    fn outcome(self) -> &'static str {
        match self {
            Self::Mapped => "mapped",
            Self::Refused => "refused",
            Self::Panic => "panic",
            Self::AlreadyMapped => "already-mapped",
            Self::Emulated => "emulated",
            Self::GaveUp => "gave-up",
            Self::Left => "left",
        }
    }

    /// Whether a story ends like this.
    pub fn is_met(self, story: &Story) -> bool {
        match (self, &story.outcome, &story.cause) {
            (Self::Refused, Outcome::Returned, Cause::Call(call)) => {
                call.result.is_some_and(|result| result < 0)
            }
            (_, outcome, _) => outcome.name() == self.outcome(),
        }
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.outcome())
    }
}
