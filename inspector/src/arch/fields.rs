//! Bits in words: every field of a word with its value and its meaning.

mod descriptor;

pub use descriptor::descriptor;

use std::borrow::Cow;
use std::fmt;

/// One field of a word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Its architectural name.
    pub name: &'static str,
    /// Highest bit.
    pub high: u32,
    /// Lowest bit.
    pub low: u32,
    /// Its value, shifted down to bit 0.
    pub value: u64,
    /// What that value means, in words.
    pub meaning: Cow<'static, str>,
}

impl Field {
    /// The bits it takes of its word.
    pub fn mask(&self) -> u64 {
        mask(self.high, self.low)
    }

    /// `54:53`, or `10` for a single bit.
    pub fn bits(&self) -> String {
        if self.high == self.low {
            self.high.to_string()
        } else {
            format!("{}:{}", self.high, self.low)
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}[{}] = {:#x}: {}",
            self.name,
            self.bits(),
            self.value,
            self.meaning
        )
    }
}

/// How to put the value of a field into words.
#[derive(Clone, Copy)]
pub(crate) enum Meaning {
    /// A single bit: what 0 and what 1 mean.
    Flag(&'static str, &'static str),
    /// Each value that has a meaning; the others are reserved.
    Values(&'static [(u64, &'static str)]),
    /// Whatever the value is, this is what it is for.
    Text(&'static str),
    /// A piece of an address: the value stands at this bit of it.
    Address(u32),
    /// Worked out.
    With(fn(u64) -> String),
    /// Should be zero; listed when it is not.
    Res0,
    /// Should be one.
    Res1,
}

/// A field as a table of the architecture gives it.
#[derive(Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) high: u32,
    pub(crate) low: u32,
    pub(crate) meaning: Meaning,
}

/// A field of several bits.
pub(crate) const fn field(name: &'static str, high: u32, low: u32, meaning: Meaning) -> Spec {
    Spec {
        name,
        high,
        low,
        meaning,
    }
}

/// A field of one bit.
pub(crate) const fn flag(
    name: &'static str,
    bit: u32,
    off: &'static str,
    on: &'static str,
) -> Spec {
    field(name, bit, bit, Meaning::Flag(off, on))
}

impl Spec {
    fn read(&self, word: u64) -> Field {
        let value = (word & mask(self.high, self.low)) >> self.low;
        let meaning = match self.meaning {
            Meaning::Flag(off, on) => Cow::Borrowed(if value == 0 { off } else { on }),
            Meaning::Values(values) => Cow::Borrowed(
                values
                    .iter()
                    .find(|(listed, _)| *listed == value)
                    .map_or("reserved value", |(_, text)| text),
            ),
            Meaning::Text(text) => Cow::Borrowed(text),
            Meaning::Address(at) => Cow::Owned(format!("{:#x}", value << at)),
            Meaning::With(words) => Cow::Owned(words(value)),
            Meaning::Res0 => Cow::Borrowed("reserved, should be 0"),
            Meaning::Res1 => Cow::Borrowed(if value == mask(self.high - self.low, 0) {
                "reserved, is 1"
            } else {
                "reserved, should be 1"
            }),
        };
        Field {
            name: self.name,
            high: self.high,
            low: self.low,
            value,
            meaning,
        }
    }
}

/// The fields of `word` by `specs`, from the highest bit down. Bits of no field are listed as `RES0`
/// where any of them is set, so that no set bit is left out.
pub(crate) fn read(specs: &[Spec], word: u64) -> Vec<Field> {
    let mut fields: Vec<Field> = specs
        .iter()
        .map(|spec| (spec, spec.read(word)))
        .filter(|(spec, field)| !matches!(spec.meaning, Meaning::Res0) || field.value != 0)
        .map(|(_, field)| field)
        .collect();
    let named = specs
        .iter()
        .fold(0, |bits, spec| bits | mask(spec.high, spec.low));
    fields.extend(
        runs(!named)
            .map(|(high, low)| field("RES0", high, low, Meaning::Res0).read(word))
            .filter(|field| field.value != 0),
    );
    fields.sort_by_key(|field| std::cmp::Reverse(field.high));
    fields
}

/// The runs of set bits in `bits`, as (highest, lowest), from the lowest up.
fn runs(mut bits: u64) -> impl Iterator<Item = (u32, u32)> {
    std::iter::from_fn(move || {
        if bits == 0 {
            return None;
        }
        let low = bits.trailing_zeros();
        let high = low + (bits >> low).trailing_ones() - 1;
        bits &= !mask(high, low);
        Some((high, low))
    })
}

/// Bits `high..=low`.
fn mask(high: u32, low: u32) -> u64 {
    u64::MAX >> (63 - high) & u64::MAX << low
}

#[cfg(test)]
mod tests;
