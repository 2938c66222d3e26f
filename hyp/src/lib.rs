//! An Arm64 EL2 hypervisor that tracks page ownership as Linux's pKVM does.
#![no_std]
#![forbid(unsafe_code)]
