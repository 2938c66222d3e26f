//! Calls on a stack.
//!
//! Call frame information says of each instruction of a function how its caller is found ([`Rules`]). Where there is none,
//! frame records do, which what runs at EL2 and the hosts are built with: x29 points to two words on the stack, the caller's
//! x29 and the address to return to. At the beginning and the end of a function it is the caller's still.

use super::memory::{Memory, NotYet};
use crate::addr::Span;
use crate::arch::regime::Regime;
pub(super) use crate::image::Activation;
use crate::image::{Caller, Rules};
use crate::model::{Frame, Symbols};
use crate::target::Registers;

/// The most frames that are followed for one exception level.
pub(super) const MAX_FRAMES: usize = 64;
/// The piece of a stack that is read at once: the smallest page.
const CHUNK: u64 = 4096;
/// An instruction's size in bytes: a call stands so far before the place that it returns to.
const CALL: u64 = 4;

/// The name of a CPU's PC, and the calls that led there.
pub(super) type Place = (Option<String>, Vec<Frame>);

/// What is known of the programs that run.
pub(super) struct Code<'a> {
    pub(super) symbols: &'a Symbols,
    /// How the caller of what is at a linked address is found.
    pub(super) rules: &'a mut dyn FnMut(u64) -> Option<Rules>,
}

impl Code<'_> {
    pub(super) fn name_of(&self, address: u64) -> Option<String> {
        self.symbols.name_of(address)
    }

    /// The function at an address, and whether that is its first instruction.
    fn function(&self, address: u64) -> Option<(String, bool)> {
        let name = self.name_of(address)?;
        Some(match name.split_once('+') {
            Some((function, _)) => (function.to_owned(), false),
            None => (name, true),
        })
    }

    fn rules(&mut self, at: &Activation) -> Option<Rules> {
        let place = match at.interrupted {
            true => at.pc,
            false => at.pc.wrapping_sub(CALL),
        };
        let rules = (self.rules)(self.symbols.linked_address(place)?)?;
        // While registers are saved, it is not true yet what they say who write an exception's entry.
        (!rules.signal || !at.interrupted).then_some(rules)
    }
}

/// What a CPU's registers say of where it is.
pub(super) fn running(pc: u64, registers: &Registers) -> Activation {
    let mut at = interrupted(pc);
    at.sp = registers.get("sp");
    for (n, x) in at.x.iter_mut().enumerate() {
        *x = registers.get(&format!("x{n}"));
    }
    at
}

/// A place where an exception was taken, of which no registers are known.
pub(super) fn interrupted(pc: u64) -> Activation {
    Activation {
        interrupted: true,
        ..Activation::at(pc)
    }
}

/// The stack of one CPU at one exception level.
pub(super) struct Stack<'a, 'm> {
    pub(super) memory: &'a mut Memory<'m>,
    /// What translates its addresses; without one they are physical.
    pub(super) regime: Option<Regime>,
    /// Where frames may be.
    pub(super) limits: Span,
    /// Offset of the frame record in the registers that an exception saved, where that record leads nowhere but says what
    /// it is.
    pub(super) boundary: Option<u64>,
}

impl Stack<'_, '_> {
    /// The calls, innermost first; where an exception interrupted others, also those.
    pub(super) fn frames(
        mut self,
        code: &mut Code<'_>,
        mut at: Activation,
    ) -> Result<Vec<Frame>, NotYet> {
        let (mut frames, mut seen) = (Vec::new(), vec![at]);
        while frames.len() < MAX_FRAMES
            && let Some(caller) = self.caller(code, &at)?
            && !seen.contains(&caller)
        {
            at = caller;
            seen.push(at);
            frames.push(match at.interrupted {
                true => Frame::interrupted(at.pc, code.name_of(at.pc)),
                false => returned_to(code.symbols, at.pc),
            });
        }
        Ok(frames)
    }

    fn caller(
        &mut self,
        code: &mut Code<'_>,
        at: &Activation,
    ) -> Result<Option<Activation>, NotYet> {
        let found = match code.rules(at) {
            Some(rules) => {
                let found = rules.caller(at, &mut |va| self.word(va))?;
                // What came here with nothing on the stack was not here.
                let elsewhere = |cfa| rules.signal && !self.limits.contains(cfa);
                match found {
                    Caller::At(_, cfa) if elsewhere(cfa) => Caller::Outermost,
                    found => found,
                }
            }
            None => Caller::Unknown,
        };
        let caller = match found {
            Caller::At(caller, _) => Some(*caller),
            Caller::Outermost => None,
            Caller::Unknown => match self.unrecorded(code, at)? {
                Some(caller) => Some(caller),
                None => self.recorded(at)?,
            },
        };
        let ia_bits = self.ia_bits();
        Ok(caller.map(|caller| Activation {
            pc: without_code(caller.pc, ia_bits),
            ..caller
        }))
    }

    /// The caller of a function that calls nothing, or has not come to it yet: it has no record, but x30 says it.
    fn unrecorded(
        &mut self,
        code: &Code<'_>,
        at: &Activation,
    ) -> Result<Option<Activation>, NotYet> {
        let (Some(x30), true) = (at.x[30], at.interrupted) else {
            return Ok(None);
        };
        let ia_bits = self.ia_bits();
        let x30 = without_code(x30, ia_bits);
        let (Some((caller, _)), here) = (code.function(x30), code.function(at.pc)) else {
            return Ok(None);
        };
        // At its first instruction a function has changed nothing yet, and may have called itself from there before.
        if let Some((_, true)) = here {
            return Ok(Some(Activation {
                pc: x30,
                interrupted: false,
                ..*at
            }));
        }
        let record = self.record(at.x[29].unwrap_or(0))?;
        let is_recorded = record.is_some_and(|(_, lr)| without_code(lr, ia_bits) == x30);
        if is_recorded || here.is_some_and(|(here, _)| here == caller) {
            return Ok(None);
        }
        let mut caller = Activation::at(x30);
        caller.x[29] = at.x[29];
        Ok(Some(caller))
    }

    /// The caller by its frame record, or what an exception interrupted.
    fn recorded(&mut self, at: &Activation) -> Result<Option<Activation>, NotYet> {
        let x29 = at.x[29].unwrap_or(0);
        Ok(match self.record(x29)? {
            Some((0, 0)) => self.interrupted(x29)?,
            None | Some((_, 0)) => None,
            Some((caller, lr)) => {
                let mut at = Activation::at(lr);
                at.x[29] = Some(caller);
                Some(at)
            }
        })
    }

    /// What the exception interrupted whose boundary is at an address: a frame record of zeros, and behind it what it is.
    fn interrupted(&mut self, record: u64) -> Result<Option<Activation>, NotYet> {
        /// `FRAME_META_TYPE_PT_REGS`. 1 is the outermost: what came from user space, or a thread's beginning.
        const REGISTERS: u64 = 2;
        let Some(boundary) = self.boundary else {
            return Ok(None);
        };
        if self.word(record.wrapping_add(16))? != Some(REGISTERS) {
            return Ok(None);
        }
        // x0 to x30, sp, pc, as user space knows them (`struct user_pt_regs`).
        let mut register = |n: u64| {
            let at = record.wrapping_sub(boundary).wrapping_add(n * 8);
            self.word(at)
        };
        let Some(pc) = register(32)? else {
            return Ok(None);
        };
        let mut at = interrupted(pc);
        at.sp = register(31)?;
        for (n, x) in (0..).zip(&mut at.x) {
            *x = register(n)?;
        }
        Ok(Some(at))
    }

    /// The frame record at an address; at 0 is none, wherever that is: the outermost function has no caller (AAPCS64).
    fn record(&mut self, x29: u64) -> Result<Option<(u64, u64)>, NotYet> {
        if x29 == 0 {
            return Ok(None);
        }
        let (first, second) = (self.word(x29), self.word(x29.wrapping_add(8)));
        Ok(first?.zip(second?))
    }

    /// The word at an address of the stack.
    pub(super) fn word(&mut self, va: u64) -> Result<Option<u64>, NotYet> {
        if !va.is_multiple_of(8) || !self.limits.contains(va) {
            return Ok(None);
        }
        let start = va & !(CHUNK - 1);
        let Some(pa) = self.physical(start)? else {
            return Ok(None);
        };
        let bytes = self.memory.read(Span::new(pa, CHUNK))?;
        let word = bytes.and_then(|bytes| bytes.get((va - start) as usize..)?.first_chunk());
        Ok(word.map(|word| u64::from_le_bytes(*word)))
    }

    fn physical(&mut self, va: u64) -> Result<Option<u64>, NotYet> {
        let ia_bits = self.ia_bits();
        if without_code(va, ia_bits) != va {
            return Ok(None);
        }
        match &self.regime {
            Some(regime) => {
                let ia = va & u64::MAX >> (64 - ia_bits);
                self.memory.translate(regime, ia)
            }
            None => Ok(Some(va)),
        }
    }

    /// How many bits of an address are translated.
    fn ia_bits(&self) -> u32 {
        self.regime.as_ref().map_or(64, |regime| regime.ia_bits)
    }
}

/// The frame of a return address.
fn returned_to(symbols: &Symbols, pc: u64) -> Frame {
    let name = symbols.name_of(pc);
    // A call that never returns may be the last of its function: then the call is named, not what stands behind it, if
    // anything does.
    let inside = name.as_ref().is_some_and(|name| name.contains('+'));
    let call = pc.checked_sub(CALL).filter(|_| !inside);
    let symbol = call.and_then(|call| symbols.name_of(call)).or(name);
    Frame::returning(pc, symbol)
}

/// Whether an address is in the kernel's half: bit 55 says so, above it may be authentication codes and tags.
pub(super) fn upper(address: u64) -> bool {
    address >> 55 & 1 != 0
}

/// An address without the pointer authentication code in it, which is in the bits that are not translated.
pub(crate) fn without_code(address: u64, ia_bits: u32) -> u64 {
    let translated = u64::MAX >> (64 - ia_bits);
    if upper(address) {
        address | !translated
    } else {
        address & translated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_taken_out_of_both_halves() {
        for (address, bits, plain) in [
            (0x0058_0a19_2130_648c, 48, 0x0a19_2130_648c),
            (0x0058_0a19_2130_648c, 52, 0x8_0a19_2130_648c),
            (0x12bf_8000_0800_0000, 48, 0xffff_8000_0800_0000),
            (0xffff_8000_0800_0000, 52, 0xffff_8000_0800_0000),
        ] {
            assert_eq!(without_code(address, bits), plain, "{address:#x}");
        }
    }
}
