//! A64 instructions that are not like others to step over.

/// Whether an instruction reads or writes PSTATE.I: MRS and MSR of DAIF, MSR DAIFSet and DAIFClr, ERET and exceptions.
pub fn notices_masks(instruction: u32) -> bool {
    instruction & 0xffdf_ffe0 == 0xd51b_4220
        || instruction & 0xffff_f0df == 0xd503_40df
        || instruction & 0xffff_f000 == 0xd69f_0000
        || instruction & 0xff00_0000 == 0xd400_0000
}

/// Where the attempt begins that a store-exclusive at `pc` ends: the load-exclusive to which CBNZ leads back when the store
/// fails. `fetch` gives the instruction at an address. `None` where `pc` is not at such a store.
pub fn begin_of_attempt(fetch: impl Fn(u64) -> Option<u32>, pc: u64) -> Option<u64> {
    let (store, next) = (fetch(pc)?, pc.wrapping_add(4));
    let retry = fetch(next)?;
    // STXR and STLXR: size in bits 31:30, status register in 20:16, address register in 9:5.
    let is_store = store & 0x3fe0_7c00 == 0x0800_7c00;
    // CBNZ of that status register: register in bits 4:0, offset in words in bits 23:5.
    let is_retry = retry & 0x7f00_001f == 0x3500_0000 | store >> 16 & 0x1f;
    let offset = (retry << 8).cast_signed() >> 13;
    let begin = next.wrapping_add_signed(i64::from(offset) * 4);
    // LDXR and LDAXR of the same size and address register.
    let load = 0x085f_7c00 | store & 0xc000_03e0;
    (is_store && is_retry && fetch(begin)? & 0xffff_7fe0 == load).then_some(begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_that_notice_masks_are_known() {
        for (instruction, notices) in [
            (0xd53b_4220, true),  // mrs x0, daif
            (0xd51b_422f, true),  // msr daif, x15
            (0xd503_42df, true),  // msr daifset, #2
            (0xd503_4fff, true),  // msr daifclr, #15
            (0xd69f_03e0, true),  // eret
            (0xd400_0002, true),  // hvc #0
            (0xd420_0000, true),  // brk #0
            (0xd53b_4200, false), // mrs x0, nzcv
            (0xd503_207f, false), // wfi
            (0xd65f_03c0, false), // ret
            (0xf940_0000, false), // ldr x0, [x0]
        ] {
            assert_eq!(notices_masks(instruction), notices, "{instruction:#x}");
        }
    }

    const PC: u64 = 0x4020_1000;
    const LOAD: u32 = 0x885f_ff48; // ldaxr w8, [x26]
    const ADD: u32 = 0x1140_4109; // add w9, w8, #0x10, lsl #12
    const STORE: u32 = 0x880a_7f49; // stxr w10, w9, [x26]
    const RETRY: u32 = 0x35ff_ffaa; // cbnz w10, three instructions back

    fn begin(code: [u32; 4], pc: u64) -> Option<u64> {
        let fetch = |va: u64| code.get((va.checked_sub(PC)? / 4) as usize).copied();
        begin_of_attempt(fetch, pc)
    }

    #[test]
    fn a_store_exclusive_leads_back_to_its_load() {
        let store = PC + 8;
        assert_eq!(begin([LOAD, ADD, STORE, RETRY], store), Some(PC));
        // STLXR, and LDXR, of 64 bits.
        let wide = [0xc85f_7f48, ADD, 0xc80a_ff49, RETRY];
        assert_eq!(begin(wide, store), Some(PC));
        for pc in [PC, PC + 4, PC + 12, PC + 16, 0, u64::MAX - 3] {
            assert_eq!(begin([LOAD, ADD, STORE, RETRY], pc), None, "{pc:#x}");
        }
    }

    #[test]
    fn what_only_looks_like_an_attempt_is_none() {
        for code in [
            // Another size, and another address register.
            [0xc85f_ff48, ADD, STORE, RETRY],
            [0x885f_ff28, ADD, STORE, RETRY],
            // An ordinary load, an ordinary store, a pair.
            [0xb940_0348, ADD, STORE, RETRY],
            [LOAD, ADD, 0xb900_0349, RETRY],
            [LOAD, ADD, 0x882a_2749, RETRY],
            // CBZ, CBNZ of another register, to another place, to where nothing is.
            [LOAD, ADD, STORE, 0x34ff_ffaa],
            [LOAD, ADD, STORE, 0x35ff_ffab],
            [LOAD, ADD, STORE, 0x35ff_ffca],
            [LOAD, ADD, STORE, 0x3500_004a],
        ] {
            assert_eq!(begin(code, PC + 8), None, "{code:x?}");
        }
    }
}
