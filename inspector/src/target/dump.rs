//! A machine in a memory dump: the ELF core that QEMU's monitor command `dump-guest-memory` writes.
//!
//! ```text
//! ELF header, program headers
//! PT_NOTE   CORE        NT_PRSTATUS   one a CPU: x0…x30, sp, pc, pstate
//!           CORE, LINUX …             floating point, SVE: not read
//!           VMCOREINFO  0             what a Linux kernel says of itself, if the machine has the device for it
//! PT_LOAD   one a range of memory: p_paddr is its physical address, at any offset in the file
//! ```
//!
//! System registers are not in it. The file may be as large as the machine's memory, so only what is asked for is read.

use crate::addr::Span;
use crate::target::core::{self, CPU_LIMIT, Segment};
use crate::target::{ReadError, Registers, Target, TargetError, merge, snapshot};
use object::elf;
use object::read::elf::ProgramHeader;
use object::{LittleEndian, ReadCache};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A memory dump, opened.
#[derive(Debug)]
pub struct Dump {
    name: String,
    file: File,
    contents: Contents,
}

/// What the headers and notes say.
#[derive(PartialEq, Eq, Debug)]
struct Contents {
    registers: Vec<Registers>,
    /// Physical ranges and where in the file they begin; sorted, disjoint, all of them within the file.
    memory: Vec<(Span, u64)>,
    /// The ranges that the machine has, also where the file does not.
    ram: Vec<Span>,
    problems: Vec<String>,
}

impl Dump {
    /// Opens a memory dump; `None` where the file is a snapshot. `name` is what the target is called.
    ///
    /// # Errors
    /// One sentence: something else, or damaged so that nothing can be shown.
    pub fn open(name: &str, file: File) -> Result<Option<Self>, TargetError> {
        let contents = parse(&file).map_err(|reason| TargetError::Open {
            target: name.to_owned(),
            reason,
        })?;
        Ok(contents.map(|contents| Self {
            name: name.to_owned(),
            file,
            contents,
        }))
    }

    fn read(&self, span: Span) -> Result<Vec<u8>, ReadError> {
        let pieces = pieces(&self.contents.memory, span).ok_or(ReadError::NotSaved(span))?;
        let mut bytes = vec![0; span.size as usize];
        for (part, offset) in pieces {
            let at = (part.start - span.start) as usize;
            let place = &mut bytes[at..at + part.size as usize];
            let read = self.file.read_exact_at(place, offset);
            read.map_err(|error| ReadError::Refused {
                span,
                reason: format!("the file cannot be read: {error}"),
            })?;
        }
        Ok(bytes)
    }
}

/// The parts of a range, each with its offset in the file; `None` where one of them is not there.
fn pieces(memory: &[(Span, u64)], span: Span) -> Option<Vec<(Span, u64)>> {
    let mut found = Vec::new();
    let mut rest = span;
    while rest.size > 0 {
        let after = memory.partition_point(|(range, _)| range.start <= rest.start);
        let (range, offset) = memory[..after].last()?;
        let skipped = rest.start - range.start;
        let size = range.size.checked_sub(skipped)?.min(rest.size);
        if size == 0 {
            return None;
        }
        found.push((Span::new(rest.start, size), offset + skipped));
        rest = Span::new(rest.start.wrapping_add(size), rest.size - size);
    }
    Some(found)
}

/// `None` for a snapshot.
fn parse(file: &File) -> Result<Option<Contents>, String> {
    let length = file
        .metadata()
        .map_err(|error| format!("cannot read it: {error}"))?;
    let data = ReadCache::new(file);
    let segments = core::segments(&data)?;
    let mut ours = false;
    let mut of_process = false;
    let mut registers = Vec::new();
    core::each_note(segments, &data, |note| {
        ours |= note.owner == snapshot::NOTE_OWNER;
        of_process |= note.owner == core::CORE && note.kind == elf::NT_PRPSINFO.0;
        if note.owner == core::CORE && note.kind == core::PRSTATUS && registers.len() <= CPU_LIMIT {
            registers.push(core::registers(note.content));
        }
    })?;
    if ours {
        return Ok(None);
    }
    if of_process {
        return Err("the core of a process, not of a machine".to_owned());
    }
    if registers.is_empty() {
        return Err(
            "an ELF core, but neither a snapshot nor a memory dump: it has no CPU's registers"
                .to_owned(),
        );
    }
    if registers.len() > CPU_LIMIT {
        return Err("it is damaged: more CPUs than any machine has".to_owned());
    }
    let registers: Option<Vec<_>> = registers.into_iter().collect();
    let registers = registers.ok_or("it is damaged: a CPU's registers are cut off")?;
    let (memory, ram, problems) = memory(segments, length.len());
    Ok(Some(Contents {
        registers,
        memory,
        ram,
        problems,
    }))
}

/// The memory in the file, that of the machine, and what is missing.
fn memory(segments: &[Segment], length: u64) -> (Vec<(Span, u64)>, Vec<Span>, Vec<String>) {
    let mut ranges = Vec::new();
    let mut ram = Vec::new();
    let mut end = 0;
    for segment in segments {
        if segment.p_type(LittleEndian) != elf::PT_LOAD {
            continue;
        }
        let start = segment.p_paddr(LittleEndian);
        let (offset, size) = segment.file_range(LittleEndian);
        ram.push(Span::new(start, size.max(segment.p_memsz(LittleEndian))));
        if size == 0 {
            continue;
        }
        end = end.max(offset.saturating_add(size));
        let there = length.saturating_sub(offset).min(size);
        ranges.push((Span::new(start, there), offset));
    }
    let mut problems = Vec::new();
    if end > length {
        problems.push(format!(
            "the dump is truncated or damaged: {length} of {end} bytes are there"
        ));
    }
    (disjoint(ranges), merge(ram), problems)
}

/// Sorts ranges, and cuts what a lower one has already.
fn disjoint(mut ranges: Vec<(Span, u64)>) -> Vec<(Span, u64)> {
    ranges.sort_unstable();
    let mut disjoint: Vec<(Span, u64)> = Vec::new();
    for (span, offset) in ranges {
        let last = disjoint.last().and_then(|(last, _)| last.last());
        let free = last.map_or(Some(0), |last| last.checked_add(1));
        let Some(cut) = free.map(|free| free.saturating_sub(span.start)) else {
            break;
        };
        if cut < span.size {
            let rest = Span::new(span.start + cut, span.size - cut);
            disjoint.push((rest, offset + cut));
        }
    }
    disjoint
}

impl Target for Dump {
    fn name(&self) -> &str {
        &self.name
    }

    fn cpu_count(&mut self) -> Result<usize, TargetError> {
        Ok(self.contents.registers.len())
    }

    fn registers(&mut self, cpu: usize) -> Result<Registers, TargetError> {
        let registers = &self.contents.registers;
        registers
            .get(cpu)
            .cloned()
            .ok_or_else(|| TargetError::Protocol {
                target: self.name.clone(),
                doing: format!("reading the registers of CPU {cpu}"),
                reason: format!("there are only {} CPUs", registers.len()),
            })
    }

    fn ram(&mut self) -> Result<Option<Vec<Span>>, TargetError> {
        Ok(Some(self.contents.ram.clone()))
    }

    fn read_phys(
        &mut self,
        requests: &[Span],
    ) -> Result<Vec<Result<Vec<u8>, ReadError>>, TargetError> {
        Ok(requests.iter().map(|span| self.read(*span)).collect())
    }

    fn description(&mut self) -> Result<Option<String>, TargetError> {
        Ok(None)
    }

    fn problems(&self) -> Vec<String> {
        self.contents.problems.clone()
    }
}

#[cfg(test)]
mod tests;
