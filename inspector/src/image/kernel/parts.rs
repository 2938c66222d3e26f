//! What a kernel is made of, from whichever bytes.

use crate::image::Symbol;

/// Names, types and identity of a kernel whose bytes were looked through.
pub(crate) struct Parts {
    /// In order of address.
    pub(crate) symbols: Vec<Symbol>,
    /// The section `.BTF`, or why there is none, in one sentence.
    pub(crate) btf: Result<Vec<u8>, String>,
    pub(crate) build_id: Option<Vec<u8>>,
    pub(crate) release: Option<String>,
}
