//! Linux's pKVM.

mod memory;
