//! A64 instructions as text, and where they lead.
//!
//! The library decodes what programs compute with; ours what is about the system, whose names depend on the level and
//! on `HCR_EL2.E2H`. What neither knows (SVE, SME, memory copies) is shown as the word it is.

mod names;
mod system;

use std::fmt;
use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::{InstDecoder, Opcode};

/// One instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// In assembler's notation, branch targets and addresses as numbers with their names: `bl 0x40205c4c <map+0x1c>`.
    pub text: String,
    /// What the text alone would mislead about: the register that is really accessed.
    pub note: Option<String>,
    /// Where it leads.
    pub flow: Flow,
}

/// Where an instruction leads. Targets are virtual addresses, `None` when a register holds them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// To the next instruction.
    Next,
    /// To a function, which comes back behind it.
    Call {
        /// The function.
        target: Option<u64>,
    },
    /// To another place, not to come back.
    Branch {
        /// The place.
        target: Option<u64>,
        /// The next instruction may follow as well.
        conditional: bool,
    },
    /// To the caller.
    Return,
    /// To where `ELR_ELx` says, at the level `SPSR_ELx` says.
    ExceptionReturn,
    /// Into an exception on purpose: SVC, HVC, SMC, BRK, HLT, UDF.
    Exception,
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.note {
            Some(note) => write!(f, "  ; {note}"),
            None => Ok(()),
        }
    }
}

/// Disassembles the instruction word at a virtual address. `e2h` says that it runs at EL2 with `HCR_EL2.E2H` = 1, where EL1's
/// encodings reach EL2's registers; `name` gives names to addresses.
pub fn disassemble(
    word: u32,
    address: u64,
    e2h: bool,
    name: impl Fn(u64) -> Option<String>,
) -> Instruction {
    let flow = flow(word, address);
    if let Some((text, note)) = system::text(word, e2h) {
        return Instruction { text, note, flow };
    }
    let Some(mut text) = general(word) else {
        return Instruction {
            text: format!(".inst {word:#010x}"),
            note: unknown(word).map(str::to_owned),
            flow,
        };
    };
    // The library writes `$+0x40` for what is relative to the instruction, always last.
    if let (Some(at), Some(target)) = (text.find('$'), relative(word, address)) {
        text.truncate(at);
        text += &format!("{target:#x}");
        if let Some(name) = name(target) {
            text += &format!(" <{name}>");
        }
    }
    let note = None;
    Instruction { text, note, flow }
}

fn general(word: u32) -> Option<String> {
    let bytes = word.to_le_bytes();
    let decoded = InstDecoder::default().decode(&mut U8Reader::new(&bytes));
    let decoded = decoded.ok()?;
    // The library takes any word below 0x2000000 for one, though UDF has no more than an immediate of 16 bits.
    if decoded.opcode == Opcode::UDF && word >> 16 != 0 {
        return None;
    }
    let mut text = decoded.to_string();
    // Additions of a zero-extended register: the library does not say that it is extended.
    if word & 0x9fe0_e000 == 0x8b20_4000 {
        let (operands, shift) = text.split_once(", lsl").unwrap_or((&text, ""));
        text = format!("{operands}, uxtw{shift}");
    }
    Some(text)
}

/// Which group a word is from that is not decoded (Arm ARM, C4.1): bits \[28:25\].
fn unknown(word: u32) -> Option<&'static str> {
    match (word >> 25 & 0xf, word >> 31) {
        (0, 1) => Some("SME"),
        (2, _) => Some("SVE"),
        _ => None,
    }
}

/// Where the instruction word at a virtual address leads.
pub fn flow(word: u32, address: u64) -> Flow {
    let target = relative(word, address);
    let branch = |conditional| Flow::Branch {
        target,
        conditional,
    };
    match word >> 24 {
        0x14..=0x17 => branch(false),
        0x94..=0x97 => Flow::Call { target },
        // B.AL and its like are always taken.
        0x54 => branch(word & 0xe != 0xe),
        0x34..=0x37 | 0xb4..=0xb7 => branch(true),
        0xd4 => Flow::Exception,
        0 if word >> 16 == 0 => Flow::Exception,
        // RETAASPPC, RETABSPPC: the relative address is that of the signing instruction.
        0x55 if word & 0xc0_001f == 0x1f => Flow::Return,
        0xd6 | 0xd7 => by_register(word),
        _ => Flow::Next,
    }
}

/// Unconditional branches by register. Bits \[24:21\] say which, \[11:10\] whether and with which key the address is
/// authenticated, \[4:0\] with what.
fn by_register(word: u32) -> Flow {
    let target = None;
    let conditional = false;
    let key = word >> 10 & 0x3f;
    let (register, modifier) = (word >> 5 & 31, word & 31);
    let plain = key == 0 && modifier == 0;
    let authenticated = matches!(key, 2 | 3);
    let with_zero = authenticated && modifier == 31;
    if word >> 16 & 31 != 31 {
        return Flow::Next;
    }
    let with_stack = authenticated && register == 31;
    match word >> 21 & 0xf {
        0 if plain || with_zero => Flow::Branch {
            target,
            conditional,
        },
        8 if authenticated => Flow::Branch {
            target,
            conditional,
        },
        1 if plain || with_zero => Flow::Call { target },
        9 if authenticated => Flow::Call { target },
        2 if plain || with_stack => Flow::Return,
        4 if register == 31 && (plain || with_zero) => Flow::ExceptionReturn,
        _ => Flow::Next,
    }
}

/// The address that an instruction names relative to itself: branches, ADR, ADRP, literals.
fn relative(word: u32, address: u64) -> Option<u64> {
    let signed = |low: u32, bits: u32| {
        let field = word << (32 - low - bits);
        i64::from(field as i32 >> (32 - bits))
    };
    let (base, offset) = match word >> 24 {
        0x14..=0x17 | 0x94..=0x97 => (address, signed(0, 26) * 4),
        0x34 | 0x35 | 0xb4 | 0xb5 | 0x54 => (address, signed(5, 19) * 4),
        0x36 | 0x37 | 0xb6 | 0xb7 => (address, signed(5, 14) * 4),
        // LDR, LDRSW and PRFM (literal), also to SIMD registers.
        top if top & 0x3b == 0x18 => (address, signed(5, 19) * 4),
        // RETAASPPC, AUTIASPPC and their like with key B: where the address was signed, which is before.
        0x55 | 0xf3 => (address, -4 * i64::from(word >> 5 & 0xffff)),
        top if top & 0x1f == 0x10 => {
            let pages = signed(5, 19) * 4 + i64::from(word >> 29 & 3);
            match word >> 31 {
                0 => (address, pages),
                _ => (address & !0xfff, pages << 12),
            }
        }
        _ => return None,
    };
    Some(base.wrapping_add_signed(offset))
}

#[cfg(test)]
mod tests;
