use super::*;
use crate::arch::regime::{El2Stage1, Granule, IdRegisters, Regime, Stage};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn stage2() -> Regime {
    Regime::stage2_at(0x4800_0000, 0x8005_3558, 0, IdRegisters::default()).unwrap()
}

fn stage1() -> Regime {
    let registers = El2Stage1 {
        tcr: 5 << 16 | 25,
        mair: 0x04ff,
        hcr: 0,
        sctlr: 0,
    };
    Regime::el2_stage1_at(0x4900_0000, registers, IdRegisters::default()).unwrap()
}

/// `name[bits] meaning` of every field.
fn lines(regime: &Regime, level: i8, word: u64) -> Vec<String> {
    descriptor(regime, level, word)
        .iter()
        .map(|field| format!("{}[{}] {}", field.name, field.bits(), field.meaning))
        .collect()
}

#[test]
fn a_stage2_page() {
    assert_eq!(
        lines(&stage2(), 3, 0x0080_0000_4800_07ff),
        [
            "ignored[63] ignored by the walker",
            "PBHA[62:59] page-based hardware attributes, or ignored",
            "SW[58:55] for software: 0b0001",
            "XN[54:53] executable at EL1 and EL0",
            "Contiguous[52] stands alone",
            "DBM[51] dirty state not managed",
            "OA[47:12] 0x48000000",
            "FnXS[11] XS as stage 1 says",
            "AF[10] accessed",
            "SH[9:8] inner shareable",
            "S2AP[7:6] read and write",
            "MemAttr[5:2] normal-wb",
            "type[1] page",
            "valid[0] valid",
        ]
    );
}

#[test]
fn a_stage1_page_with_reserved_bits() {
    let lines = lines(&stage1(), 3, 1 << 48 | 0x4800_0703);
    for line in [
        "RES0[49:48] reserved, should be 0",
        "XN[54] executable",
        "AP[1][6] reserved, should be 1",
        "AttrIndx[4:2] normal-wb (MAIR_EL2 Attr0)",
    ] {
        assert!(lines.iter().any(|l| l == line), "{line} in {lines:#?}");
    }
}

#[test]
fn words_that_are_no_leaf() {
    assert_eq!(
        lines(&stage2(), 3, 0x2000_0000_0000_0002),
        [
            "ignored[63:59] for software: not looked at by the walker",
            "SW[58:55] for software: 0b0000",
            "ignored[54:1] for software: not looked at by the walker",
            "valid[0] invalid: a walk ends here in a translation fault",
        ]
    );
    let table = lines(&stage2(), 2, 0x4810_1003);
    assert!(
        table.contains(&"next table[47:12] 0x48101000".to_owned()),
        "{table:#?}"
    );
    let reserved = lines(&stage2(), 3, 0x4000_0001);
    assert!(reserved.contains(&"type[1] reserved at this level: behaves as invalid".to_owned()));
}

#[test]
fn split_addresses() {
    let lpa2 = Regime {
        lpa2: true,
        oa_bits: 52,
        ..stage2()
    };
    let lines = lines(&lpa2, 3, 0x0002_0000_4000_0303 | 0x400);
    assert!(
        lines.contains(&"OA[49:12] 0x2000040000000".to_owned()),
        "{lines:#?}"
    );
    assert!(lines.contains(&"OA[51:50][9:8] 0xc000000000000".to_owned()));
}

#[test]
fn runs_of_bits() {
    let found: Vec<_> = runs(0xf000_0000_0000_0071).collect();
    assert_eq!(found, [(0, 0), (6, 4), (63, 60)]);
    assert_eq!(runs(u64::MAX).collect::<Vec<_>>(), [(63, 0)]);
}

prop_compose! {
    fn any_regime()(
        stage in prop::sample::select(vec![
            Stage::Two,
            Stage::One { e2h: false },
            Stage::One { e2h: true },
        ]),
        granule in prop::sample::select(vec![Granule::Kib4, Granule::Kib16, Granule::Kib64]),
        wide in any::<bool>(),
        fwb in any::<bool>(),
        xnx in any::<bool>(),
        mair in any::<u64>(),
    ) -> Regime {
        Regime {
            stage,
            granule,
            lpa2: wide && granule != Granule::Kib64,
            oa_bits: if wide { 52 } else { 48 },
            fwb,
            xnx,
            mair,
            ..stage2()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        rng_seed: RngSeed::Fixed(2),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Nothing is silently dropped: the fields do not overlap, stand in order, give back every set
    /// bit of the word, and agree with the decoder about reserved ones.
    #[test]
    fn every_set_bit_belongs_to_one_field(
        regime in any_regime(),
        level in -1..=3i8,
        word in any::<u64>(),
        low in 0..4u64,
    ) {
        let word = word & !3 | low;
        let fields = descriptor(&regime, level, word);
        let mut seen = 0;
        let mut back = 0;
        for field in &fields {
            prop_assert_eq!(seen & field.mask(), 0, "{} overlaps in {:#?}", field, fields);
            prop_assert!(!field.meaning.is_empty(), "{}", field);
            seen |= field.mask();
            back |= field.value << field.low;
        }
        prop_assert_eq!(back, word);
        prop_assert!(fields.is_sorted_by(|a, b| a.low > b.high));

        let res0: u64 = fields.iter().filter(|f| f.name == "RES0").map(|f| f.value << f.low).sum();
        let decoded = crate::arch::desc::decode(&regime, level, word);
        if let Some(crate::arch::desc::Fault::Res0(bits)) = decoded.fault {
            prop_assert_eq!(res0, bits, "{:#?}", fields);
        } else if decoded.fault.is_none() {
            prop_assert_eq!(res0, 0, "{:#?}", fields);
        }
    }
}
