//! What a kernel is made of, from whichever bytes.

use crate::image::Symbol;

/// Names, types and identity of a kernel whose bytes were looked through.
#[derive(Default)]
pub(crate) struct Parts {
    /// In order of address.
    pub(crate) symbols: Vec<Symbol>,
    /// The section `.BTF`.
    pub(crate) btf: Option<Vec<u8>>,
    pub(crate) build_id: Option<Vec<u8>>,
    pub(crate) release: Option<String>,
    /// What was not found, and why, in a sentence each.
    pub(crate) missing: Vec<String>,
}
