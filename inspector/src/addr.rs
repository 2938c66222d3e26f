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
