//! Whole conversations: what goes in, and exactly what comes out.

mod misbehaviour;
mod mutations;
pub(crate) mod script;
mod sessions;
