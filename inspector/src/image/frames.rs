//! Call frame information: how the registers of a function's caller are found at each of the function's instructions.
//!
//! A program has it in `.debug_frame`, in `.eh_frame`, or in both (DWARF 5, 6.4; Linux Standard Base, "Exception Frames").

mod apply;
mod expression;
mod table;

pub(crate) use apply::{Activation, Caller};
use serde::{Deserialize, Serialize};
use std::cell::LazyCell;
use std::collections::BTreeMap;
use table::Tables;
pub(super) use table::{SECTION_LIMIT, Sections};

/// The call frame information of one program. It is read when it is asked for first: a kernel's has 4 MB.
pub(super) struct CallFrames {
    tables: LazyCell<Tables, Box<dyn FnOnce() -> Tables + Send>>,
    /// The answers so far, by linked address.
    known: BTreeMap<u64, Option<Rules>>,
}

/// How the registers of a function's caller are found, while the function is at one of its instructions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Rules {
    /// The canonical frame address: where SP was before the call.
    cfa: Cfa,
    /// By number in DWARF for AArch64: x0 to x30, SP, PC.
    registers: BTreeMap<u16, Rule>,
    /// The register that has the address to return to, unless there is a rule for PC.
    return_address: u16,
    /// The caller called nothing, an exception was taken there.
    pub(crate) signal: bool,
}

/// Where the canonical frame address is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Cfa {
    /// A register's value, and what to add.
    Register(u16, i64),
    /// What an expression comes to.
    Expression(Vec<u8>),
}

/// Where a register of the caller is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Rule {
    /// Nowhere.
    Undefined,
    /// Where it was.
    Same,
    /// In memory, so far from the CFA.
    At(i64),
    /// It is the CFA and so much.
    Cfa(i64),
    /// In another register.
    Register(u16),
    /// In memory, where an expression says that begins with the CFA.
    AtExpression(Vec<u8>),
    /// What such an expression comes to.
    Expression(Vec<u8>),
}

/// The rules at a linked address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct RulesAt {
    #[serde(with = "crate::addr::hex")]
    address: u64,
    rules: Rules,
}

impl Default for CallFrames {
    fn default() -> Self {
        Self::new(Sections::default)
    }
}

impl CallFrames {
    /// Of a program whose sections are read when they are needed.
    pub(super) fn new(read: impl FnOnce() -> Sections + Send + 'static) -> Self {
        Self {
            tables: LazyCell::new(Box::new(|| Tables::new(read()))),
            known: BTreeMap::new(),
        }
    }

    /// The rules at a linked address.
    pub(super) fn rules(&mut self, linked: u64) -> Option<Rules> {
        let tables = &self.tables;
        let known = self.known.entry(linked);
        known.or_insert_with(|| tables.rules(linked)).clone()
    }

    /// For a snapshot: the rules that were asked for.
    pub(super) fn notes(&self) -> Vec<RulesAt> {
        let known = self.known.iter();
        let at = known.filter_map(|(address, rules)| Some((*address, rules.clone()?)));
        at.map(|(address, rules)| RulesAt { address, rules })
            .collect()
    }

    /// What a snapshot remembers.
    pub(super) fn recall(notes: &[RulesAt]) -> Self {
        let known = notes
            .iter()
            .map(|at| (at.address, Some(at.rules.clone())))
            .collect();
        Self {
            known,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests;
