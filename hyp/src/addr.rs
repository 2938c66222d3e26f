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
