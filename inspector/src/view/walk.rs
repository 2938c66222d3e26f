//! One translation, step by step, out of the captured tables.

use super::{Cell, Role, Table, address, dash, dim, plain};
use crate::arch::desc::Shape;
use crate::arch::fields;
use crate::arch::regime::Regime;
use crate::arch::walk::{End, Step, Translation};
use crate::model::{Entry, RegimeCapture, System};

/// The way of one address, and the entry it ends in.
#[derive(Clone, PartialEq, Debug)]
pub struct WalkView<'a> {
    /// The regime.
    pub regime: &'a RegimeCapture,
    /// Every word looked at, and the end.
    pub translation: Translation,
    /// The entry that covers the address, with what the hypervisor means by it.
    pub entry: Option<&'a Entry>,
}

/// Follows `ia` through the tables of the regime of that name; `None` when there is none.
pub fn walk<'a>(system: &'a System, regime: &str, ia: u64) -> Option<WalkView<'a>> {
    let regime = system.regimes.iter().find(|known| known.name == regime)?;
    Some(WalkView {
        regime,
        translation: regime.translate(ia),
        entry: regime.entry_of(ia),
    })
}

/// The name of how a translation ends, as documents write it.
pub fn end_name(end: &End) -> &'static str {
    match end {
        End::Mapped { .. } => "mapped",
        End::Hole { .. } => "hole",
        End::Invalid { .. } => "invalid",
        End::Reserved { .. } => "reserved",
        End::Unreadable { .. } => "unreadable",
        End::OutOfRange { .. } => "out-of-range",
    }
}

/// The name of what a word is, as documents write it.
pub fn shape_name(shape: Shape) -> &'static str {
    match shape {
        Shape::Invalid => "invalid",
        Shape::Reserved => "reserved",
        Shape::Table => "table",
        Shape::Block => "block",
        Shape::Page => "page",
    }
}

/// Every step as a row, and under each word its fields, but not those that are ignored and zero.
pub fn walk_table(regime: &Regime, translation: &Translation) -> Table {
    let mut table = Table::new(&["LEVEL", "AT", "WORD", "BITS", "FIELD", "MEANING"]);
    for step in &translation.steps {
        table.rows.push(step_row(step));
        let Some(descriptor) = &step.descriptor else {
            continue;
        };
        for field in fields::descriptor(regime, step.level, descriptor.raw) {
            if field.name == "ignored" && field.value == 0 {
                continue;
            }
            table.rows.push(vec![
                plain(""),
                plain(""),
                Cell::new(Role::Raw, format!("{:#x}", field.value)),
                dim(field.bits()),
                plain(field.name),
                plain(field.meaning),
            ]);
        }
    }
    table
}

/// One word of a walk: level, address, word, index, kind, where it leads.
pub(super) fn step_row(step: &Step) -> Vec<Cell> {
    let (word, shape) = match &step.descriptor {
        Some(descriptor) => (
            Cell::new(Role::Raw, format!("{:#x}", descriptor.raw)),
            plain(shape_name(descriptor.shape)),
        ),
        None => (dash(), Cell::new(Role::Problem, "unreadable")),
    };
    vec![
        plain(step.level.to_string()),
        address(step.at),
        word,
        dim(format!("[{}]", step.index)),
        shape,
        plain(match step.descriptor.as_ref().and_then(|word| word.oa) {
            Some(oa) => format!("to {oa:#x}"),
            None => String::new(),
        }),
    ]
}
