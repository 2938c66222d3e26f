//! Symbols by name.

use crate::image::Symbol;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// Hashes of names in order, with their places in a table of symbols: 16 bytes each, where a map of names had 60.
pub(super) struct Index(Vec<(u64, u32)>);

impl Index {
    pub(super) fn new(symbols: &[Symbol]) -> Self {
        let hashes = symbols.iter().map(|symbol| hash(&symbol.name));
        let mut entries: Vec<_> = hashes.zip(0..).collect();
        entries.sort_unstable();
        Self(entries)
    }

    /// The place of the first symbol of that name in the table that the index was made of.
    pub(super) fn find(&self, symbols: &[Symbol], name: &str) -> Option<usize> {
        let hash = hash(name);
        let from = self.0.partition_point(|(other, _)| *other < hash);
        self.0[from..]
            .iter()
            .take_while(|(other, _)| *other == hash)
            .filter_map(|(_, place)| usize::try_from(*place).ok())
            .find(|place| {
                symbols
                    .get(*place)
                    .is_some_and(|symbol| symbol.name == name)
            })
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
