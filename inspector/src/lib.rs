//! A debugger for EL2 memory protection.
//!
//! Modules in the order of their dependencies: each uses only those above it.
//!
//! | layer | modules |
//! |---|---|
//! | numbers | [`addr`] |
//! | where bytes come from | [`target`] |
//! | what the architecture says of them | [`arch`] |
//! | names and types of the programs it runs | [`image`] |
//! | what everything else reads | [`model`] |
//! | what the hypervisor means by them | [`hypervisor`] |
//! | host traps, followed to their end | [`abort`] |
//! | the embedded machine | [`demo`] |
//! | opening what the user named | [`session`] |
//! | how it is shown | [`view`] |
//! | the full screen | [`tui`] |
//! | the command line | [`cli`] |

pub mod addr;
pub mod target;

pub mod arch;

pub mod image;

pub mod model;

pub mod hypervisor;

pub mod abort;

pub mod demo;

pub mod session;

pub mod view;

pub mod tui;

pub mod cli;
