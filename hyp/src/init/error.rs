//! What can be wrong with the description of memory hyp starts from.

use core::fmt;

use super::Section;
use crate::addr::{Pa, PageRange};
use crate::errno::Errno;

/// Why hyp cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitError {
    /// A RAM region is empty, or starts before the end of the one before it.
    Regions {
        /// The region.
        region: PageRange<Pa>,
        /// The end of the region before it.
        after: Pa,
    },
    /// A RAM region is not within what the host's stage 2 and EL2's stage 1 can map.
    Beyond {
        /// The region.
        region: PageRange<Pa>,
    },
    /// A section is not inside one RAM region, or a device is.
    Section {
        /// The section.
        section: Section,
    },
    /// A pool is not inside one section of pools, or overlaps the other.
    Pool {
        /// The pool.
        pool: &'static str,
        /// Its pages.
        pages: PageRange<Pa>,
    },
    /// The number of page records is not the number of pages of the pool.
    Records {
        /// The pool.
        pool: &'static str,
        /// Its pages.
        pages: PageRange<Pa>,
        /// The number of records.
        records: usize,
    },
    /// The pool cannot hold the root table, or the geometry cannot be.
    Root {
        /// The pool.
        pool: &'static str,
        /// Its pages.
        pages: PageRange<Pa>,
        /// What went wrong.
        errno: Errno,
    },
    /// A section could not be mapped at EL2.
    Map {
        /// The section.
        section: Section,
        /// What went wrong.
        errno: Errno,
    },
    /// hyp's memory or devices could not be taken from the host.
    HostMappings(Errno),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Regions { region, after } => {
                write!(
                    f,
                    "RAM region {region} is empty or starts before {after}, the end of the region before: sort and merge the list"
                )
            }
            Self::Beyond { region } => {
                write!(
                    f,
                    "RAM region {region} is beyond what the host's stage 2 or EL2's stage 1 can map: leave it out"
                )
            }
            Self::Section { section } if !section.kind.is_memory() => {
                write!(
                    f,
                    "{} section {} overlaps RAM",
                    section.kind.name(),
                    section.range
                )
            }
            Self::Section { section } => {
                write!(
                    f,
                    "section {} at {} is not inside one RAM region",
                    section.kind.name(),
                    section.range
                )
            }
            Self::Pool { pool, pages } => {
                write!(
                    f,
                    "{pool} at {pages} is not inside one section `pools`, or overlaps the other pool: the host must not reach it"
                )
            }
            Self::Records {
                pool,
                pages,
                records,
            } => {
                write!(
                    f,
                    "{pool} at {pages} has {records} page records: it needs one a page"
                )
            }
            Self::Root { pool, pages, errno } => {
                write!(f, "{pool} at {pages} cannot hold the root table: {errno}")
            }
            Self::Map { section, errno } => {
                write!(
                    f,
                    "section {} at {} cannot be mapped at EL2: {errno}",
                    section.kind.name(),
                    section.range
                )
            }
            Self::HostMappings(errno) => {
                write!(
                    f,
                    "hyp's memory and devices cannot be taken from the host: {errno}"
                )
            }
        }
    }
}

impl core::error::Error for InitError {}
