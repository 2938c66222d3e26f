//! hyp's own debugger on QEMU under stress: what it shows is true at each of a thousand stops, and whatever happens, the
//! machine goes on.

#[path = "../support/client.rs"]
mod client;
mod debuggee;
mod holders;
mod large;
mod late;
mod misbehaviour;
mod panics;
mod starting;
mod steps;
mod stops;
