//! What states, owners and kinds are called: written, and read again.

use super::{EntryKind, JointOwner, Owner, State, VmState};
use crate::addr::parse_u64;
use std::fmt;
use std::str::FromStr;

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Owned => "owned",
            Self::SharedOwned => "shared-owned",
            Self::SharedBorrowed => "shared-borrowed",
            Self::NoPage => "no-page",
            Self::Reserved => "reserved",
            Self::Mixed => "mixed",
        })
    }
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reserved => "reserved",
            Self::Initialised => "initialised",
            Self::Created => "created",
            Self::Dying => "dying",
            Self::Unknown => "unknown",
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.pad("host"),
            Self::Hyp => f.pad("hyp"),
            Self::Ffa => f.pad("ffa"),
            Self::Guest(handle) => f.pad(&format!("guest:{handle:#x}")),
            Self::Locked => f.pad("locked"),
            Self::Poisoned => f.pad("poisoned"),
            Self::Unknown(id) => f.pad(&format!("unknown:{id}")),
        }
    }
}

impl fmt::Display for JointOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(owner) => owner.fmt(f),
            Self::None => f.pad("none"),
            Self::Conflict => f.pad("conflict"),
            Self::Unknown => f.pad("unknown"),
        }
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Block => "block",
            Self::Page => "page",
            Self::Annotation => "annotation",
            Self::Invalid => "invalid",
            Self::Reserved => "reserved",
            Self::Loop => "loop",
            Self::Unreadable => "unreadable",
        })
    }
}

/// A word on the command line that names nothing the contract knows.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{given}` is none of {expected}")]
pub struct UnknownName {
    given: String,
    expected: &'static str,
}

impl FromStr for State {
    type Err = UnknownName;

    fn from_str(s: &str) -> Result<Self, UnknownName> {
        [
            Self::Owned,
            Self::SharedOwned,
            Self::SharedBorrowed,
            Self::NoPage,
            Self::Reserved,
            Self::Mixed,
        ]
        .into_iter()
        .find(|state| state.to_string() == s)
        .ok_or_else(|| UnknownName {
            given: s.to_owned(),
            expected: "owned, shared-owned, shared-borrowed, no-page, reserved, mixed",
        })
    }
}

impl FromStr for EntryKind {
    type Err = UnknownName;

    fn from_str(s: &str) -> Result<Self, UnknownName> {
        [
            Self::Block,
            Self::Page,
            Self::Annotation,
            Self::Invalid,
            Self::Reserved,
            Self::Loop,
            Self::Unreadable,
        ]
        .into_iter()
        .find(|kind| kind.to_string() == s)
        .ok_or_else(|| UnknownName {
            given: s.to_owned(),
            expected: "block, page, annotation, invalid, reserved, loop, unreadable",
        })
    }
}

impl FromStr for Owner {
    type Err = UnknownName;

    fn from_str(s: &str) -> Result<Self, UnknownName> {
        let unknown = || UnknownName {
            given: s.to_owned(),
            expected: "host, hyp, ffa, guest:HANDLE, locked, poisoned, unknown:N",
        };
        match s.split_once(':') {
            Some(("guest", handle)) => parse_u64(handle).map(Self::Guest),
            Some(("unknown", id)) => parse_u64(id).map(Self::Unknown),
            Some(_) => None,
            None => [
                Self::Host,
                Self::Hyp,
                Self::Ffa,
                Self::Locked,
                Self::Poisoned,
            ]
            .into_iter()
            .find(|owner| owner.to_string() == s),
        }
        .ok_or_else(unknown)
    }
}

impl FromStr for JointOwner {
    type Err = UnknownName;

    fn from_str(s: &str) -> Result<Self, UnknownName> {
        match s {
            "none" => Ok(Self::None),
            "conflict" => Ok(Self::Conflict),
            _ => s.parse().map(Self::One).map_err(|_| UnknownName {
                given: s.to_owned(),
                expected: "host, hyp, ffa, guest:HANDLE, unknown:N, none, conflict",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Tickets;

    #[test]
    fn every_name_is_read_back() {
        for name in [
            "owned",
            "shared-owned",
            "shared-borrowed",
            "no-page",
            "reserved",
            "mixed",
        ] {
            assert_eq!(
                name.parse::<State>().map(|v| v.to_string()),
                Ok(name.to_owned())
            );
        }
        for name in [
            "block",
            "page",
            "annotation",
            "invalid",
            "reserved",
            "loop",
            "unreadable",
        ] {
            assert_eq!(
                name.parse::<EntryKind>().map(|v| v.to_string()),
                Ok(name.to_owned())
            );
        }
        for name in [
            "host",
            "hyp",
            "ffa",
            "guest:0x1000",
            "locked",
            "poisoned",
            "unknown:7",
            "none",
            "conflict",
        ] {
            assert_eq!(
                name.parse::<JointOwner>().map(|v| v.to_string()),
                Ok(name.to_owned())
            );
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_there_are() {
        for name in ["", "Host", "guest", "guest:", "guest:0xzz", "unknown:-1"] {
            assert!(name.parse::<Owner>().is_err(), "{name}");
        }
        assert_eq!(
            "hst".parse::<Owner>().map_err(|error| error.to_string()),
            Err(
                "`hst` is none of host, hyp, ffa, guest:HANDLE, locked, poisoned, unknown:N"
                    .to_owned()
            )
        );
    }

    #[test]
    fn tickets_count_waiters_across_the_wrap() {
        for (owner, next, held, waiters) in [
            (0, 0, false, 0),
            (5, 6, true, 0),
            (5, 8, true, 2),
            (0xffff, 1, true, 1),
        ] {
            let tickets = Tickets { owner, next };
            assert_eq!((tickets.held(), tickets.waiters()), (held, waiters));
        }
    }
}
