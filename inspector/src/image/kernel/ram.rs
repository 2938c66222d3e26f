//! A kernel out of the memory in which it runs: nothing but its bytes is needed.
//!
//! From a place in its code the memory is read upwards, where its names, notes and types follow, and only as far as
//! these; then downwards, should one be missing.

use super::anchor;
use super::kallsyms::{self, Kallsyms};
use super::parts::Parts;
use super::signs::{OVERLAP, Signs};
use crate::addr::Span;
use crate::target::{ReadError, TargetError, covered, merge};

/// How physical memory is read, as [`crate::target::Target::read_phys`].
pub(crate) type ReadPhys<'a> =
    dyn FnMut(&[Span]) -> Result<Vec<Result<Vec<u8>, ReadError>>, TargetError> + 'a;

/// Bytes looked through at a time.
const CHUNK: u64 = 1 << 20;
/// What was read last is kept, so that the names, which stand before what they are found by, need no second read.
const KEPT: usize = 6 << 20;
/// No arm64 kernel is larger.
const MAX_IMAGE: u64 = 96 << 20;
/// So many bytes of zeros in a row are in no kernel before its variables: the largest alignment of a section is 2 MiB.
const GAP: u64 = 4 << 20;
/// An Image is loaded at a multiple of 2 MiB, or by EFI of 64 KiB (booting.rst).
const STEPS: [u64; 2] = [0x20_0000, 0x1_0000];
/// So many of the latter are in 64 GiB.
const MAX_PLACES: usize = 1 << 20;

/// What was found of a kernel in memory.
pub(crate) struct Found {
    pub(crate) parts: Parts,
    /// Physical − linked (wrapping), where the memory itself tells it; linked is as [`Parts::symbols`] has it.
    pub(crate) offset: Option<u64>,
}

/// Reads the parts of the kernel that has `near`, a physical address, in its code.
///
/// # Errors
/// The link failed. Without types, [`Parts::btf`] says what was not there.
pub(crate) fn kernel(read: &mut ReadPhys, ram: &[Span], near: u64) -> Result<Found, TargetError> {
    let mut memory = Memory::new(read, ram);
    let mut signs = Signs::default();
    let mut names = None;
    memory.upwards(near & !0xfff, &mut signs, &mut names)?;
    if !signs.is_whole() {
        memory.downwards(near & !0xfff, &mut signs)?;
    }
    if let (None, Some(tokens)) = (&names, &signs.tokens) {
        names = kallsyms::decode(tokens, &mut |span| memory.get(span))?;
    }
    let btf = match signs.btf {
        Some(span) => memory.get(span)?,
        None => None,
    };
    let lost = match memory.lost {
        0 => String::new(),
        lost => format!(", where {lost:#x} bytes cannot be read"),
    };
    let btf =
        btf.ok_or_else(|| format!("no types (BTF) were found in guest RAM around {near:#x}{lost}"));
    let names = names.unwrap_or_default();
    let offset = match (offset(&names, &signs), &signs.tokens) {
        (None, Some(tokens)) => {
            let mut read = |span| memory.get(span);
            anchor::by_functions(&names.symbols, tokens.position(), &mut read)?
        }
        (known, _) => known,
    };
    Ok(Found {
        offset,
        parts: Parts {
            symbols: names.symbols,
            btf,
            build_id: signs.build_id,
            release: signs.release,
        },
    })
}

/// Physical − linked: the table of names tells it itself, or a thing that has a name and was found.
fn offset(names: &Kallsyms, signs: &Signs) -> Option<u64> {
    let by_name = |at: Option<u64>, name: &str| {
        let mut symbols = names.symbols.iter();
        let symbol = symbols.find(|symbol| symbol.name == name)?;
        Some(at?.wrapping_sub(symbol.address))
    };
    let types = signs.btf.map(|btf| btf.start);
    names
        .offset
        .or_else(|| by_name(types, "__start_BTF"))
        .or_else(|| by_name(signs.banner, "linux_banner"))
}

/// Looks for a kernel where nothing tells its place; gives what [`kernel`] takes for `near`. At most `budget` bytes are
/// read: all is affordable in a file, not over a link.
///
/// # Errors
/// The link failed.
pub(crate) fn find(
    read: &mut ReadPhys,
    ram: &[Span],
    budget: u64,
) -> Result<Option<u64>, TargetError> {
    let mut memory = Memory::new(read, ram);
    for step in STEPS {
        if let Some(image) = memory.header(step, budget)? {
            return Ok(Some(image));
        }
    }
    // 6.1 reuses the page of the header.
    for span in memory.ram.clone() {
        let mut start = span.start;
        while span.contains(start) && memory.read_bytes < budget {
            let mut signs = Signs::default();
            memory.advance(start, span, &mut signs)?;
            if signs.tokens.is_some() {
                return Ok(Some(start.saturating_sub(KEPT as u64).max(span.start)));
            }
            start = start.saturating_add(CHUNK);
        }
    }
    Ok(None)
}

/// Physical memory, as far as it is RAM.
struct Memory<'a, 'b> {
    read: &'a mut ReadPhys<'b>,
    ram: Vec<Span>,
    /// What was read last, without gaps, and where it begins.
    kept: (u64, Vec<u8>),
    read_bytes: u64,
    /// Bytes that could not be read.
    lost: u64,
    /// Bytes of zeros since something else was looked at last.
    zeros: Option<u64>,
}

impl<'a, 'b> Memory<'a, 'b> {
    fn new(read: &'a mut ReadPhys<'b>, ram: &[Span]) -> Self {
        Self {
            read,
            ram: merge(ram.to_vec()),
            kept: (0, Vec::new()),
            read_bytes: 0,
            lost: 0,
            zeros: None,
        }
    }

    /// A range, unless a part of it is no RAM or unreadable.
    fn get(&mut self, span: Span) -> Result<Option<Vec<u8>>, TargetError> {
        let (start, kept) = &self.kept;
        if Span::new(*start, kept.len() as u64).covers(span) {
            let at = span.start.saturating_sub(*start) as usize;
            return Ok(kept.get(at..at + span.size as usize).map(<[u8]>::to_vec));
        }
        if !covered(&self.ram, span) {
            return Ok(None);
        }
        let bytes = (self.read)(&[span])?.pop().and_then(Result::ok);
        self.read_bytes += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Ok(bytes)
    }

    /// A range of RAM of which a part is unreadable, with zeros in its place.
    fn patchy(&mut self, span: Span) -> Result<Vec<u8>, TargetError> {
        const PIECE: usize = 0x1000;
        let pieces = (0..span.size).step_by(PIECE);
        let pieces =
            pieces.map(|at| Span::new(span.start + at, (span.size - at).min(PIECE as u64)));
        let pieces: Vec<Span> = pieces.collect();
        let mut bytes = Vec::new();
        for (piece, answer) in pieces.iter().zip((self.read)(&pieces)?) {
            match answer {
                Ok(answer) => bytes.extend(answer),
                Err(_) => self.lost += piece.size,
            }
            bytes.resize((piece.start - span.start + piece.size) as usize, 0);
        }
        self.read_bytes += span.size;
        Ok(bytes)
    }

    /// Looks through the chunk at `start` within `span`; `kept` then ends with it, if all of it is there.
    fn advance(&mut self, start: u64, span: Span, signs: &mut Signs) -> Result<(), TargetError> {
        let chunk = Span::new(start, (span.size - (start - span.start)).min(CHUNK));
        let Some(bytes) = self.get(chunk)? else {
            let bytes = self.patchy(chunk)?;
            signs.look(&bytes, start);
            self.kept = (start, Vec::new());
            return Ok(());
        };
        self.count_zeros(&bytes);
        let (kept_at, kept) = &mut self.kept;
        if *kept_at + kept.len() as u64 != start {
            self.kept = (start, Vec::new());
        } else if kept.len() >= KEPT {
            kept.drain(..KEPT / 2);
            *kept_at += (KEPT / 2) as u64;
        }
        let (kept_at, kept) = &mut self.kept;
        let from = kept.len().saturating_sub(OVERLAP) & !0xfff;
        kept.extend_from_slice(&bytes);
        signs.look(&kept[from..], *kept_at + from as u64);
        Ok(())
    }

    fn count_zeros(&mut self, bytes: &[u8]) {
        self.zeros = match bytes.iter().all(|byte| *byte == 0) {
            true => self
                .zeros
                .map(|zeros| zeros.saturating_add(bytes.len() as u64)),
            false => Some(0),
        };
    }

    /// Whether what was looked at has ended.
    fn at_gap(&self) -> bool {
        self.zeros.is_some_and(|zeros| zeros >= GAP)
    }

    /// Reads on until all is found, or the kernel must have ended.
    fn upwards(
        &mut self,
        near: u64,
        signs: &mut Signs,
        names: &mut Option<Kallsyms>,
    ) -> Result<(), TargetError> {
        let Some(span) = self.ram.iter().copied().find(|span| span.contains(near)) else {
            return Ok(());
        };
        let mut start = near;
        let mut limit = near.saturating_add(MAX_IMAGE);
        self.zeros = None;
        while span.contains(start) && start < limit && !signs.complete() && !self.at_gap() {
            let seen = signs.tokens.is_some();
            self.advance(start, span, signs)?;
            start = start.saturating_add(CHUNK);
            let Some(tokens) = signs.tokens.as_ref().filter(|_| !seen) else {
                continue;
            };
            *names = kallsyms::decode(tokens, &mut |span| self.get(span))?;
            if let Some(names) = names {
                limit = limit.min(near.saturating_add(extent(names)));
                start = start.max(rest(names).unwrap_or(start));
            }
        }
        Ok(())
    }

    fn downwards(&mut self, near: u64, signs: &mut Signs) -> Result<(), TargetError> {
        let Some(span) = self.ram.iter().copied().find(|span| span.contains(near)) else {
            return Ok(());
        };
        let lowest = near.saturating_sub(MAX_IMAGE).max(span.start);
        let mut end = near;
        self.zeros = None;
        while end > lowest && !signs.is_whole() && !self.at_gap() {
            let start = end.saturating_sub(CHUNK).max(lowest);
            // The next one up, too, for what lies across.
            let size = (end - start + OVERLAP as u64).min(span.size - (start - span.start));
            let window = Span::new(start, size);
            let bytes = match self.get(window)? {
                Some(bytes) => bytes,
                None => self.patchy(window)?,
            };
            self.count_zeros(&bytes);
            signs.look(&bytes, start);
            end = start;
        }
        Ok(())
    }

    /// The first place at a multiple of `step` where the header of an arm64 Image stands.
    fn header(&mut self, step: u64, budget: u64) -> Result<Option<u64>, TargetError> {
        const MAGIC_AT: u64 = 56;
        let places = self.ram.iter().flat_map(|span| {
            let first = span.start.checked_next_multiple_of(step);
            let fits = |place: &u64| span.covers(Span::new(*place, 64));
            std::iter::successors(first, move |place| place.checked_add(step)).take_while(fits)
        });
        // A request of 4 bytes costs as much as one of 2 KiB.
        let affordable = usize::try_from(budget / 0x800).unwrap_or(usize::MAX);
        let places: Vec<u64> = places.take(affordable.min(MAX_PLACES)).collect();
        for batch in places.chunks(1024) {
            let spans: Vec<Span> = batch
                .iter()
                .map(|place| Span::new(place + MAGIC_AT, 4))
                .collect();
            let answers = (self.read)(&spans)?;
            self.read_bytes += 4 * answers.len() as u64;
            let magic = |answer: &Result<Vec<u8>, _>| answer.as_deref() == Ok(b"ARM\x64");
            if let Some(index) = answers.iter().position(magic) {
                return Ok(batch.get(index).copied());
            }
        }
        Ok(None)
    }
}

/// Bytes from the first name to the last.
fn extent(names: &Kallsyms) -> u64 {
    match names.symbols.as_slice() {
        [first, .., last] => last.address - first.address,
        _ => 0,
    }
}

/// Where notes and types begin, if the names tell it.
fn rest(names: &Kallsyms) -> Option<u64> {
    let offset = names.offset?;
    let starts = names
        .symbols
        .iter()
        .filter(|symbol| ["__start_notes", "__start_BTF"].contains(&symbol.name.as_str()));
    let first = starts
        .map(|symbol| symbol.address.wrapping_add(offset))
        .min()?;
    Some(first & !0xfff)
}

#[cfg(test)]
mod tests;
