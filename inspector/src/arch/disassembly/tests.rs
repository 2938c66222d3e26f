use super::*;
use proptest::prelude::*;
use yaxpeax_arm::armv8::a64::Opcode;

const HERE: u64 = 0x40_4020_1000;

fn text(word: u32) -> String {
    disassemble(word, HERE, false, |_| None).to_string()
}

#[test]
fn instructions_read_as_the_assembler_writes_them() {
    for (word, expected) in [
        (0xa9bf_7bfd, "stp x29, x30, [sp, #-0x10]!"),
        (0x9100_03fd, "mov x29, sp"),
        (0x1400_02e1, "b 0x4040201b84"),
        (0x97ff_ffff, "bl 0x4040200ffc"),
        (0x5400_00a1, "b.ne 0x4040201014"),
        (0xb400_036a, "cbz x10, 0x404020106c"),
        (0x3727_fde3, "tbnz w3, #0x4, 0x4040200fbc"),
        (0x5800_051e, "ldr x30, 0x40402010a0"),
        (0x90ff_ffe4, "adrp x4, 0x40401fd000"),
        (0x1000_0061, "adr x1, 0x404020100c"),
        (0x8b2c_450d, "add x13, x8, w12, uxtw #1"),
        (0xeb36_401f, "cmp x0, w22, uxtw"),
        // Atomics (FEAT_LSE) and pointer authentication.
        (0xf820_003f, "stadd x0, [x1]"),
        (0xc8e0_fc41, "casal x0, x1, [x2]"),
        (0xdac1_03e0, "pacia x0, sp"),
        (0xd65f_0bff, "retaa"),
        (0x5500_005f, "retaasppc 0x4040200ff8"),
        (0xd69f_0bff, "eretaa"),
        (0xd503_233f, "paciasp"),
        // What is about the system.
        (0xd503_201f, "nop"),
        (0xd503_245f, "bti c"),
        (0xd503_22df, "clearbhb"),
        (0xd503_24ff, "hint #0x27"),
        (0xd503_3fdf, "isb"),
        (0xd503_4fdf, "msr daifset, #0xf"),
        (0xd503_1007, "wfet x7"),
        (0xd51c_1101, "msr hcr_el2, x1"),
        (0xd51c_d05f, "msr tpidr_el2, xzr"),
        (0xd53c_5209, "mrs x9, esr_el2"),
        (0xd53c_ccc0, "mrs x0, ich_lr6_el2"),
        (0xd53f_f123, "mrs x3, s3_7_c15_c1_1"),
        (0xd50c_871f, "tlbi alle2"),
        (0xd50c_8025, "tlbi ipas2e1is, x5"),
        (0xd50c_97df, "tlbi vmalls12e1nxs"),
        (0xd508_751f, "ic iallu"),
        (0xd50b_7e20, "dc civac, x0"),
        (0xd50c_7880, "at s12e1r, x0"),
        (0xd508_0000, "sys #0, c0, c0, #0, x0"),
        // What is not decoded.
        (0x8580_4060, ".inst 0x85804060  ; SVE"),
        (0xffff_af7c, ".inst 0xffffaf7c"),
        (0x0100_2be5, ".inst 0x01002be5"),
    ] {
        assert_eq!(text(word), expected, "{word:#010x}");
    }
}

#[test]
fn under_e2h_the_register_accessed_is_named() {
    for (word, expected) in [
        (0xd538_5200, "mrs x0, esr_el1  ; ESR_EL2 (E2H)"),
        (0xd53d_5200, "mrs x0, esr_el12  ; ESR_EL1 (E2H)"),
        (0xd518_1040, "msr cpacr_el1, x0  ; CPTR_EL2 (E2H)"),
        (0xd53b_e220, "mrs x0, cntp_ctl_el0  ; CNTHP_CTL_EL2 (E2H)"),
        (0xd53d_e320, "mrs x0, cntv_ctl_el02  ; CNTV_CTL_EL0 (E2H)"),
        (0xd518_a220, "msr mair2_el1, x0  ; MAIR2_EL2 (E2H)"),
        (0xd53c_5200, "mrs x0, esr_el2"),
        (0xd538_d080, "mrs x0, tpidr_el1"),
        (0xd538_7400, "mrs x0, par_el1"),
    ] {
        let shown = disassemble(word, HERE, true, |_| None).to_string();
        assert_eq!(shown, expected);
        let without = expected.split("  ;").next().unwrap_or_default();
        assert_eq!(text(word), without);
    }
}

#[test]
fn addresses_are_named() {
    let name = |address| (address == 0x40_4020_0ffc).then(|| "map+0x1c".to_owned());
    let shown = |word| disassemble(word, HERE, false, name).text;
    assert_eq!(shown(0x97ff_ffff), "bl 0x4040200ffc <map+0x1c>");
    assert_eq!(shown(0x9400_0001), "bl 0x4040201004");
}

#[test]
fn flow_and_targets() {
    let branch = |target, conditional| Flow::Branch {
        target,
        conditional,
    };
    for (word, expected) in [
        (0x1400_02e1, branch(Some(HERE + 0xb84), false)),
        (
            0x97ff_ffff,
            Flow::Call {
                target: Some(HERE - 4),
            },
        ),
        (0x5400_00a1, branch(Some(HERE + 0x14), true)),
        (0x5400_00ae, branch(Some(HERE + 0x14), false)),
        (0x3727_fde3, branch(Some(HERE - 0x44), true)),
        (0xd61f_0020, branch(None, false)),
        (0xd63f_0100, Flow::Call { target: None }),
        (0xd73f_0911, Flow::Call { target: None }),
        (0xd65f_03c0, Flow::Return),
        (0xd65f_0bff, Flow::Return),
        (0x5500_005f, Flow::Return),
        (0xd69f_03e0, Flow::ExceptionReturn),
        (0xd69f_0bff, Flow::ExceptionReturn),
        (0xd69f_0fff, Flow::ExceptionReturn),
        (0xd400_0002, Flow::Exception),
        (0x0000_0000, Flow::Exception),
        (0x1000_0061, Flow::Next),
        (0x5800_051e, Flow::Next),
    ] {
        assert_eq!(flow(word, HERE), expected, "{word:#010x}");
    }
}

#[test]
fn names_are_unique() {
    let mut known = std::collections::BTreeMap::new();
    for number in 0..1_u32 << 15 {
        let word = 0xd530_0000 | number << 5;
        let shown = text(word);
        let name = shown.rsplit(' ').next().unwrap_or_default().to_owned();
        assert_eq!(known.insert(name.clone(), word), None, "{name}");
    }
}

/// What the library says of the same word.
fn library(word: u32) -> Option<Flow> {
    let bytes = word.to_le_bytes();
    let decoded = InstDecoder::default().decode(&mut U8Reader::new(&bytes));
    let branch = |conditional| Flow::Branch {
        target: None,
        conditional,
    };
    Some(match decoded.ok()?.opcode {
        Opcode::UDF if word >> 16 != 0 => Flow::Next,
        Opcode::B | Opcode::BR | Opcode::BRAA | Opcode::BRAB | Opcode::BRAAZ | Opcode::BRABZ => {
            branch(false)
        }
        Opcode::Bcc(condition) | Opcode::BCcc(condition) => branch(condition < 14),
        Opcode::CBZ | Opcode::CBNZ | Opcode::TBZ | Opcode::TBNZ => branch(true),
        Opcode::BL
        | Opcode::BLR
        | Opcode::BLRAA
        | Opcode::BLRAB
        | Opcode::BLRAAZ
        | Opcode::BLRABZ => Flow::Call { target: None },
        Opcode::RET
        | Opcode::RETAA
        | Opcode::RETAB
        | Opcode::RETAASPPC
        | Opcode::RETABSPPC
        | Opcode::RETAASPPCR
        | Opcode::RETABSPPCR => Flow::Return,
        Opcode::ERET | Opcode::ERETAA | Opcode::ERETAB => Flow::ExceptionReturn,
        Opcode::SVC
        | Opcode::HVC
        | Opcode::SMC
        | Opcode::BRK
        | Opcode::HLT
        | Opcode::DCPS1
        | Opcode::DCPS2
        | Opcode::DCPS3
        | Opcode::UDF => Flow::Exception,
        _ => Flow::Next,
    })
}

/// Disassembles, and holds the flow against the library's opinion where it has one.
fn check(word: u32) {
    let shown = disassemble(word, HERE, word & 1 != 0, |_| None);
    assert!(!shown.text.contains('$'), "{word:#010x}: {shown}");
    let without_target = match shown.flow {
        Flow::Call { .. } => Flow::Call { target: None },
        Flow::Branch { conditional, .. } => Flow::Branch {
            target: None,
            conditional,
        },
        other => other,
    };
    if let Some(expected) = library(word) {
        assert_eq!(without_target, expected, "{word:#010x}: {shown}");
    }
}

#[test]
fn words_all_over_the_space_are_read() {
    (0..=u32::MAX).step_by(16_411).for_each(check);
    // Branches by register and the system are small corners.
    (0xd400_0000..=0xd7ff_ffff).step_by(521).for_each(check);
}

proptest! {
    #[test]
    fn no_word_panics(words in proptest::collection::vec(any::<u32>(), 256), address in any::<u64>()) {
        for word in words {
            check(word);
            disassemble(word, address, false, |_| None);
        }
    }
}
