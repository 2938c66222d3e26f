//! What a snapshot remembers of a kernel: just what was used, so that the same questions have the same answers elsewhere.

use super::types::Answers;
use super::{CallFrames, Contents, Kernel, KernelTypes, NVHE, Symbol};
use crate::addr::{Span, hex};
use crate::image::frames::RulesAt;
use crate::image::id_text;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How far back `Symbols::name_of` looks for a symbol that covers an address.
const NESTED: usize = 16;

/// A kernel in a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::image) struct KernelNotes {
    source: String,
    release: Option<String>,
    /// Hexadecimal.
    build_id: Option<String>,
    symbols: Vec<Symbol>,
    /// What describes the types, or why nothing does.
    types: Result<String, String>,
    #[serde(default)]
    answers: Answers,
    #[serde(default)]
    contents: Vec<Piece>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    call_frames: Vec<RulesAt>,
}

/// Bytes at a linked address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) struct Piece {
    #[serde(with = "hex")]
    linked: u64,
    /// Hexadecimal.
    bytes: String,
}

/// What was used of a kernel, beside its types.
#[derive(Default)]
pub(super) struct Used {
    /// Places in the table of symbols.
    pub(super) symbols: BTreeSet<usize>,
    pub(super) contents: BTreeSet<Piece>,
}

impl Used {
    /// Notes the symbols that name a linked address, if any does: the last before it, and the one that covers it.
    pub(super) fn keep(&mut self, symbols: &[Symbol], linked: u64) {
        let after = symbols.partition_point(|symbol| symbol.address <= linked);
        let before = (after.saturating_sub(NESTED)..after).rev();
        let mut before = before.peekable();
        self.symbols.extend(before.peek().copied());
        self.symbols
            .extend(before.find(|place| linked - symbols[*place].address < symbols[*place].size));
    }
}

impl Piece {
    pub(super) fn new(linked: u64, bytes: &[u8]) -> Self {
        Self {
            linked,
            bytes: id_text(bytes),
        }
    }

    /// The bytes at linked addresses, when it has all of them.
    pub(super) fn read(&self, linked: Span) -> Option<Vec<u8>> {
        let bytes = from_hex(&self.bytes)?;
        let start = usize::try_from(linked.start.checked_sub(self.linked)?).ok()?;
        let end = start.checked_add(usize::try_from(linked.size).ok()?)?;
        bytes.get(start..end).map(<[u8]>::to_vec)
    }
}

impl Kernel {
    /// What was used so far, and the names of all of EL2, where any PC may be.
    pub(in crate::image) fn notes(&self) -> KernelNotes {
        let symbols = self.symbols.iter().enumerate();
        let symbols = symbols
            .filter(|(place, symbol)| {
                symbol.name.starts_with(NVHE) || self.used.symbols.contains(place)
            })
            .map(|(_, symbol)| symbol.clone());
        KernelNotes {
            source: self.source.clone(),
            release: self.release.clone(),
            build_id: self.build_id.as_deref().map(id_text),
            symbols: symbols.collect(),
            types: self.types().map(str::to_owned).map_err(str::to_owned),
            answers: self
                .types
                .as_ref()
                .map(|types| types.used().clone())
                .unwrap_or_default(),
            contents: self.used.contents.iter().cloned().collect(),
            call_frames: self.call_frames.notes(),
        }
    }

    /// The kernel that a snapshot remembers.
    pub(in crate::image) fn recall(notes: KernelNotes) -> Self {
        let types = notes
            .types
            .map(|source| KernelTypes::recall(source, notes.answers));
        let mut kernel = Self::new(notes.source, notes.symbols, types);
        kernel.release = notes.release;
        kernel.build_id = notes.build_id.as_deref().and_then(from_hex);
        kernel.contents = Contents::Noted(notes.contents);
        kernel.call_frames = CallFrames::recall(&notes.call_frames);
        kernel
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<_>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let pairs = digits?;
    let pairs = pairs.chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => u8::try_from(high << 4 | low).ok(),
            _ => None,
        })
        .collect()
}
