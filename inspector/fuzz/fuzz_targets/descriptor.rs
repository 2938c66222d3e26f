//! Any word at any level of any regime: no panic, and every set bit belongs to one field.
#![no_main]

use inspector::arch::regime::{El2Stage1, IdRegisters, Regime};
use inspector::arch::{desc, esr, fields, sysreg};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, u64, u64, u64)| {
    let (base, control, hcr, word) = input;
    let id = IdRegisters::default();
    let registers = El2Stage1 {
        tcr: control,
        mair: word,
        hcr,
        sctlr: 0,
    };
    let regimes = [
        Regime::stage2(base, control, hcr, id),
        Regime::el2_stage1(base, registers, id),
    ];
    for regime in regimes.into_iter().flatten() {
        for level in regime.start_level..=3 {
            desc::decode(&regime, level, word);
            covers(&fields::descriptor(&regime, level, word), word);
        }
    }
    for name in ["VTTBR_EL2", "VTCR_EL2", "TCR_EL2", "HCR_EL2", "SCTLR_EL2", "cpsr"] {
        covers(&sysreg::fields(name, word, hcr & 1 != 0).unwrap(), word);
    }
    covers(&esr::fields(word), word);
    esr::describe(word);
});

fn covers(fields: &[fields::Field], word: u64) {
    let back = fields.iter().fold(0, |bits, field| bits | field.value << field.low);
    assert_eq!(back, word, "{fields:#?}");
}
