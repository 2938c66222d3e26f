//! The sections that describe call frames, looked into by address.

use super::apply::PC;
use super::{Cfa, Rule, Rules};
use crate::image::lines::Bytes;
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, DebugFrame, EhFrame, EndianArcSlice, LittleEndian,
    RegisterRule, UnwindContext, UnwindExpression, UnwindOffset, UnwindSection, Vendor,
};
use std::collections::HashMap;
use std::sync::Arc;

/// A kernel's has 4 MB. What a larger one says is not looked at.
pub(in crate::image) const SECTION_LIMIT: u64 = 64 << 20;
/// A compiler writes one of them per unit; a kernel has 4,000 units.
const MAX_COMMON: usize = 1 << 16;
/// A function's part of the section; the largest of a kernel has some 3 KiB.
const FUNCTION_LIMIT: usize = 1 << 20;
/// No compiler writes longer ones.
const EXPRESSION_LIMIT: usize = 1 << 10;

/// The sections of a program; an empty one stands for one that is not there.
#[derive(Clone, Default)]
pub(in crate::image) struct Sections {
    pub(in crate::image) debug_frame: Arc<[u8]>,
    pub(in crate::image) eh_frame: Arc<[u8]>,
    /// The linked address of `.eh_frame`, which the addresses in it are relative to.
    pub(in crate::image) eh_frame_at: u64,
}

pub(super) struct Tables {
    debug: Table<DebugFrame<Bytes>>,
    eh: Table<EhFrame<Bytes>>,
}

/// One section, and which of its entries describes what.
struct Table<S> {
    section: S,
    bases: BaseAddresses,
    /// In order of address.
    functions: Vec<Function>,
}

/// The code that an entry describes.
struct Function {
    start: u64,
    size: u64,
    /// Where the entry is in the section.
    entry: usize,
}

impl Tables {
    pub(super) fn new(sections: Sections) -> Self {
        let bytes = |section: Arc<[u8]>| match section.len() as u64 <= SECTION_LIMIT {
            true => EndianArcSlice::new(section, LittleEndian),
            false => EndianArcSlice::new(Arc::from([]), LittleEndian),
        };
        let mut debug = DebugFrame::from(bytes(sections.debug_frame));
        debug.set_address_size(8);
        debug.set_vendor(Vendor::AArch64);
        let mut eh = EhFrame::from(bytes(sections.eh_frame));
        eh.set_address_size(8);
        eh.set_vendor(Vendor::AArch64);
        let bases = BaseAddresses::default();
        Self {
            debug: Table::new(debug, bases.clone()),
            eh: Table::new(eh, bases.set_eh_frame(sections.eh_frame_at)),
        }
    }

    /// The rules at a linked address.
    pub(super) fn rules(&self, linked: u64) -> Option<Rules> {
        let debug = self.debug.rules(linked);
        debug.or_else(|| self.eh.rules(linked))
    }
}

impl<S: UnwindSection<Bytes>> Table<S> {
    /// Reads what entries there are, up to the first that is damaged.
    fn new(section: S, bases: BaseAddresses) -> Self {
        let mut functions = Vec::new();
        // What functions have in common stands before them, and is read once.
        let mut common = HashMap::new();
        let mut entries = section.entries(&bases);
        while let Ok(Some(entry)) = entries.next() {
            match entry {
                CieOrFde::Cie(cie) if common.len() < MAX_COMMON => {
                    common.insert(cie.offset(), cie);
                }
                CieOrFde::Cie(_) => {}
                CieOrFde::Fde(partial) => {
                    let function = partial.parse(|_, _, at| {
                        let cie = common.get(&UnwindOffset::into(at)).cloned();
                        cie.ok_or(gimli::Error::NoUnwindInfoForAddress)
                    });
                    functions.extend(function.ok().map(|function| Function {
                        start: function.initial_address(),
                        size: function.len(),
                        entry: function.offset(),
                    }));
                }
            }
        }
        functions.sort_unstable_by_key(|function| (function.start, function.size));
        Self {
            section,
            bases,
            functions,
        }
    }

    fn rules(&self, linked: u64) -> Option<Rules> {
        let after = self
            .functions
            .partition_point(|function| function.start <= linked);
        let function = self.functions.get(after.checked_sub(1)?)?;
        if linked - function.start >= function.size {
            return None;
        }
        let entry = self
            .section
            .fde_from_offset(&self.bases, function.entry.into(), S::cie_from_offset)
            .ok()?;
        if entry.entry_len().max(entry.cie().entry_len()) > FUNCTION_LIMIT {
            return None;
        }
        let mut context = UnwindContext::new();
        let row = entry
            .unwind_info_for_address(&self.section, &self.bases, &mut context, linked)
            .ok()?;
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => Cfa::Register(register.0, *offset),
            CfaRule::Expression(expression) => Cfa::Expression(self.expression(expression)?),
        };
        // Behind PC are the signature's state and vectors.
        let registers = row.registers().filter(|(register, _)| register.0 <= PC);
        let registers = registers.map(|(register, rule)| {
            let rule = self.rule(rule).unwrap_or(Rule::Undefined);
            (register.0, rule)
        });
        Some(Rules {
            cfa,
            registers: registers.collect(),
            return_address: entry.cie().return_address_register().0,
            signal: entry.is_signal_trampoline(),
        })
    }

    /// `None` where it is a rule that AArch64 has not.
    fn rule(&self, rule: &RegisterRule<usize>) -> Option<Rule> {
        Some(match rule {
            RegisterRule::Undefined => Rule::Undefined,
            RegisterRule::SameValue => Rule::Same,
            RegisterRule::Offset(offset) => Rule::At(*offset),
            RegisterRule::ValOffset(offset) => Rule::Cfa(*offset),
            RegisterRule::Register(register) => Rule::Register(register.0),
            RegisterRule::Expression(expression) => {
                Rule::AtExpression(self.expression(expression)?)
            }
            RegisterRule::ValExpression(expression) => {
                Rule::Expression(self.expression(expression)?)
            }
            _ => return None,
        })
    }

    fn expression(&self, expression: &UnwindExpression<usize>) -> Option<Vec<u8>> {
        let bytes = expression.get(&self.section).ok()?.0;
        (bytes.len() <= EXPRESSION_LIMIT).then(|| bytes.to_vec())
    }
}
