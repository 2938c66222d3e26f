//! Whole conversations: what goes in, and exactly what comes out.

mod script;
mod sessions;
