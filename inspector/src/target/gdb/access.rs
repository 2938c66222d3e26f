//! Which memory the next instruction of a CPU accesses.

use crate::addr::Span;

/// The stack pointer, where a register's number is that of a base address.
const SP: u32 = 31;

/// What the load or store `word` accesses, whose registers `x` knows by their numbers: [`SP`] is the stack pointer.
/// Nothing where it is none, or one of those that only SVE and SME have, or that fetch from beside the code.
///
/// Arm ARM C4.1, "Loads and stores": bits 28:25 are x1x0, and bits 29:27 tell the kinds.
pub(super) fn accessed(word: u32, x: impl Fn(u32) -> Option<u64>) -> Option<Span> {
    let bits = |low: u32, count: u32| word >> low & ((1 << count) - 1);
    let signed = |low: u32, count: u32| {
        let shift = 32 - count;
        i64::from((word >> low << shift).cast_signed() >> shift)
    };
    if bits(25, 4) & 0b0101 != 0b0100 {
        return None;
    }
    let vector = bits(26, 1) == 1;
    let base = x(bits(5, 5))?;
    // Post-indexed: the base changes after the access.
    let post = 0b01;
    let (offset, size) = match (bits(27, 3), bits(24, 1)) {
        // Exclusive and ordered ones, CAS; o1 (21): pairs.
        (0b001, 0) if !vector => (0, (1 << bits(30, 2)) << bits(21, 1)),
        // LDAPUR, STLUR.
        (0b011, 1) if !vector => (signed(12, 9), 1 << bits(30, 2)),
        // Pairs: opc (31:30) and V.
        (0b101, _) => {
            let scale = if vector {
                2 + bits(30, 2)
            } else {
                2 + bits(31, 1)
            };
            let offset = if bits(23, 2) == post {
                0
            } else {
                signed(15, 7) << scale
            };
            (offset, 2 << scale)
        }
        (0b111, kind) => {
            let scale = if vector {
                bits(30, 2) | bits(23, 1) << 2
            } else {
                bits(30, 2)
            };
            let offset = match (kind, bits(21, 1), bits(10, 2)) {
                (1, ..) => i64::from(bits(10, 12)) << scale,
                (_, 0, index) if index == post => 0,
                (_, 0, _) => signed(12, 9),
                // Atomic ones.
                (_, _, 0b00) => 0,
                (_, _, 0b10) => index(word, &x)? << (bits(12, 1) * scale),
                _ => return None,
            };
            (offset, 1 << scale)
        }
        _ => return None,
    };
    (size <= 64).then(|| Span::new(base.wrapping_add_signed(offset), size))
}

/// A register offset: Rm (20:16), extended as option (15:13) says.
fn index(word: u32, x: impl Fn(u32) -> Option<u64>) -> Option<i64> {
    let value = match word >> 16 & 0x1f {
        SP => 0,
        register => x(register)?,
    };
    Some(match word >> 13 & 7 {
        0b010 => i64::from(value as u32),
        0b110 => i64::from(value as u32 as i32),
        _ => value.cast_signed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Register `n` has `0x1000 * n`, but x9, which is negative as 32 bits.
    fn registers(number: u32) -> Option<u64> {
        Some(if number == 9 {
            0xffff_fff0
        } else {
            0x1000 * u64::from(number)
        })
    }

    #[test]
    fn accesses_of_each_kind() {
        for (word, text, start, size) in [
            (0xf900_0020, "str x0, [x1]", 0x1000, 8),
            (0xb940_0841, "ldr w1, [x2, #8]", 0x2008, 4),
            (0x3900_07e1, "strb w1, [sp, #1]", 0x1_f001, 1),
            (0xf81f_8c41, "str x1, [x2, #-8]!", 0x1ff8, 8),
            (0xf800_8441, "str x1, [x2], #8", 0x2000, 8),
            (0xf85f_c041, "ldur x1, [x2, #-4]", 0x1ffc, 8),
            (0xf823_6841, "str x1, [x2, x3]", 0x5000, 8),
            (0xf823_7841, "str x1, [x2, x3, lsl #3]", 0x1_a000, 8),
            (0xb829_d841, "str w1, [x2, w9, sxtw #2]", 0x1fc0, 4),
            (0xf83f_6841, "str x1, [x2, xzr]", 0x2000, 8),
            (0xa901_0861, "stp x1, x2, [x3, #16]", 0x3010, 16),
            (0xa9bf_7bfd, "stp x29, x30, [sp, #-16]!", 0x1_eff0, 16),
            (0xa8c1_7bfd, "ldp x29, x30, [sp], #16", 0x1_f000, 16),
            (0x2900_8861, "stp w1, w2, [x3, #4]", 0x3004, 8),
            (0xad00_0440, "stp q0, q1, [x2]", 0x2000, 32),
            (0x3d80_0440, "str q0, [x2, #16]", 0x2010, 16),
            (0x885f_fc41, "ldaxr w1, [x2]", 0x2000, 4),
            (0xc89f_fc41, "stlr x1, [x2]", 0x2000, 8),
            (0xb821_0041, "ldadd w1, w1, [x2]", 0x2000, 4),
        ] {
            let found = accessed(word, registers);
            assert_eq!(found, Some(Span::new(start, size)), "{text}");
        }
        for (word, text) in [
            (0xd503_201f, "nop"),
            (0x8b02_0020, "add x0, x1, x2"),
            (0x1400_0001, "b"),
            (0x5800_0041, "ldr x1, pc + 8"),
            (0xd503_207f, "wfi"),
        ] {
            assert_eq!(accessed(word, registers), None, "{text}");
        }
        assert_eq!(accessed(0xf900_0020, |_| None), None);
    }

    #[test]
    fn no_word_is_too_much() {
        for word in (0..u32::MAX).step_by(4099) {
            accessed(word, |number| Some(u64::MAX - u64::from(number)));
        }
    }
}
