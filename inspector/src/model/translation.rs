//! One address through captured tables, and parts of what a capture says.

use super::{Entry, OwnerRange, RegimeCapture};
use crate::addr::Span;
use crate::arch::walk::{Translation, translate};
use crate::target::ReadError;
use std::convert::Infallible;

impl RegimeCapture {
    /// Follows `ia` through the tables as they were captured.
    pub fn translate(&self, ia: u64) -> Translation {
        let mut read = |spans: &[Span]| Ok(spans.iter().map(|span| self.bytes(*span)).collect());
        let Ok(translation) = translate::<Infallible>(&self.regime, &mut read, ia);
        translation
    }

    /// The entry that covers `ia`, with what the hypervisor means by it.
    pub fn entry_of(&self, ia: u64) -> Option<&Entry> {
        let after = self.entries.partition_point(|entry| entry.leaf.ia <= ia);
        let before = self.entries[..after].last();
        before.filter(|entry| Span::new(entry.leaf.ia, entry.leaf.size).contains(ia))
    }

    /// The bytes of a captured table.
    fn bytes(&self, span: Span) -> Result<Vec<u8>, ReadError> {
        let missing = ReadError::Refused {
            span,
            reason: "the table could not be read".to_owned(),
        };
        let holds = |pa: u64, words: &[u64]| Span::new(pa, words.len() as u64 * 8).covers(span);
        let mut tables = self.tables.iter();
        let Some(table) = tables.find(|table| holds(table.pa, &table.words)) else {
            return Err(missing);
        };
        let first = ((span.start - table.pa) / 8) as usize;
        let words = table.words.get(first..first + (span.size / 8) as usize);
        let words = words.ok_or(missing)?;
        Ok(words.iter().flat_map(|word| word.to_le_bytes()).collect())
    }
}

impl OwnerRange {
    /// The part that lies in `pa`.
    pub fn clip(&self, pa: Span) -> Option<Self> {
        if !self.pa.overlaps(pa) {
            return None;
        }
        let start = self.pa.start.max(pa.start);
        let last = self.pa.last()?.min(pa.last()?);
        let mut clipped = self.clone();
        clipped.pa = Span::new(start, (last - start).saturating_add(1));
        for guest in &mut clipped.guests {
            guest.ipa = guest.ipa.wrapping_add(start - self.pa.start);
        }
        Some(clipped)
    }
}

impl Entry {
    /// Who owns what it maps or annotates, and where the owner sees it if that is known:
    /// `guest:0x1001 at 0x40002000`.
    pub fn owner_text(&self) -> Option<String> {
        let owner = self.owner?.to_string();
        Some(match self.guest_ipa {
            Some(ipa) => format!("{owner} at {ipa:#x}"),
            None => owner,
        })
    }
}
