//! Physical memory made of tables.

use inspector::addr::Span;
use inspector::target::{ReadError, TargetError};
use std::collections::BTreeMap;

/// Tables by physical address; nothing else is backed.
#[derive(Clone, Default, Debug)]
pub(crate) struct Memory {
    pub(crate) tables: BTreeMap<u64, Vec<u64>>,
}

impl Memory {
    /// The word at `at`, where it is backed.
    pub(crate) fn word(&self, at: u64) -> Option<u64> {
        let (&start, words) = self.tables.range(..=at).next_back()?;
        words
            .get(usize::try_from((at - start) / 8).unwrap())
            .copied()
    }

    /// Reads as a target does. A range is backed when each of its words is.
    pub(crate) fn read(
        &self,
        spans: &[Span],
    ) -> Result<Vec<Result<Vec<u8>, ReadError>>, TargetError> {
        Ok(spans
            .iter()
            .map(|&span| {
                (0..span.size / 8)
                    .map(|n| self.word(span.start + n * 8).map(u64::to_le_bytes))
                    .collect::<Option<Vec<_>>>()
                    .map(|words| words.concat())
                    .ok_or(ReadError::Unbacked(span))
            })
            .collect())
    }
}
