//! The program as its users run it: answers of every command, and what it says when something is
//! wrong.

mod abort_disturbed;
mod bad_input;
mod damage;
mod dumps;
mod golden;
mod roads;
mod scenes;

#[path = "../support/elf.rs"]
#[expect(dead_code, reason = "unit tests describe more kinds of types")]
mod elf;

#[path = "../support/demo_elf.rs"]
mod demo_elf;

#[path = "../support/run.rs"]
mod run;
