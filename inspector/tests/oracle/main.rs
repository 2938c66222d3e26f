//! The decoder against others that know the architecture: encoders that share nothing with it
//! (aarch64-paging, arm-sysregs, hyp), words written down by hand, and a slow walker of its own kind.

mod encoders;
mod memory;
mod random;
mod reference;
mod registers;
mod words;
