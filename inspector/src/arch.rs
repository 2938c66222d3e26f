//! What the architecture says: VMSAv8-64 descriptors, translation regimes, walks, system registers.
//!
//! Source: Arm Architecture Reference Manual for A-profile (DDI 0487), chapters D8 and D24.

pub mod regime;
pub mod walk;
