//! The scripts for gdb, whose decoder is their own, compared with the inspector entry by entry.
//!
//! Modules begin with `qemu` so that nextest runs no more of them at once than the computer bears.

mod compare;
mod qemu_hyp;

#[path = "../support/run.rs"]
#[expect(dead_code, reason = "shared with tests that ask for more")]
mod run;
