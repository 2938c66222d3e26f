//! A kernel's bytes as linked.

use super::notes::Piece;
use super::vmlinux;
use crate::addr::Span;
use std::fs::File;

/// The most that is read at once: no vector table or function is near it.
const LIMIT: u64 = 1 << 20;

/// Where a kernel's bytes are.
pub(super) enum Contents {
    /// Nowhere.
    None,
    /// In a file, which stays open.
    File { file: File, loaded: Vec<Loaded> },
    /// In a snapshot, which has those that were used.
    Noted(Vec<Piece>),
}

/// A piece of a file that is loaded.
pub(super) struct Loaded {
    /// Where it is linked.
    pub(super) linked: Span,
    /// Where it is in the file.
    pub(super) at: u64,
}

impl Contents {
    /// The bytes at linked addresses, when all of them are known.
    pub(super) fn read(&self, linked: Span) -> Option<Vec<u8>> {
        if linked.size > LIMIT {
            return None;
        }
        let (file, loaded) = match self {
            Self::None => return None,
            Self::File { file, loaded } => (file, loaded),
            Self::Noted(pieces) => return pieces.iter().find_map(|piece| piece.read(linked)),
        };
        let piece = loaded.iter().find(|piece| piece.linked.covers(linked))?;
        let at = piece
            .at
            .checked_add(linked.start.checked_sub(piece.linked.start)?)?;
        vmlinux::read(file, at, linked.size).ok()
    }
}
