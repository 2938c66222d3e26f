use super::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const NAMES: &[&str] = &[
    "VTTBR_EL2",
    "VTCR_EL2",
    "TTBR0_EL2",
    "TTBR1_EL2",
    "TCR_EL2",
    "MAIR_EL2",
    "HCR_EL2",
    "SCTLR_EL2",
    "VBAR_EL2",
    "HPFAR_EL2",
    "FAR_EL2",
    "ELR_EL2",
    "TPIDR_EL2",
    "SPSR_EL2",
    "cpsr",
    "ESR_EL2",
    "ESR_EL1",
];

/// `name meaning` of every field that is not zero.
fn lines(name: &str, value: u64, e2h: bool) -> Vec<String> {
    fields(name, value, e2h)
        .unwrap()
        .iter()
        .filter(|field| field.value != 0)
        .map(|field| format!("{} {}", field.name, field.meaning))
        .collect()
}

#[test]
fn hyps_own_values() {
    assert_eq!(
        lines("VTCR_EL2", 0x8005_3558, false),
        [
            "RES1 reserved, is 1",
            "PS 48 bits of output address",
            "SH0 walks: shareability inner",
            "ORGN0 walks are write-back, allocating",
            "IRGN0 walks are write-back, allocating",
            "SL0 start level 1 with 4K, 2 with 16K and 64K",
            "T0SZ 40 bits of input address",
        ]
    );
    assert_eq!(
        lines("VTTBR_EL2", 0x0003_0000_4800_0001, false),
        [
            "VMID VMID 3",
            "BADDR 0x48000000",
            "CnP tables shared with other CPUs (FEAT_TTCNP)",
        ]
    );
    assert_eq!(
        lines("MAIR_EL2", 0x04ff, false),
        ["Attr1 device-nGnRE", "Attr0 normal-wb"]
    );
    assert_eq!(
        lines("HCR_EL2", 1 << 31 | 1 << 19 | 1, false),
        ["RW EL1 is AArch64", "TSC traps SMC", "VM stage 2 on",]
    );
    assert_eq!(lines("HPFAR_EL2", 0x4_8000, false), ["FIPA 0x4800000"]);
    assert_eq!(
        lines("VBAR_EL2", 0x40_4020_0800, false),
        ["VBA 0x4040200800"]
    );
}

#[test]
fn tcr_by_format() {
    let nvhe = lines("TCR_EL2", 0x8085_3519, false);
    assert!(
        nvhe.contains(&"PS 48 bits of output address".to_owned()),
        "{nvhe:#?}"
    );
    let vhe = lines("TCR_EL2", 1 << 59 | 6 << 32 | 12, true);
    assert_eq!(
        vhe,
        [
            "DS 52-bit descriptors (FEAT_LPA2)",
            "IPS 52 bits of output address",
            "T0SZ 52 bits of input address",
        ]
    );
}

#[test]
fn pstate_in_one_line() {
    assert_eq!(pstate(0x6000_03c9), "EL2h DAIF -ZC-");
    assert_eq!(pstate(0x5), "EL1h ---- ----");
    assert_eq!(lines("cpsr", 0x3c9, false)[4], "M EL2h");
}

#[test]
fn reserved_bits_that_are_set_are_listed() {
    assert_eq!(
        lines("VTCR_EL2", 1 << 63, false),
        ["RES0 reserved, should be 0"]
    );
}

#[test]
fn registers_without_a_table() {
    assert_eq!(fields("MIDR_EL1", 0, false), None);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        rng_seed: RngSeed::Fixed(3),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Every set bit of every register belongs to exactly one field, and the fields stand in order.
    #[test]
    fn no_bit_is_left_out(
        name in prop::sample::select(NAMES),
        value in any::<u64>(),
        e2h in any::<bool>(),
    ) {
        let fields = fields(name, value, e2h).unwrap();
        let mut seen = 0;
        let mut back = 0;
        for field in &fields {
            prop_assert_eq!(seen & field.mask(), 0, "{} overlaps in {}", field, name);
            prop_assert!(!field.meaning.is_empty(), "{}", field);
            seen |= field.mask();
            back |= field.value << field.low;
        }
        prop_assert_eq!(back, value);
        prop_assert!(fields.is_sorted_by(|a, b| a.low > b.high), "{}: {:#?}", name, fields);
    }
}
