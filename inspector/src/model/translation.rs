//! One address through captured tables.

use super::{Entry, RegimeCapture};
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
