//! Calls on a stack.
//!
//! What runs at EL2 and the hosts are built with frame pointers: x29 points to a frame record, two words on the stack, the
//! caller's x29 and the address to return to.

use super::memory::{Memory, NotYet};
use crate::addr::Span;
use crate::arch::regime::Regime;
use crate::model::{Frame, Symbols};

/// The most frames that are followed for one exception level.
pub(super) const MAX_FRAMES: usize = 64;
/// The piece of a stack that is read at once: the smallest page.
const CHUNK: u64 = 4096;

/// The name of a CPU's PC, and the calls that led there.
pub(super) type Place = (Option<String>, Vec<Frame>);

/// Where following begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Start {
    pub(super) pc: u64,
    pub(super) x29: u64,
    pub(super) x30: u64,
}

/// The stack of one CPU at one exception level.
pub(super) struct Stack<'a, 'm> {
    pub(super) memory: &'a mut Memory<'m>,
    /// What translates its addresses; without one they are physical.
    pub(super) regime: Option<Regime>,
    /// Where frame records may be.
    pub(super) limits: Span,
    /// Offset of the frame record in the registers that an exception saved, where that record leads nowhere but says what
    /// it is.
    pub(super) boundary: Option<u64>,
}

impl Stack<'_, '_> {
    /// The calls, innermost first; where an exception interrupted others, also those.
    pub(super) fn frames(mut self, symbols: &Symbols, at: Start) -> Result<Vec<Frame>, NotYet> {
        let (mut frames, mut seen) = (Vec::new(), Vec::new());
        let mut next = Some(at);
        while let Some(at) = next.take() {
            frames.extend(self.unrecorded(symbols, at)?);
            let mut x29 = at.x29;
            // An interrupt's stack leads to another one, which may be anywhere.
            while frames.len() < MAX_FRAMES && !seen.contains(&x29) {
                seen.push(x29);
                match self.record(x29)? {
                    Some((0, 0)) => {
                        next = self.interrupted(x29)?;
                        break;
                    }
                    None | Some((_, 0)) => break,
                    Some((caller, lr)) => {
                        let pc = without_code(lr, self.ia_bits());
                        frames.push(returned_to(symbols, pc));
                        x29 = caller;
                    }
                }
            }
            frames.extend(next.map(|Start { pc, .. }| Frame::interrupted(pc, symbols.name_of(pc))));
        }
        Ok(frames)
    }

    /// The caller of a function that calls nothing, or has not come to it yet: it has no record, but x30 says it.
    fn unrecorded(&mut self, symbols: &Symbols, at: Start) -> Result<Option<Frame>, NotYet> {
        let ia_bits = self.ia_bits();
        let x30 = without_code(at.x30, ia_bits);
        let record = self.record(at.x29)?;
        let is_recorded = record.is_some_and(|(_, lr)| without_code(lr, ia_bits) == x30);
        let function = |address| {
            let name = symbols.name_of(address)?;
            Some(name.split('+').next()?.to_owned())
        };
        let caller = function(x30);
        let is_other = caller.is_some() && caller != function(without_code(at.pc, ia_bits));
        Ok((!is_recorded && is_other).then(|| returned_to(symbols, x30)))
    }

    /// What the exception interrupted whose boundary is at an address: a frame record of zeros, and behind it what it is.
    fn interrupted(&mut self, record: u64) -> Result<Option<Start>, NotYet> {
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
        let (x29, x30, pc) = (register(29), register(30), register(32));
        Ok(match (x29?, x30?, pc?) {
            (Some(x29), Some(x30), Some(pc)) => Some(Start { pc, x29, x30 }),
            _ => None,
        })
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
    let call = pc.checked_sub(4).filter(|_| !inside);
    let symbol = call.and_then(|call| symbols.name_of(call)).or(name);
    Frame::returning(pc, symbol)
}

/// Whether an address is in the kernel's half: bit 55 says so, above it may be authentication codes and tags.
pub(super) fn upper(address: u64) -> bool {
    address >> 55 & 1 != 0
}

/// An address without the pointer authentication code in it, which is in the bits that are not translated.
fn without_code(address: u64, ia_bits: u32) -> u64 {
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
