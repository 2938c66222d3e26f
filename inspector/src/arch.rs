//! What the architecture says: VMSAv8-64 descriptors, translation regimes, walks, system registers.
//!
//! Source: Arm Architecture Reference Manual for A-profile (DDI 0487), chapters D8 and D24; names of
//! registers and fields are its names. Nothing here knows a hypervisor, and nothing here shares a
//! constant with the code that writes the tables: a shared mistake would look correct.
//!
//! | module | question |
//! |---|---|
//! | [`regime`] | which tables are there, by the registers that point at them? |
//! | [`desc`] | what does one word of a table say to the walker? |
//! | [`fields`] | what does every bit of that word say to a reader? |
//! | [`walk`] | what is in all the tables, and which way does one address take? |
//! | [`esr`] | what does a syndrome say, and which address faulted? |
//! | [`sysreg`] | what does every field of a system register say? |
//! | [`disassembly`] | what does an instruction do, and where does it lead? |

pub mod regime;

pub mod desc;

pub mod fields;

pub mod walk;

pub mod esr;

pub mod sysreg;

pub mod disassembly;
