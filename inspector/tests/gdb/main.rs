//! The gdb target, and the snapshots made through it, against a real QEMU.
//!
//! Modules begin with `qemu` so that nextest runs no more of them at once than the computer bears.

mod qemu;
mod qemu_backtraces;
mod qemu_dump;
mod qemu_hyp;
mod qemu_sessions;
mod qemu_stops;
