//! A machine in a file: an ELF core of its physical memory, as far as it was read, and of its registers.
//!
//! ```text
//! ELF header, program headers
//! PT_NOTE   CORE      NT_PRSTATUS   one a CPU: gdb shows it as a thread
//!           INSPECTOR 1             facts: RAM, all registers by name, what could not be read (JSON)
//!           INSPECTOR 2             the hypervisor's self-description (JSON), if it had one
//!           INSPECTOR 3             symbols and types that were used (JSON), if any were
//!           INSPECTOR 4             checksums of everything before and after
//! PT_LOAD   one a range of memory: p_paddr is its physical address, p_vaddr the hypervisor's
//! ```
//!
//! Ranges are stored whole, zeros too: gdb reads nothing where a core's segment is longer than its file content.
//! The model is not stored, so that a better decoder reads an old snapshot better.

mod notes;
mod read;
mod write;

use crate::addr::Span;
use crate::target::{ReadError, Registers, Target, TargetError, covered};
use std::ops::Range;
use std::path::Path;

/// The owner of the notes that make an ELF core a snapshot.
pub(super) const NOTE_OWNER: &[u8] = notes::OURS;

/// What a snapshot holds; [`Recorder`](crate::target::Recorder) collects it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Contents {
    /// The registers of every CPU.
    pub registers: Vec<Registers>,
    /// The machine's RAM, where the target knew it: sorted, disjoint.
    pub ram: Option<Vec<Span>>,
    /// Physical memory that was read: sorted by address, neither overlapping nor touching.
    pub memory: Vec<Memory>,
    /// Ranges that the machine refused to read, and what it said.
    pub refused: Vec<Refusal>,
    /// The hypervisor's self-description, as JSON.
    pub description: Option<String>,
    /// Symbols and types that were used, as JSON.
    pub symbols: Option<String>,
    /// PA − VA of the hypervisor's linear map, wrapping; with it gdb finds the hypervisor's data by their symbols.
    pub physvirt_offset: Option<u64>,
    /// Whether the machine ran when it was found, where it can run.
    pub found_running: Option<bool>,
}

/// A range of physical memory and what it held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Physical address.
    pub start: u64,
    /// Content.
    pub bytes: Vec<u8>,
}

/// A range that could not be read though it is RAM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// What was asked for.
    pub span: Span,
    /// What the machine said.
    pub reason: String,
}

/// Writes a snapshot: under another name in the same directory first, so that `path` is either what it was or whole.
///
/// # Errors
/// [`TargetError::Save`]: the file cannot be written, or there is more than the format holds. `path` is untouched then.
pub fn write(path: &Path, contents: &Contents) -> Result<(), TargetError> {
    write::write(path, contents).map_err(|reason| TargetError::Save {
        path: path.display().to_string(),
        reason,
    })
}

/// A snapshot file, opened. Every byte of it has been checked.
#[derive(Debug)]
pub struct Snapshot {
    name: String,
    file: Vec<u8>,
    /// Physical ranges and where in `file` they are; sorted, disjoint.
    segments: Vec<(Span, Range<usize>)>,
    /// Everything but the memory, which stays in `file`.
    contents: Contents,
}

impl Snapshot {
    /// Opens a snapshot; `name` is the file's path and what the target is called.
    ///
    /// # Errors
    /// One sentence: no snapshot at all, truncated, or damaged and where.
    pub fn open(name: &str) -> Result<Self, TargetError> {
        let file = read::load(Path::new(name)).map_err(|reason| TargetError::Open {
            target: name.to_owned(),
            reason,
        })?;
        Self::from_bytes(name, file)
    }

    /// Opens the content of a snapshot file.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(name: &str, file: Vec<u8>) -> Result<Self, TargetError> {
        let (contents, segments) = read::parse(&file).map_err(|reason| TargetError::Open {
            target: name.to_owned(),
            reason,
        })?;
        Ok(Self {
            name: name.to_owned(),
            file,
            segments,
            contents,
        })
    }

    fn saved(&self, span: Span) -> Option<&[u8]> {
        let after = self
            .segments
            .partition_point(|(segment, _)| segment.start <= span.start);
        let (segment, range) = self.segments[..after].last()?;
        if !segment.covers(span) {
            return None;
        }
        let offset = usize::try_from(span.start - segment.start).ok()?;
        let size = usize::try_from(span.size).ok()?;
        self.file[range.clone()].get(offset..)?.get(..size)
    }

    /// The answer that the machine gave, or would have given as far as the file can tell.
    fn read(&self, span: Span) -> Result<Vec<u8>, ReadError> {
        if span.size == 0 {
            return Ok(Vec::new());
        }
        if let Some(bytes) = self.saved(span) {
            return Ok(bytes.to_vec());
        }
        let mut refusals = self.contents.refused.iter();
        if let Some(refusal) = refusals.find(|refusal| refusal.span == span) {
            return Err(ReadError::Refused {
                span,
                reason: refusal.reason.clone(),
            });
        }
        match &self.contents.ram {
            Some(ram) if !covered(ram, span) => Err(ReadError::Unbacked(span)),
            _ => Err(ReadError::NotSaved(span)),
        }
    }
}

impl Target for Snapshot {
    fn name(&self) -> &str {
        &self.name
    }

    fn cpu_count(&mut self) -> Result<usize, TargetError> {
        Ok(self.contents.registers.len())
    }

    fn registers(&mut self, cpu: usize) -> Result<Registers, TargetError> {
        self.contents
            .registers
            .get(cpu)
            .cloned()
            .ok_or_else(|| TargetError::Protocol {
                target: self.name.clone(),
                doing: format!("reading the registers of CPU {cpu}"),
                reason: format!("there are only {} CPUs", self.contents.registers.len()),
            })
    }

    fn ram(&mut self) -> Result<Option<Vec<Span>>, TargetError> {
        Ok(self.contents.ram.clone())
    }

    fn read_phys(
        &mut self,
        requests: &[Span],
    ) -> Result<Vec<Result<Vec<u8>, ReadError>>, TargetError> {
        Ok(requests.iter().map(|span| self.read(*span)).collect())
    }

    fn description(&mut self) -> Result<Option<String>, TargetError> {
        Ok(self.contents.description.clone())
    }

    fn saved_symbols(&mut self) -> Result<Option<String>, TargetError> {
        Ok(self.contents.symbols.clone())
    }
}

#[cfg(test)]
mod tests;
