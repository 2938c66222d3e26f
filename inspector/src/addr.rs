//! Ranges of addresses, as they come from a machine that may lie.

use std::fmt;

/// A half-open range of addresses in bytes: `start..start + size`, never beyond 2^64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Span {
    /// First address.
    pub start: u64,
    /// Size in bytes; may be 0.
    pub size: u64,
}

impl Span {
    /// `start..start + size`, cut off at the end of the address space.
    pub fn new(start: u64, size: u64) -> Self {
        Self {
            start,
            size: size.min((u64::MAX - start).saturating_add(1)),
        }
    }

    /// The last address in the range, or `None` when it is empty.
    pub fn last(self) -> Option<u64> {
        self.size
            .checked_sub(1)
            .map(|n| self.start.saturating_add(n))
    }

    /// Whether `address` lies inside.
    pub fn contains(self, address: u64) -> bool {
        address
            .checked_sub(self.start)
            .is_some_and(|offset| offset < self.size)
    }

    /// Whether all of `other` lies inside; an empty range lies inside any.
    pub fn covers(self, other: Self) -> bool {
        other
            .last()
            .is_none_or(|last| self.contains(other.start) && self.contains(last))
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        match (self.last(), other.last()) {
            (Some(a), Some(b)) => self.start <= b && other.start <= a,
            _ => false,
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last() {
            Some(last) => write!(f, "{:#x}..={last:#x}", self.start),
            None => write!(f, "{:#x} (empty)", self.start),
        }
    }
}

/// A size in bytes with the largest binary unit that divides it (`2M`, `12K`, `3 B`).
pub fn size_text(bytes: u64) -> String {
    const UNITS: [(u32, char); 4] = [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')];
    UNITS
        .iter()
        .find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(
            || format!("{bytes} B"),
            |(shift, unit)| format!("{}{unit}", bytes >> shift),
        )
}

/// Reads a number as people write it: decimal, or hexadecimal with `0x`; `_` may separate digits.
pub fn parse_u64(text: &str) -> Option<u64> {
    let digits = text.replace('_', "");
    let (digits, radix) = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None => (digits.as_str(), 10),
    };
    // from_str_radix would take a sign.
    digits
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric())
        .then(|| u64::from_str_radix(digits, radix).ok())
        .flatten()
}

/// Reads a range as people write it: `A..B`, of which B is not part.
///
/// # Errors
/// It is none; the sentence says what one looks like.
pub fn parse_range(text: &str) -> Result<Span, String> {
    let parse = || {
        let (start, end) = text.split_once("..")?;
        let (start, end) = (parse_u64(start)?, parse_u64(end)?);
        Some(Span::new(start, end.checked_sub(start)?))
    };
    parse().ok_or_else(|| {
        "expected A..B with A not above B, such as 0x40000000..0x40200000".to_owned()
    })
}

/// Addresses in JSON: lower-case `"0x…"` strings without leading zeros.
/// For fields: `#[serde(with = "crate::addr::hex")]`.
pub mod hex {
    use super::parse_u64;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    /// Writes an address.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:#x}"))
    }

    /// Reads an address.
    ///
    /// # Errors
    /// The field is no string, or holds no number of 64 bits.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_u64(&text).ok_or_else(|| Error::custom(format!("`{text}` is not an address")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (text, value) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("0x4000_0000", Some(0x4000_0000)),
            ("0XFF", Some(255)),
            ("0xffffffffffffffff", Some(u64::MAX)),
            ("0x10000000000000000", None),
            ("", None),
            ("0x", None),
            ("-1", None),
            ("+1", None),
            ("12ab", None),
            ("0x12 ", None),
        ] {
            assert_eq!(parse_u64(text), value, "{text:?}");
        }
    }

    #[test]
    fn a_span_ends_with_the_address_space() {
        let top = Span::new(u64::MAX - 1, 10);
        assert_eq!(top.last(), Some(u64::MAX));
        assert!(top.contains(u64::MAX) && !top.contains(0));
        assert!(!top.overlaps(Span::new(0, 1)));
        assert!(!Span::new(5, 0).overlaps(Span::new(0, 10)));
    }
}
