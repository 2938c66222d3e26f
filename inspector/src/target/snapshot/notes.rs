//! The notes of a snapshot: facts as JSON, registers as gdb wants them, checksums.

use super::{Contents, Refusal};
use crate::addr::Span;
use crate::target::core::CPU_LIMIT;
use crate::target::{Registers, merge};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The name of our own notes.
pub(super) const OURS: &[u8] = b"INSPECTOR";
/// Types of our own notes.
pub(super) const FACTS: u32 = 1;
pub(super) const DESCRIPTION: u32 = 2;
pub(super) const SYMBOLS: u32 = 3;
pub(super) const CHECKSUMS: u32 = 4;

const FORMAT: &str = "inspector.snapshot/1";

/// The note FACTS. Numbers that may need 64 bits are "0x…".
#[derive(Serialize, Deserialize)]
struct Facts {
    format: String,
    /// The version that wrote the file; for people.
    tool: String,
    physvirt_offset: Option<Hex>,
    found_running: Option<bool>,
    ram: Option<Vec<Extent>>,
    refused: Vec<Refused>,
    cpus: Vec<BTreeMap<String, Hex>>,
}

#[derive(Serialize, Deserialize)]
struct Extent {
    base: Hex,
    size: Hex,
}

#[derive(Serialize, Deserialize)]
struct Refused {
    base: Hex,
    size: Hex,
    reason: String,
}

/// A word as "0x…", as everywhere in the inspector's JSON.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
struct Hex(u64);

impl From<Hex> for String {
    fn from(Hex(word): Hex) -> Self {
        format!("{word:#x}")
    }
}

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.strip_prefix("0x")
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map(Self)
            .ok_or_else(|| format!("`{text}` is no \"0x…\" word"))
    }
}

/// The note FACTS of these contents.
pub(super) fn facts(contents: &Contents) -> Result<Vec<u8>, String> {
    let extent = |span: &Span| Extent {
        base: Hex(span.start),
        size: Hex(span.size),
    };
    let facts = Facts {
        format: FORMAT.to_owned(),
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        physvirt_offset: contents.physvirt_offset.map(Hex),
        found_running: contents.found_running,
        ram: contents
            .ram
            .as_ref()
            .map(|ram| ram.iter().map(extent).collect()),
        refused: contents
            .refused
            .iter()
            .map(|refusal| Refused {
                base: Hex(refusal.span.start),
                size: Hex(refusal.span.size),
                reason: refusal.reason.clone(),
            })
            .collect(),
        cpus: contents
            .registers
            .iter()
            .map(|cpu| {
                cpu.0
                    .iter()
                    .map(|(name, value)| (name.clone(), Hex(*value)))
                    .collect()
            })
            .collect(),
    };
    serde_json::to_vec(&facts).map_err(|error| format!("its facts have no JSON: {error}"))
}

/// Reads a note FACTS back; the rest of the contents stays empty.
pub(super) fn parse_facts(note: &[u8]) -> Result<Contents, String> {
    let facts: Facts = serde_json::from_slice(note)
        .map_err(|error| format!("its facts are not what they should be: {error}"))?;
    if facts.format != FORMAT {
        return Err(format!(
            "its format is `{}`, and this version reads `{FORMAT}`",
            facts.format
        ));
    }
    if facts.cpus.len() > CPU_LIMIT {
        return Err("it has more CPUs than any machine".to_owned());
    }
    let registers = facts.cpus.into_iter().map(|cpu| {
        let values = cpu.into_iter().map(|(name, Hex(value))| (name, value));
        Registers(values.collect())
    });
    let refused = facts.refused.into_iter().map(|refused| Refusal {
        span: Span::new(refused.base.0, refused.size.0),
        reason: refused.reason,
    });
    Ok(Contents {
        registers: registers.collect(),
        ram: facts.ram.map(|ram| {
            merge(
                ram.iter()
                    .map(|extent| Span::new(extent.base.0, extent.size.0))
                    .collect(),
            )
        }),
        refused: refused.collect(),
        physvirt_offset: facts.physvirt_offset.map(|Hex(offset)| offset),
        found_running: facts.found_running,
        ..Contents::default()
    })
}

/// A note: sizes, type, name and content, each padded to four bytes.
pub(super) fn note(name: &[u8], kind: u32, content: &[u8]) -> Result<Vec<u8>, String> {
    let size = |bytes: usize| {
        u32::try_from(bytes).map_err(|_| "a note of 4 GiB or more does not fit".to_owned())
    };
    let mut note = Vec::new();
    note.extend(size(name.len() + 1)?.to_le_bytes());
    note.extend(size(content.len())?.to_le_bytes());
    note.extend(kind.to_le_bytes());
    note.extend(name);
    note.push(0);
    note.resize(note.len().next_multiple_of(4), 0);
    note.extend(content);
    note.resize(note.len().next_multiple_of(4), 0);
    Ok(note)
}

/// The note CHECKSUMS: the file's length, then for each part of the file, in order, its end and its CRC-32, then the
/// CRC-32 of all that. The parts tile the file but for this content, which the last word covers.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Checksums {
    pub(super) length: u64,
    pub(super) parts: Vec<Part>,
}

#[derive(PartialEq, Eq, Debug)]
pub(super) struct Part {
    /// Offset of the first byte behind it.
    pub(super) end: u64,
    pub(super) crc: u32,
}

impl Checksums {
    /// The size of the content with this many parts.
    pub(super) fn size(parts: usize) -> usize {
        8 + parts * 12 + 4
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.length.to_le_bytes().to_vec();
        for part in &self.parts {
            bytes.extend(part.end.to_le_bytes());
            bytes.extend(part.crc.to_le_bytes());
        }
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// `None` when its own checksum is wrong.
    pub(super) fn parse(content: &[u8]) -> Option<Self> {
        let (body, crc) = content.split_last_chunk()?;
        if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
            return None;
        }
        let (length, parts) = body.split_first_chunk()?;
        let (parts, []) = parts.as_chunks::<12>() else {
            return None;
        };
        let parts = parts.iter().filter_map(|part| {
            let (end, crc) = part.split_first_chunk()?;
            Some(Part {
                end: u64::from_le_bytes(*end),
                crc: u32::from_le_bytes(crc.try_into().ok()?),
            })
        });
        Some(Self {
            length: u64::from_le_bytes(*length),
            parts: parts.collect(),
        })
    }
}
