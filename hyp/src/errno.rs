//! The error numbers hypercalls return.

use core::fmt;

/// What a hypercall returns in x1 when it fails, and what the functions behind it return.
/// The values are Linux's error numbers, because the host that asks is written against them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum Errno {
    /// The page's state or owner forbids it.
    Perm = -1,
    /// There is something there already: look again.
    Again = -11,
    /// The pool of table pages has run dry.
    NoMem = -12,
    /// The argument is not memory, not a range, or a protection that cannot be.
    Inval = -22,
    /// The address is beyond what the table translates.
    Range = -34,
}

impl Errno {
    /// The negative number a hypercall returns.
    pub const fn code(self) -> i64 {
        self as i64
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Perm => "EPERM",
            Self::Again => "EAGAIN",
            Self::NoMem => "ENOMEM",
            Self::Inval => "EINVAL",
            Self::Range => "ERANGE",
        };
        write!(f, "-{name} ({})", self.code())
    }
}

impl core::error::Error for Errno {}
