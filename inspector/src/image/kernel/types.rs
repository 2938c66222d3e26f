//! Types of a kernel, by whichever format describes them.

use super::btf::Btf;
use super::units::Units;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a member lies in its record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Field {
    /// Bytes from the beginning of the record.
    pub offset: u64,
    /// Size in bytes; of an array, all of it; of a bit-field, the unit that holds it.
    pub size: u64,
    /// For a bit-field: its lowest bit, counted from bit 0 of the little-endian word at `offset`, and its width.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<(u32, u32)>,
    /// Whether the number is signed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signed: bool,
}

/// Answers, by what was asked; what has no answer is absent.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(super) struct Answers {
    fields: BTreeMap<String, Field>,
    sizes: BTreeMap<String, u64>,
    enumerations: BTreeMap<String, Vec<(String, i64)>>,
}

/// What describes types.
enum Format {
    Btf(Btf),
    Dwarf(Units),
}

/// The types of one kernel.
pub(crate) struct KernelTypes {
    source: String,
    /// `None` when a snapshot remembers the answers.
    format: Option<Format>,
    used: Answers,
}

impl KernelTypes {
    /// Types of a BTF that `source` had.
    pub(crate) fn btf(btf: Btf, source: &str) -> Self {
        Self {
            source: format!("BTF of {source}"),
            format: Some(Format::Btf(btf)),
            used: Answers::default(),
        }
    }

    /// Types of the debug information that `source` had.
    pub(super) fn dwarf(units: Units, source: &str) -> Self {
        Self {
            source: format!("DWARF of {source}"),
            format: Some(Format::Dwarf(units)),
            used: Answers::default(),
        }
    }

    /// Types of which a snapshot remembers the answers.
    pub(super) fn recall(source: String, answers: Answers) -> Self {
        Self {
            source,
            format: None,
            used: answers,
        }
    }

    /// All answers so far.
    pub(super) fn used(&self) -> &Answers {
        &self.used
    }

    /// What describes them, for people: `BTF of vmlinux`.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn field(&mut self, path: &str) -> Option<Field> {
        let found = self.used.fields.get(path);
        if found.is_some() {
            return found.copied();
        }
        let found = match self.format.as_mut()? {
            Format::Btf(btf) => btf.field(path),
            Format::Dwarf(units) => units.field(path),
        }?;
        self.used.fields.insert(path.to_owned(), found);
        Some(found)
    }

    pub(crate) fn size_of(&mut self, record: &str) -> Option<u64> {
        let found = self.used.sizes.get(record);
        if found.is_some() {
            return found.copied();
        }
        let found = match self.format.as_mut()? {
            Format::Btf(btf) => btf.size_of(record),
            Format::Dwarf(units) => units.size_of(record),
        }?;
        self.used.sizes.insert(record.to_owned(), found);
        Some(found)
    }

    pub(crate) fn enumerators(&mut self, enumeration: &str) -> Option<Vec<(String, i64)>> {
        let found = self.used.enumerations.get(enumeration);
        if found.is_some() {
            return found.cloned();
        }
        let found = match self.format.as_mut()? {
            Format::Btf(btf) => btf.enumerators(enumeration),
            Format::Dwarf(units) => units.enumerators(enumeration),
        }?;
        self.used
            .enumerations
            .insert(enumeration.to_owned(), found.clone());
        Some(found)
    }
}
