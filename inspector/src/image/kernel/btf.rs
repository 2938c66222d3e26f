//! BTF, the kernel's own description of its types: the section `.BTF`, also in the Image and in guest RAM.
//!
//! ```text
//! header   magic 0xeb9f u16 · version u8 · flags u8 · header length u32
//!          types: offset u32, length u32 · strings: offset u32, length u32   (offsets from the header's end)
//! a type   name u32 · info u32 (0-15 count, 24-28 kind, 31 flag) · size or type u32, then by kind what follows
//! ```
//! Types count from 1; 0 is `void`. The format is described in the kernel's Documentation/bpf/btf.rst.

use super::Field;
use super::ctypes::{self, Graph, Member, Node};

const MAGIC: u16 = 0xeb9f;
/// The part of the header that is read.
const HEADER: usize = 24;
/// What every type begins with.
const TYPE: usize = 12;
/// Size of a pointer in the kernel, which BTF does not say.
const POINTER: u64 = 8;

/// Kinds of types.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// The types of one kernel. Of its bytes only an index is made; a type is decoded when it is asked for.
pub struct Btf {
    bytes: Vec<u8>,
    /// Where each type begins; the first is type 1.
    types: Vec<u32>,
    /// Types that can be asked for by name: records, enumerations, then typedefs and integers.
    named: Vec<u32>,
    /// Where the strings begin and end.
    strings: (usize, usize),
}

/// What every type begins with.
struct Head {
    name: u32,
    count: usize,
    kind: u32,
    flag: bool,
    /// A size in bytes, or another type.
    word: u32,
    /// Where the rest of it begins.
    rest: usize,
}

impl Btf {
    /// Takes the bytes of a `.BTF` section; more may follow them.
    ///
    /// # Errors
    /// One sentence: the bytes are no BTF, are cut off, or hold a kind of type that is not known: how long one is
    /// cannot be told, so what follows it would be lost.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        let cut = || "the BTF is cut off".to_owned();
        let word = |at| word(&bytes, at).ok_or_else(cut);
        match word(0)? & 0xffff {
            magic if magic == u32::from(MAGIC) => {}
            magic if magic == u32::from(MAGIC.swap_bytes()) => {
                return Err("the BTF is big-endian".to_owned());
            }
            magic => {
                return Err(format!(
                    "no BTF: it begins with {magic:#x} in place of {MAGIC:#x}"
                ));
            }
        }
        let header = word(4)? as usize;
        if header < HEADER {
            return Err(format!("the BTF's header of {header} bytes is too short"));
        }
        let section = |offset: u32, length: u32| {
            let start = header.checked_add(offset as usize)?;
            let end = start.checked_add(length as usize)?;
            (end <= bytes.len()).then_some((start, end))
        };
        let types = section(word(8)?, word(12)?).ok_or_else(cut)?;
        let strings = section(word(16)?, word(20)?).ok_or_else(cut)?;
        let mut btf = Self {
            bytes,
            types: Vec::new(),
            named: Vec::new(),
            strings,
        };
        btf.index(types)?;
        Ok(btf)
    }

    /// Finds where each type begins.
    fn index(&mut self, (start, end): (usize, usize)) -> Result<(), String> {
        let mut others = Vec::new();
        let mut at = start;
        while at < end {
            let id = u32::try_from(self.types.len() + 1).unwrap_or(u32::MAX);
            let broken = |what: &str| format!("the BTF's type {id} {what}");
            let head = self.head(at).ok_or_else(|| broken("is cut off"))?;
            let rest = rest(head.kind, head.count)
                .ok_or_else(|| broken(&format!("is of the unknown kind {}", head.kind)))?;
            self.types
                .push(u32::try_from(at).map_err(|_| broken("lies beyond 4 GiB"))?);
            if head.name != 0 {
                match head.kind {
                    kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 => self.named.push(id),
                    kind::TYPEDEF | kind::INT => others.push(id),
                    _ => {}
                }
            }
            at = head.rest + rest;
        }
        if at > end {
            return Err(format!("the BTF's type {} is cut off", self.types.len()));
        }
        self.named.append(&mut others);
        Ok(())
    }

    /// How many types there are.
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    /// A member by its path from a record, as `Kernel::field`.
    pub fn field(&mut self, path: &str) -> Option<Field> {
        ctypes::field(self, path)
    }

    /// The size of a type in bytes, as `Kernel::size_of`.
    pub fn size_of(&mut self, name: &str) -> Option<u64> {
        ctypes::size_of(self, name)
    }

    /// The names of an enumeration with their values.
    pub fn enumerators(&mut self, name: &str) -> Option<Vec<(String, i64)>> {
        ctypes::enumerators(self, name)
    }

    fn head(&self, at: usize) -> Option<Head> {
        let info = word(&self.bytes, at + 4)?;
        Some(Head {
            name: word(&self.bytes, at)?,
            count: (info & 0xffff) as usize,
            kind: info >> 24 & 0x1f,
            flag: info >> 31 == 1,
            word: word(&self.bytes, at + 8)?,
            rest: at + TYPE,
        })
    }

    /// The strings from an offset on.
    fn strings_from(&self, offset: u32) -> Option<&[u8]> {
        let (start, end) = self.strings;
        let strings = self.bytes.get(start..end)?;
        strings.get(usize::try_from(offset).ok()?..)
    }

    fn text(&self, offset: u32) -> Option<String> {
        let text = self.strings_from(offset)?.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// Whether a type is called so. Each question asks it of every type that has a name, so only what decides is read.
    fn is_called(&self, id: u32, name: &[u8]) -> Option<bool> {
        let offset = word(&self.bytes, self.at(id)?)?;
        let rest = self.strings_from(offset)?.strip_prefix(name);
        Some(rest.is_some_and(|rest| matches!(rest, [] | [0, ..])))
    }

    fn members(&self, head: &Head) -> Option<Vec<Member<u32>>> {
        let members = (0..head.count).map(|index| {
            let at = head.rest + index * 12;
            let name = word(&self.bytes, at)?;
            let of = word(&self.bytes, at + 4)?;
            let offset = word(&self.bytes, at + 8)?;
            let (bit, width) = if head.flag {
                (u64::from(offset & 0xff_ffff), offset >> 24)
            } else {
                // Before kind_flag a bit-field had an integer type of its own, of its width and place.
                let (bit, width) = self.narrow(of).unwrap_or((0, 0));
                (u64::from(offset) + bit, width)
            };
            Some(Member {
                name: if name == 0 {
                    None
                } else {
                    Some(self.text(name)?)
                },
                bit,
                width: (width > 0).then_some(width),
                of,
            })
        });
        members.collect()
    }

    /// The place and width in bits of an integer that is narrower than its bytes.
    fn narrow(&self, id: u32) -> Option<(u64, u32)> {
        let head = self.head(self.at(id)?)?;
        if head.kind != kind::INT {
            return None;
        }
        let data = word(&self.bytes, head.rest)?;
        let width = data & 0xff;
        (width > 0 && width < head.word.saturating_mul(8))
            .then_some((u64::from(data >> 16 & 0xff), width))
    }

    /// The values of an enumeration; a word of 32 bits is signed where the flag says so.
    fn values(&self, head: &Head) -> Option<Vec<(String, i64)>> {
        let wide = head.kind == kind::ENUM64;
        let size = if wide { 12 } else { 8 };
        let values = (0..head.count).map(|index| {
            let at = head.rest + index * size;
            let name = self.text(word(&self.bytes, at)?)?;
            let low = word(&self.bytes, at + 4)?;
            let value = if wide {
                let high = word(&self.bytes, at + 8)?;
                (u64::from(high) << 32 | u64::from(low)).cast_signed()
            } else if head.flag {
                i64::from(low.cast_signed())
            } else {
                i64::from(low)
            };
            Some((name, value))
        });
        values.collect()
    }

    fn at(&self, id: u32) -> Option<usize> {
        let index = usize::try_from(id.checked_sub(1)?).ok()?;
        self.types.get(index).map(|at| *at as usize)
    }
}

impl Graph for Btf {
    type Id = u32;

    fn named(&mut self, name: &str) -> Vec<u32> {
        let named = self.named.iter().copied();
        named
            .filter(|id| self.is_called(*id, name.as_bytes()) == Some(true))
            .collect()
    }

    fn node(&mut self, id: u32) -> Option<Node<u32>> {
        let head = self.head(self.at(id)?)?;
        let size = u64::from(head.word);
        Some(match head.kind {
            kind::INT => Node::Number {
                size,
                signed: word(&self.bytes, head.rest)? >> 24 & 1 == 1,
            },
            kind::FLOAT => Node::Number { size, signed: true },
            kind::PTR => Node::Number {
                size: POINTER,
                signed: false,
            },
            kind::ARRAY => Node::Array {
                of: word(&self.bytes, head.rest)?,
                count: u64::from(word(&self.bytes, head.rest + 8)?),
            },
            kind::STRUCT | kind::UNION => Node::Record {
                size,
                members: self.members(&head)?,
            },
            kind::ENUM | kind::ENUM64 => Node::Enum {
                size,
                signed: head.flag,
                values: self.values(&head)?,
            },
            kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                Node::Alias(head.word)
            }
            _ => return None,
        })
    }
}

/// How many bytes follow a type's first 12; `None` for an unknown kind.
fn rest(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
        kind::ENUM | kind::FUNC_PROTO => 8 * count,
        kind::PTR
        | kind::FWD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNC
        | kind::FLOAT
        | kind::TYPE_TAG => 0,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests;
