//! Source lines, and the functions that were inlined at an address.
//!
//! A small program's debug information is at hand as a whole. Of a kernel's hundreds of megabytes only the units of the
//! addresses that are asked for are read: [`ByUnit`].

mod by_unit;
mod path;

use super::NAME_LIMIT;
use addr2line::{Context, Frame};
pub(super) use by_unit::ByUnit;
use gimli::{EndianArcSlice, LittleEndian, Reader};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

pub(super) type Bytes = EndianArcSlice<LittleEndian>;

/// No compiler inlines deeper; damaged debug information may say anything.
const MAX_INLINED: usize = 64;

/// A line of a program's source.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Source {
    /// The file, without the folder that the program was built in.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A function that has an address in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Function {
    /// Its name, demangled.
    pub name: Option<String>,
    /// The line in it: of the address, or of the call of the function that was inlined there.
    pub source: Option<Source>,
}

/// The lines of debug information that is at hand.
pub(super) struct Lines(Context<Bytes>);

impl Lines {
    /// Takes debug information; what is in its units is not looked at yet.
    pub(super) fn new(dwarf: Arc<gimli::Dwarf<Bytes>>) -> Option<Self> {
        Context::from_arc_dwarf(dwarf).ok().map(Self)
    }

    /// The functions at a linked address, innermost first: all but the last are inlined there.
    pub(super) fn functions(&self, address: u64) -> Vec<Function> {
        // The library counts on an address behind it.
        if address == u64::MAX {
            return Vec::new();
        }
        let unit = self.0.find_dwarf_and_unit(address).skip_all_loads();
        let folder = unit.and_then(|unit| unit.unit.comp_dir.clone());
        let folder = folder.and_then(|folder| Some(folder.to_string_lossy().ok()?.into_owned()));
        let source = |location: Option<addr2line::Location<'_>>| {
            let location = location?;
            let file = location.file.filter(|file| file.len() <= NAME_LIMIT)?;
            Some(Source {
                file: path::shortened(file, folder.as_deref()),
                line: location.line.filter(|line| *line != 0)?,
            })
        };
        let mut functions = Vec::new();
        if let Ok(mut frames) = self.0.find_frames(address).skip_all_loads() {
            while functions.len() < MAX_INLINED
                && let Ok(Some(frame)) = frames.next()
            {
                functions.push(Function {
                    name: name(&frame),
                    source: source(frame.location),
                });
            }
        }
        if functions.is_empty() {
            // What was inlined is described in another unit, which is not at hand.
            let location = self.0.find_location(address).ok().flatten();
            functions.extend(source(location).map(|source| Function {
                name: None,
                source: Some(source),
            }));
        }
        functions
    }
}

fn name(frame: &Frame<'_, Bytes>) -> Option<String> {
    let name = frame.function.as_ref()?.raw_name().ok()?;
    if name.len() > NAME_LIMIT {
        return None;
    }
    Some(format!("{:#}", rustc_demangle::demangle(&name)))
}

#[cfg(test)]
mod tests;
