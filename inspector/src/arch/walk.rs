//! The descriptors of a whole regime, and the way of one address through it.

mod all;
mod translate;

pub use super::desc::{Attributes, Memory, Shareability};
pub use all::{MAX_TABLE_BYTES, Walk, walk_all, walk_together};
pub use translate::{End, Step, Translation, translate};

use crate::addr::Span;
use crate::target::{ReadError, TargetError};

/// How a walk reads physical memory; answers as [`Target::read_phys`] does, or not at all with an `E`.
///
/// [`Target::read_phys`]: crate::target::Target::read_phys
pub type Reader<'a, E = TargetError> =
    dyn FnMut(&[Span]) -> Result<Vec<Result<Vec<u8>, ReadError>>, E> + 'a;

/// What a descriptor turned out to be, other than a pointer to a good table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Valid leaf above level 3.
    Block,
    /// Valid leaf at level 3.
    Page,
    /// Bit 0 clear and not zero. Whether that is an owner's annotation the hypervisor layer says.
    Invalid,
    /// A form that the architecture reserves, or whose address cannot be: behaves as invalid.
    Reserved,
    /// Points to a table that is among its own ancestors, or was walked already.
    Loop,
    /// Points to a table that cannot be read.
    Unreadable,
}

/// One descriptor that is not zero and does not lead to a good table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// First input address it covers.
    pub ia: u64,
    /// Bytes of input address it covers.
    pub size: u64,
    /// Level it stands at: −1…3.
    pub level: i8,
    /// What it is.
    pub kind: Kind,
    /// The word; 0 for a root table that cannot be read, to which no descriptor points.
    pub raw: u64,
    /// Physical address of the word itself; of the table for an unreadable root.
    pub at: u64,
    /// Output address, for leaves, and as written for `Reserved` forms that have one; the table's
    /// address for `Loop` and `Unreadable`.
    pub oa: Option<u64>,
    /// Attributes, for leaves, with what the tables above take away.
    pub attributes: Option<Attributes>,
    /// Software bits 58:55.
    pub sw: u8,
    /// What is wrong with it, in one sentence. A block or page has one when RES0 bits are set.
    pub problem: Option<Box<str>>,
}

/// One page of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// Its physical address.
    pub pa: u64,
    /// Its level: −1…3.
    pub level: i8,
    /// First input address it resolves.
    pub ia: u64,
    /// Physical address of the table that points here; `None` for a root.
    pub parent: Option<u64>,
    /// Its words; fewer than a page of them for a small root.
    pub words: Vec<u64>,
}

/// The bytes of one answer, if it is as long as it must be; else why not.
fn answer(answer: Option<Result<Vec<u8>, ReadError>>, span: Span) -> Result<Vec<u8>, ReadError> {
    let refused = |reason: String| ReadError::Refused { span, reason };
    match answer {
        None => Err(refused("the target gave no answer for it".to_owned())),
        Some(Err(error)) => Err(error),
        Some(Ok(bytes)) if bytes.len() as u64 == span.size => Ok(bytes),
        Some(Ok(bytes)) => Err(refused(format!(
            "the target answered {} bytes, not {}",
            bytes.len(),
            span.size
        ))),
    }
}

/// The little-endian words in `bytes`.
fn words(bytes: &[u8]) -> Vec<u64> {
    let (chunks, _) = bytes.as_chunks::<8>();
    chunks.iter().copied().map(u64::from_le_bytes).collect()
}

#[cfg(test)]
mod tests;
