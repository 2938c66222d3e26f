//! Types of a kernel, by whichever format describes them.

/// Where a member lies in its record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// Bytes from the beginning of the record.
    pub offset: u64,
    /// Size in bytes; of an array, all of it; of a bit-field, the unit that holds it.
    pub size: u64,
    /// For a bit-field: its lowest bit, counted from bit 0 of the little-endian word at `offset`, and its width.
    pub bits: Option<(u32, u32)>,
    /// Whether the number is signed.
    pub signed: bool,
}

/// The types of one kernel.
pub(crate) struct KernelTypes {
    source: String,
}

impl KernelTypes {
    /// What describes them, for people: `BTF of vmlinux`.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn field(&mut self, _path: &str) -> Option<Field> {
        None
    }

    pub(crate) fn size_of(&mut self, _record: &str) -> Option<u64> {
        None
    }

    pub(crate) fn enumerators(&mut self, _enumeration: &str) -> Option<Vec<(String, i64)>> {
        None
    }
}
