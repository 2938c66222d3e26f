//! The scripts for gdb, whose decoder is their own, compared with the inspector entry by entry.
//!
//! Modules begin with `qemu` so that nextest runs no more of them at once than the computer bears.

mod compare;
mod qemu_builds;
mod qemu_commands;
mod qemu_hyp;
mod qemu_linux;

#[path = "../support/run.rs"]
mod run;
