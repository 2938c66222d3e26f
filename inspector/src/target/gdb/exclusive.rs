//! Load-exclusive to store-exclusive: instructions that a step must not part.
//!
//! A CPU that debugs itself takes an exception at each step, after which the store-exclusive fails: stepped one by one,
//! such a sequence never ends. hyp's channel works so; QEMU does not.

/// The most instructions looked at: no compiler makes longer sequences.
pub(super) const LONGEST: usize = 16;

/// Where a CPU at `pc` gets out of the sequence that begins there: behind the store, and where branches before it lead.
/// Nothing where `code`, the instructions from `pc` on, begins with none.
pub(super) fn ways_out(code: &[u32], pc: u64) -> Vec<u64> {
    // Exclusive accesses: 001000 in bits 29:24, o2 (23) 0, a load when L (22) is 1. o1 (21) is a pair, or CASP where bit 31
    // is 0.
    let kind = |instruction: u32| {
        let casp = instruction >> 21 & 1 == 1 && instruction >> 31 == 0;
        (instruction & 0x3f80_0000 == 0x0800_0000 && !casp).then_some(instruction >> 22 & 1)
    };
    let at = |index: usize| pc.wrapping_add(4 * index as u64);
    let mut ways = Vec::new();
    if code.first().and_then(|first| kind(*first)) != Some(1) {
        return ways;
    }
    for (index, &instruction) in code.iter().enumerate().take(LONGEST).skip(1) {
        if kind(instruction) == Some(0) {
            ways.push(at(index + 1));
            // A branch inside the sequence does not lead out.
            ways.retain(|way| !(pc..=at(index)).contains(way));
            return ways;
        }
        ways.extend(branch(instruction, at(index)));
        // B and BL are x00101 in bits 31:26; BR, BLR, RET and ERET 1101011 in bits 31:25.
        let leaves = instruction & 0x7c00_0000 == 0x1400_0000 || instruction >> 25 == 0x6b;
        if leaves {
            break;
        }
    }
    Vec::new()
}

/// Where a conditional branch leads.
fn branch(instruction: u32, at: u64) -> Option<u64> {
    let offset =
        |bits: u32| i64::from((instruction << (27 - bits)).cast_signed() >> (32 - bits) << 2);
    let offset = match instruction >> 24 & 0x7f {
        // B.cond: the upper bit is 0. CBZ and CBNZ: either.
        0x54 | 0x34 | 0x35 => offset(19),
        // TBZ and TBNZ.
        0x36 | 0x37 => offset(14),
        _ => return None,
    };
    Some(at.wrapping_add_signed(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PC: u64 = 0x4020_1000;
    const LOAD: u32 = 0x885f_ff48; // ldaxr w8, [x26]
    const ADD: u32 = 0x1140_4109; // add w9, w8, #0x10, lsl #12
    const STORE: u32 = 0x880a_7f49; // stxr w10, w9, [x26]

    #[test]
    fn a_sequence_ends_behind_its_store_or_where_it_is_left() {
        let cases: [(&[u32], &[u64]); 10] = [
            (&[LOAD, ADD, STORE], &[PC + 12]),
            // ldxr x8, [x0]; stlxr w1, x2, [x0]
            (&[0xc85f_7c08, 0xc801_fc02], &[PC + 8]),
            // ldaxp x8, x9, [x0]; stlxp w1, x2, x3, [x0]
            (&[0xc87f_a408, 0xc821_8c02], &[PC + 8]),
            // b.ne +0x20, then cbnz w8 -8: out in front
            (
                &[LOAD, 0x5400_0101, 0x35ff_ffc8, STORE],
                &[PC + 0x24, PC + 16],
            ),
            // tbz w8, #0, +12: out; cbz x8, +4: no way out
            (&[LOAD, 0x3600_0068, STORE], &[PC + 16, PC + 12]),
            (&[LOAD, 0xb400_0028, STORE], &[PC + 12]),
            // No store, a branch first, a return first, and no load.
            (&[LOAD, ADD, ADD], &[]),
            (&[LOAD, 0x1400_0002, STORE], &[]),
            (&[LOAD, 0xd65f_03c0, STORE], &[]),
            (&[ADD, LOAD, STORE], &[]),
        ];
        for (code, expected) in cases {
            assert_eq!(ways_out(code, PC), expected, "{code:x?}");
        }
        assert_eq!(ways_out(&[], PC), [0; 0]);
        // casp x0, x1, x2, x3, [x4], which is whole.
        assert_eq!(ways_out(&[0x4820_7c82, STORE], PC), [0; 0]);
        let long = [[LOAD; 1].as_slice(), &[ADD; LONGEST], &[STORE]].concat();
        assert_eq!(ways_out(&long, PC), [0; 0]);
    }
}
