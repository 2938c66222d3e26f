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
/// An Image is loaded at a multiple of 2 MiB, or by EFI of 64 KiB (booting.rst).
const STEPS: [u64; 2] = [0x20_0000, 0x1_0000];

/// What was found of a kernel in memory.
pub(crate) struct Found {
    pub(crate) parts: Parts,
    /// Physical − linked (wrapping), where the memory itself tells it; linked is as [`Parts::symbols`] has it.
    pub(crate) offset: Option<u64>,
}

/// Reads the parts of the kernel that has `near`, a physical address, in its code.
///
/// # Errors
/// The link failed. What cannot be read is said in [`Parts::missing`].
pub(crate) fn kernel(read: &mut ReadPhys, ram: &[Span], near: u64) -> Result<Found, TargetError> {
    let mut memory = Memory::new(read, ram);
    let mut signs = Signs::default();
    let mut names = None;
    memory.upwards(near & !0xfff, &mut signs, &mut names)?;
    if signs.tokens.is_none() || signs.btf.is_none() {
        memory.downwards(near & !0xfff, &mut signs)?;
    }
    if let (None, Some(tokens)) = (&names, &signs.tokens) {
        names = kallsyms::decode(tokens, &mut |span| memory.get(span))?;
    }
    let btf = match signs.btf {
        Some(span) => memory.get(span)?,
        None => None,
    };
    let mut missing = Vec::new();
    let place = match memory.lost {
        0 => format!("in guest RAM around {near:#x}"),
        lost => format!("in guest RAM around {near:#x}, where {lost:#x} bytes cannot be read"),
    };
    if names.is_none() {
        missing.push(format!("no table of names (kallsyms) was found {place}"));
    }
    if btf.is_none() {
        missing.push(format!("no types (BTF) were found {place}"));
    }
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
            missing,
        },
    })
}

/// Physical − linked: the table of names tells it itself, or a thing that has a name and was found.
fn offset(names: &Kallsyms, signs: &Signs) -> Option<u64> {
    let mut symbols = names.symbols.iter();
    let types = symbols.find(|symbol| symbol.name == "__start_BTF");
    let from_types = signs.btf.zip(types);
    names
        .offset
        .or(from_types.map(|(btf, symbol)| btf.start.wrapping_sub(symbol.address)))
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
}

impl<'a, 'b> Memory<'a, 'b> {
    fn new(read: &'a mut ReadPhys<'b>, ram: &[Span]) -> Self {
        Self {
            read,
            ram: merge(ram.to_vec()),
            kept: (0, Vec::new()),
            read_bytes: 0,
            lost: 0,
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
        match &bytes {
            Some(bytes) => self.read_bytes += bytes.len() as u64,
            None => self.lost += span.size,
        }
        Ok(bytes)
    }

    /// Looks through the chunk at `start` within `span`; `kept` then ends with it.
    fn advance(&mut self, start: u64, span: Span, signs: &mut Signs) -> Result<(), TargetError> {
        let left = span.size - (start - span.start);
        let Some(bytes) = self.get(Span::new(start, left.min(CHUNK)))? else {
            self.kept = (start, Vec::new());
            return Ok(());
        };
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
        while span.contains(start) && start < limit && !signs.complete() {
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
        while end > lowest && (signs.tokens.is_none() || signs.btf.is_none()) {
            let start = end.saturating_sub(CHUNK).max(lowest);
            // The next one up, too, for what lies across.
            let size = (end - start + OVERLAP as u64).min(span.size - (start - span.start));
            if let Some(window) = self.get(Span::new(start, size))? {
                signs.look(&window, start);
            }
            end = start;
        }
        Ok(())
    }

    /// The first place at a multiple of `step` where the header of an arm64 Image stands.
    fn header(&mut self, step: u64, budget: u64) -> Result<Option<u64>, TargetError> {
        const MAGIC_AT: u64 = 56;
        let places = self.ram.iter().flat_map(|span| {
            let first = span.start.next_multiple_of(step);
            let fits = |place: &u64| span.covers(Span::new(*place, 64));
            (first..)
                .step_by(step as usize)
                .take_while(fits)
                .collect::<Vec<_>>()
        });
        let places: Vec<u64> = places.collect();
        // A request of 4 bytes costs as much as one of 2 KiB.
        let affordable = usize::try_from(budget / 0x800).unwrap_or(usize::MAX);
        for batch in places[..places.len().min(affordable)].chunks(1024) {
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
