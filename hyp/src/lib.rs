//! An Arm64 EL2 hypervisor that tracks page ownership as Linux's pKVM does.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "std"))]
#[macro_use]
extern crate std;

pub mod addr;
pub mod errno;

pub mod cpu;
pub mod lock;

pub mod desc;
pub mod page_state;
pub mod pool;

pub mod pgtable;

pub mod init;
pub mod mem_protect;
pub mod stats;

pub mod abort;
pub mod hypercall;

pub mod debug;
#[cfg(feature = "machine")]
pub mod machine;

pub use cpu::{Cpu, TableMemory};
pub use init::{Config, Hyp};
