//! One address, step by step, as the hardware walks it.

use super::{Attributes, Reader, answer, words};
use crate::addr::Span;
use crate::arch::desc::{self, Descriptor, Limits, Shape};
use crate::arch::regime::Regime;
use crate::target::ReadError;
use std::fmt;

/// One descriptor that was looked at, or could not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Level of the table: −1…3.
    pub level: i8,
    /// Physical address of the table; of the first of concatenated roots.
    pub table: u64,
    /// Which of its words.
    pub index: u64,
    /// Physical address of the word.
    pub at: u64,
    /// Bytes of input address the word covers.
    pub size: u64,
    /// The word as decoded, attributes with what the tables above take away; `None` when it could
    /// not be read.
    pub descriptor: Option<Descriptor>,
}

/// How a translation ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// In a leaf.
    Mapped {
        /// Where the input address itself comes out.
        oa: u64,
        /// What the leaf covers, in bytes.
        size: u64,
        /// What holds there, with what the tables above take away.
        attributes: Attributes,
    },
    /// In a zero descriptor: nothing is mapped.
    Hole {
        /// First input address that the zero descriptor covers.
        ia: u64,
        /// Bytes that it covers.
        size: u64,
    },
    /// In an invalid descriptor that is not zero: software keeps something in it.
    Invalid {
        /// The word.
        raw: u64,
        /// Bytes that it covers.
        size: u64,
    },
    /// In a form that the architecture reserves.
    Reserved {
        /// What is wrong with it.
        problem: String,
    },
    /// In a word that could not be read.
    Unreadable {
        /// Why.
        problem: String,
    },
    /// Nowhere: the input address has more bits than the regime takes.
    OutOfRange {
        /// The regime's input size in bits.
        ia_bits: u32,
    },
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mapped { oa, size, .. } => {
                write!(f, "output address {oa:#x}, in a leaf of {size:#x} bytes")
            }
            Self::Hole { ia, size } => {
                write!(f, "nothing mapped: hole of {size:#x} bytes at {ia:#x}")
            }
            Self::Invalid { raw, size } => {
                write!(
                    f,
                    "nothing mapped: invalid descriptor {raw:#x} over {size:#x} bytes"
                )
            }
            Self::Reserved { problem } | Self::Unreadable { problem } => f.write_str(problem),
            Self::OutOfRange { ia_bits } => {
                write!(f, "out of range: the input address has {ia_bits} bits")
            }
        }
    }
}

/// The way of one input address through the tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The input address.
    pub ia: u64,
    /// Every descriptor looked at, from the root; at most five.
    pub steps: Vec<Step>,
    /// How it ends.
    pub end: End,
}

/// Follows `ia` through the tables, reading one word a level.
///
/// # Errors
/// The reader's own.
pub fn translate<E>(
    regime: &Regime,
    reader: &mut Reader<'_, E>,
    ia: u64,
) -> Result<Translation, E> {
    let mut steps = Vec::new();
    if ia >> regime.ia_bits != 0 {
        let end = End::OutOfRange {
            ia_bits: regime.ia_bits,
        };
        return Ok(Translation { ia, steps, end });
    }
    let mut table = regime.root;
    let mut level = regime.start_level;
    let mut limits = Limits::default();
    loop {
        let index = regime.index(level, ia);
        let mut step = Step {
            level,
            table,
            index,
            at: table + index * 8,
            size: regime.entry_size(level),
            descriptor: None,
        };
        let raw = match read_word(reader, step.at)? {
            Ok(raw) => raw,
            Err(error) => {
                let problem = format!("level {level} descriptor at {:#x}: {error}", step.at);
                steps.push(step);
                let end = End::Unreadable { problem };
                return Ok(Translation { ia, steps, end });
            }
        };
        let descriptor = desc::decode_below(regime, limits, level, raw);
        step.descriptor = Some(descriptor);
        let size = step.size;
        steps.push(step);
        match (descriptor.shape, descriptor.oa) {
            (Shape::Table, Some(next)) => {
                limits = limits.below(regime, raw);
                table = next;
                level += 1;
            }
            _ => {
                let end = end(ia, size, &descriptor);
                return Ok(Translation { ia, steps, end });
            }
        }
    }
}

fn read_word<E>(reader: &mut Reader<'_, E>, at: u64) -> Result<Result<u64, ReadError>, E> {
    let span = Span::new(at, 8);
    let bytes = answer(reader(&[span])?.into_iter().next(), span);
    Ok(bytes.map(|bytes| words(&bytes).into_iter().next().unwrap_or_default()))
}

/// What it means that `ia` ends in `descriptor`, which covers `size` bytes.
fn end(ia: u64, size: u64, descriptor: &Descriptor) -> End {
    match (descriptor.shape, descriptor.oa, descriptor.attributes) {
        (Shape::Block | Shape::Page, Some(oa), Some(attributes)) => End::Mapped {
            oa: oa | ia & (size - 1),
            size,
            attributes,
        },
        (Shape::Invalid, ..) if descriptor.raw == 0 => End::Hole {
            ia: ia & !(size - 1),
            size,
        },
        (Shape::Invalid, ..) => End::Invalid {
            raw: descriptor.raw,
            size,
        },
        _ => End::Reserved {
            problem: descriptor
                .fault
                .map_or_else(|| "reserved form".to_owned(), |fault| fault.to_string()),
        },
    }
}
