//! Addresses of the three spaces hyp knows, and ranges of pages in them.
//!
//! A range is one type, checked once: no function of this crate takes two bare integers for a range.

use core::fmt;

/// Bytes in a page: hyp uses the 4 KiB granule.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// An address of any space: lets [`PageRange`] and the page tables work on all of them.
pub trait Address: Copy + Ord + fmt::Debug {
    /// The address with this value, in bytes.
    fn from_u64(value: u64) -> Self;
    /// The value in bytes.
    fn get(self) -> u64;
}

/// An address a page table translates from: [`Ipa`] for stage 2, [`Va`] for EL2's stage 1.
pub trait InputAddress: Address {}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The address with this value, in bytes.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The value in bytes.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The first byte of the page that holds this address.
            pub const fn page(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }

            /// The address `bytes` above, wrapping as the hardware's adders do.
            pub const fn wrapping_add(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }
        }

        impl Address for $name {
            fn from_u64(value: u64) -> Self {
                Self(value)
            }

            fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}

address! {
    /// A physical address.
    Pa
}
address! {
    /// An intermediate physical address: what the host's stage 1 yields and stage 2 translates.
    /// The host's stage 2 is an identity map, so that its IPAs equal the PAs they map.
    Ipa
}
address! {
    /// A virtual address of EL2's own stage 1.
    Va
}

impl InputAddress for Ipa {}
impl InputAddress for Va {}

impl Pa {
    /// The first byte of page frame `pfn`, or `None` where the address would not fit 64 bits.
    pub const fn from_pfn(pfn: u64) -> Option<Self> {
        if pfn >> (64 - PAGE_SHIFT) != 0 {
            return None;
        }
        Some(Self(pfn << PAGE_SHIFT))
    }
}

/// Why two numbers are not a range of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// The first address or the size is not a multiple of [`PAGE_SIZE`].
    Unaligned {
        /// The first address, in bytes.
        base: u64,
        /// The size, in bytes.
        size: u64,
    },
    /// The range passes the end of the 64-bit address space.
    Overflow {
        /// The first address, in bytes.
        base: u64,
        /// The size, in bytes.
        size: u64,
    },
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unaligned { base, size } => write!(
                f,
                "{size:#x} bytes at {base:#x} are not whole pages: both must be multiples of {PAGE_SIZE:#x}"
            ),
            Self::Overflow { base, size } => {
                write!(
                    f,
                    "{size:#x} bytes at {base:#x} pass the end of the 64-bit address space"
                )
            }
        }
    }
}

impl core::error::Error for RangeError {}

/// Whole pages that follow each other: a first address and a size, both multiples of [`PAGE_SIZE`],
/// whose end fits 64 bits. The size may be 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PageRange<A> {
    base: A,
    size: u64,
}

impl<A: Address> PageRange<A> {
    /// The `size` bytes that start at `base`.
    pub fn new(base: A, size: u64) -> Result<Self, RangeError> {
        let start = base.get();
        if !start.is_multiple_of(PAGE_SIZE) || !size.is_multiple_of(PAGE_SIZE) {
            return Err(RangeError::Unaligned { base: start, size });
        }
        if start.checked_add(size).is_none() {
            return Err(RangeError::Overflow { base: start, size });
        }
        Ok(Self { base, size })
    }

    /// The pages of a range at the same addresses of another space: where input and output addresses are equal.
    pub fn identity<B: Address>(self) -> PageRange<B> {
        PageRange {
            base: B::from_u64(self.base.get()),
            size: self.size,
        }
    }

    /// The pages that hold any of the `bytes` bytes from `base` on: the first address is rounded down, the end up.
    pub fn covering(base: A, bytes: u64) -> Result<Self, RangeError> {
        let overflow = RangeError::Overflow {
            base: base.get(),
            size: bytes,
        };
        let start = base.get() & !(PAGE_SIZE - 1);
        let end = base
            .get()
            .checked_add(bytes)
            .and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
        Self::new(A::from_u64(start), end.ok_or(overflow)? - start)
    }

    /// The one page that holds `address`; `None` for the last page of the 64-bit space, whose end is no address.
    pub fn page_of(address: A) -> Option<Self> {
        Self::new(A::from_u64(address.get() & !(PAGE_SIZE - 1)), PAGE_SIZE).ok()
    }

    /// The first address.
    pub fn base(self) -> A {
        self.base
    }

    /// The size in bytes.
    pub fn size(self) -> u64 {
        self.size
    }

    /// The first address after the range.
    pub fn end(self) -> A {
        A::from_u64(self.base.get() + self.size)
    }

    /// Whether `address` lies in the range.
    pub fn contains(self, address: A) -> bool {
        self.base <= address && address < self.end()
    }

    /// Whether every page of `other` lies in the range.
    pub fn contains_range(self, other: Self) -> bool {
        self.base <= other.base && other.end() <= self.end()
    }

    /// The first addresses of the pages, lowest first.
    pub fn pages(self) -> impl Iterator<Item = A> {
        (0..self.size / PAGE_SIZE).map(move |page| A::from_u64(self.base.get() + page * PAGE_SIZE))
    }
}

impl<A: fmt::Display + Address> fmt::Display for PageRange<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.base, self.end())
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;

    const TOP: u64 = 0xffff_ffff_ffff_f000;

    #[test]
    fn ranges_are_whole_pages_whose_end_is_an_address() {
        let unaligned = |base, size| Err(RangeError::Unaligned { base, size });
        let overflow = |base, size| Err(RangeError::Overflow { base, size });
        let cases = [
            (0, 0, Ok(())),
            (0, PAGE_SIZE, Ok(())),
            (TOP, 0, Ok(())),
            (TOP - PAGE_SIZE, PAGE_SIZE, Ok(())),
            (TOP, PAGE_SIZE, overflow(TOP, PAGE_SIZE)),
            (PAGE_SIZE, TOP, overflow(PAGE_SIZE, TOP)),
            (1, PAGE_SIZE, unaligned(1, PAGE_SIZE)),
            (0, 1, unaligned(0, 1)),
            (0x800, 0x800, unaligned(0x800, 0x800)),
            (u64::MAX, u64::MAX, unaligned(u64::MAX, u64::MAX)),
        ];
        for (base, size, expected) in cases {
            let range = PageRange::new(Pa::new(base), size);
            assert_eq!(range.map(|_| ()), expected, "{size:#x} at {base:#x}");
        }
    }

    #[test]
    fn covering_rounds_outwards() {
        let covering = |base, bytes| {
            PageRange::covering(Va::new(base), bytes)
                .map(|range| (range.base().get(), range.size()))
        };
        assert_eq!(covering(0x1000, 0x1000), Ok((0x1000, 0x1000)));
        assert_eq!(covering(0x1fff, 1), Ok((0x1000, 0x1000)));
        assert_eq!(covering(0x1fff, 2), Ok((0x1000, 0x2000)));
        assert_eq!(covering(0x1234, 0), Ok((0x1000, 0x1000)));
        assert_eq!(covering(0x1000, 0), Ok((0x1000, 0)));
        for (base, bytes) in [(u64::MAX, 1), (TOP, 1), (1, u64::MAX)] {
            assert_eq!(
                covering(base, bytes),
                Err(RangeError::Overflow { base, size: bytes })
            );
        }
    }

    #[test]
    fn a_range_knows_its_pages() {
        let range = PageRange::new(Ipa::new(0x2000), 0x3000).unwrap();
        let pages: Vec<_> = range.pages().map(Ipa::get).collect();
        assert_eq!(pages, [0x2000, 0x3000, 0x4000]);
        let contains = [0x1fff, 0x2000, 0x4fff, 0x5000].map(|at| range.contains(Ipa::new(at)));
        assert_eq!(contains, [false, true, true, false]);
        let part = |base, size| PageRange::new(Ipa::new(base), size).unwrap();
        assert!(range.contains_range(range) && range.contains_range(part(0x4000, 0x1000)));
        assert!(
            !range.contains_range(part(0x1000, 0x2000))
                && !range.contains_range(part(0x4000, 0x2000))
        );
        assert_eq!(part(0x2000, 0).pages().count(), 0);
        assert_eq!(range.to_string(), "0x2000..0x5000");
    }

    #[test]
    fn page_of_the_very_last_address_has_no_end() {
        assert_eq!(
            PageRange::page_of(Pa::new(0x1fff)),
            PageRange::new(Pa::new(0x1000), PAGE_SIZE).ok()
        );
        assert_eq!(PageRange::page_of(Pa::new(u64::MAX)), None);
    }

    #[test]
    fn frame_numbers_have_52_bits() {
        assert_eq!(Pa::from_pfn(0x48000), Some(Pa::new(0x4800_0000)));
        assert_eq!(Pa::from_pfn((1 << 52) - 1), Some(Pa::new(TOP)));
        assert_eq!(Pa::from_pfn(1 << 52), None);
        assert_eq!(Pa::from_pfn(u64::MAX), None);
    }

    #[test]
    fn errors_say_what_to_do() {
        let error = PageRange::new(Pa::new(0x123), 8).unwrap_err();
        assert_eq!(
            error.to_string(),
            "0x8 bytes at 0x123 are not whole pages: both must be multiples of 0x1000"
        );
        let error = PageRange::new(Pa::new(TOP), PAGE_SIZE).unwrap_err();
        let expected =
            "0x1000 bytes at 0xfffffffffffff000 pass the end of the 64-bit address space";
        assert_eq!(error.to_string(), expected);
    }
}
