use super::*;
use proptest::prelude::*;

const SEVL: u32 = 0xd503_20bf;
const WFE: u32 = 0xd503_205f;
/// `ldaxrh w2, [x3]`, `eor w1, w2, w0, lsr #16` and `cbnz w1` three back, as Linux 7.3 has them.
const LOOP: [u32; 3] = [0x485f_fc62, 0x4a40_4041, 0x35ff_ffa1];

#[test]
fn a_cpu_waits_wherever_it_stands_in_the_loop() {
    let nop = 0xd503_201f;
    let code = [&[nop, nop, SEVL, WFE], &LOOP[..], &[nop, nop]].concat();
    for at in 0..code.len() {
        let waits = (2..=6).contains(&at);
        assert_eq!(spin_loop(&code, at), waits.then_some((3, 0)), "{at}");
    }
    // Cut off where the page begins, and where it ends.
    assert_eq!(spin_loop(&code[3..], 3), Some((3, 0)));
    assert_eq!(spin_loop(&code[..6], 4), None);
}

#[test]
fn other_loops_are_not_taken_for_it() {
    for (at, word) in [
        // ldxrh, another shift, a register that was not loaded, a branch elsewhere, no wfe.
        (1, 0x485f_7c62),
        (2, 0x4a40_3c41),
        (2, 0x4a40_4081),
        (3, 0x35ff_ff81),
        (3, 0x35ff_ffa2),
        (0, SEVL),
    ] {
        let mut code = [WFE, LOOP[0], LOOP[1], LOOP[2]];
        code[at] = word;
        assert_eq!(spin_loop(&code, 1), None, "{word:#x}");
    }
}

proptest! {
    #[test]
    fn any_code_is_looked_at(code in proptest::collection::vec(any::<u32>(), 0..12), at in 0..16_usize) {
        prop_assert_eq!(spin_loop(&code, at), None);
    }
}
