//! From a function's registers to its caller's.

use super::{Cfa, Rule, Rules, expression};

/// Numbers in DWARF for AArch64 behind those of x0 to x30.
const SP: u16 = 31;
pub(super) const PC: u16 = 32;
/// x19 to x28, the frame pointer and the link register are the caller's where no rule says otherwise: others a call need not
/// keep (AAPCS64, 6.1.1).
const KEPT: std::ops::RangeInclusive<u16> = 19..=30;

/// What is known of the registers of a function that has begun and not returned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Activation {
    pub(crate) pc: u64,
    pub(crate) sp: Option<u64>,
    /// x0 to x30.
    pub(crate) x: [Option<u64>; 31],
    /// The CPU stands there, or took an exception there; else a call is before it.
    pub(crate) interrupted: bool,
}

/// What leads back from a function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Caller {
    /// Its caller, and the canonical frame address that led there.
    At(Box<Activation>, u64),
    /// It has none.
    Outermost,
    /// A register or memory that it takes is not known.
    Unknown,
}

impl Activation {
    /// With no register but the PC.
    pub(crate) fn at(pc: u64) -> Self {
        Self {
            pc,
            sp: None,
            x: [None; 31],
            interrupted: false,
        }
    }

    /// A register by its number in DWARF.
    pub(super) fn register(&self, number: u16) -> Option<u64> {
        match number {
            SP => self.sp,
            PC => Some(self.pc),
            _ => self.x.get(usize::from(number)).copied().flatten(),
        }
    }
}

impl Rules {
    /// The caller of a function by its registers. `word` reads memory: its value, or that it cannot be read.
    ///
    /// # Errors
    /// Those of `word`.
    pub(crate) fn caller<E>(
        &self,
        at: &Activation,
        word: &mut impl FnMut(u64) -> Result<Option<u64>, E>,
    ) -> Result<Caller, E> {
        let cfa = match &self.cfa {
            Cfa::Register(register, offset) => {
                let base = at.register(*register);
                base.map(|base| base.wrapping_add_signed(*offset))
            }
            Cfa::Expression(bytes) => expression::evaluate(bytes, None, at, word)?,
        };
        let Some(cfa) = cfa else {
            return Ok(Caller::Unknown);
        };
        let mut value = |number: u16| -> Result<Option<u64>, E> {
            let place = match self.registers.get(&number) {
                Some(Rule::Undefined) => return Ok(None),
                Some(Rule::Same) => return Ok(at.register(number)),
                Some(Rule::Cfa(offset)) => return Ok(Some(cfa.wrapping_add_signed(*offset))),
                Some(Rule::Register(other)) => return Ok(at.register(*other)),
                Some(Rule::Expression(bytes)) => {
                    return expression::evaluate(bytes, Some(cfa), at, word);
                }
                Some(Rule::At(offset)) => Some(cfa.wrapping_add_signed(*offset)),
                Some(Rule::AtExpression(bytes)) => {
                    expression::evaluate(bytes, Some(cfa), at, word)?
                }
                None if KEPT.contains(&number) => return Ok(at.register(number)),
                None => return Ok((number == SP).then_some(cfa)),
            };
            place.map_or(Ok(None), &mut *word)
        };
        let returns_to = match self.registers.contains_key(&PC) {
            true => PC,
            false => self.return_address,
        };
        if self.registers.get(&returns_to) == Some(&Rule::Undefined) {
            return Ok(Caller::Outermost);
        }
        let pc = match value(returns_to)? {
            Some(0) => return Ok(Caller::Outermost),
            Some(pc) => pc,
            None => return Ok(Caller::Unknown),
        };
        let mut caller = Activation {
            sp: value(SP)?,
            interrupted: self.signal,
            ..Activation::at(pc)
        };
        for (x, number) in caller.x.iter_mut().zip(0..) {
            *x = value(number)?;
        }
        Ok(Caller::At(Box::new(caller), cfa))
    }
}
