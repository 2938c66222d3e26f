//! Linux's pKVM on QEMU, and the inspector on it, compared with an independent reading: `fixtures::oracle`.
//!
//! Modules begin with `qemu` so that nextest runs no more of them at once than the computer bears.

mod machine;
mod oracle;
mod qemu_bad_input;
mod qemu_dumps;
mod qemu_places;
mod qemu_same;
mod qemu_snapshots;
mod qemu_waits;

#[path = "../support/counted.rs"]
mod counted;
#[path = "../support/run.rs"]
mod run;
