//! Register layouts against arm-sysregs, which is generated from Arm's machine-readable description.

use arm_sysregs::el2::registers::{
    EsrEl2, HcrEl2, HpfarEl2, SctlrEl2, SpsrEl2, TcrEl2, VtcrEl2, VttbrEl2,
};
use inspector::arch::esr;
use inspector::arch::fields::Field;
use inspector::arch::regime::{El2Stage1, IdRegisters, Regime, vmid};
use inspector::arch::sysreg;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Single bits that arm-sysregs names and our tables call otherwise, and why.
const OTHERWISE: &[(&str, &str, &str)] = &[
    ("SPSR_EL2", "M_4", "part of M"),
    ("SPSR_EL2", "T", "AArch32 only"),
    ("SPSR_EL2", "E", "AArch32 only"),
    ("SPSR_EL2", "BTYPE2", "not decoded: a newer extension's bit"),
    ("SPSR_EL2", "Q", "AArch32 only"),
];

/// Every bit that `bits` names must be the field of that name and place in one of the formats.
fn check_bits(register: &str, bits: impl Iterator<Item = (&'static str, u64)>) {
    let mut checked = 0;
    for (name, bit) in bits.filter(|(_, bit)| bit.is_power_of_two()) {
        if OTHERWISE
            .iter()
            .any(|(r, n, _)| (*r, *n) == (register, name))
        {
            continue;
        }
        let found = [false, true].into_iter().any(|e2h| {
            sysreg::fields(register, bit, e2h)
                .unwrap()
                .iter()
                .any(|field| field.mask() == bit && field.name.eq_ignore_ascii_case(name))
        });
        assert!(found, "{register}.{name}, bit {}", bit.trailing_zeros());
        checked += 1;
    }
    assert!(checked > 0, "{register} has no named bits");
}

#[test]
fn single_bits() {
    check_bits(
        "VTCR_EL2",
        VtcrEl2::all().iter_names().map(|(n, f)| (n, f.bits())),
    );
    check_bits(
        "TCR_EL2",
        TcrEl2::all().iter_names().map(|(n, f)| (n, f.bits())),
    );
    check_bits(
        "HCR_EL2",
        HcrEl2::all().iter_names().map(|(n, f)| (n, f.bits())),
    );
    check_bits(
        "SCTLR_EL2",
        SctlrEl2::all().iter_names().map(|(n, f)| (n, f.bits())),
    );
    check_bits(
        "SPSR_EL2",
        SpsrEl2::all().iter_names().map(|(n, f)| (n, f.bits())),
    );
    check_bits(
        "VTTBR_EL2",
        VttbrEl2::all().iter_names().map(|(n, f)| (n, f.bits())),
    );
    check_bits(
        "HPFAR_EL2",
        HpfarEl2::all().iter_names().map(|(n, f)| (n, f.bits())),
    );
    check_bits(
        "ESR_EL2",
        EsrEl2::all().iter_names().map(|(n, f)| (n, f.bits())),
    );
}

fn value(fields: &[Field], name: &str) -> u64 {
    fields
        .iter()
        .find(|field| field.name == name)
        .unwrap()
        .value
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn fields_of_several_bits(word in any::<u64>()) {
        let vtcr = VtcrEl2::from_bits_retain(word);
        let fields = sysreg::fields("VTCR_EL2", word, false).unwrap();
        for (name, expected) in [
            ("T0SZ", vtcr.t0sz()),
            ("SL0", vtcr.sl0()),
            ("IRGN0", vtcr.irgn0()),
            ("ORGN0", vtcr.orgn0()),
            ("SH0", vtcr.sh0()),
            ("TG0", vtcr.tg0()),
            ("PS", vtcr.ps()),
        ] {
            prop_assert_eq!(value(&fields, name), u64::from(expected), "VTCR_EL2.{}", name);
        }

        let tcr = TcrEl2::from_bits_retain(word);
        let vhe = sysreg::fields("TCR_EL2", word, true).unwrap();
        for (name, expected) in [
            ("T0SZ", tcr.t0sz()), ("IRGN0", tcr.irgn0()), ("ORGN0", tcr.orgn0()),
            ("SH0", tcr.sh0()), ("TG0", tcr.tg0()), ("T1SZ", tcr.t1sz()), ("IRGN1", tcr.irgn1()),
            ("ORGN1", tcr.orgn1()), ("SH1", tcr.sh1()), ("TG1", tcr.tg1()), ("IPS", tcr.ips()),
        ] {
            prop_assert_eq!(value(&vhe, name), u64::from(expected), "TCR_EL2.{}", name);
        }
        let nvhe = sysreg::fields("TCR_EL2", word, false).unwrap();
        prop_assert_eq!(value(&nvhe, "PS"), u64::from(tcr.ps()));

        let vttbr = VttbrEl2::from_bits_retain(word);
        let fields = sysreg::fields("VTTBR_EL2", word, false).unwrap();
        prop_assert_eq!(value(&fields, "VMID"), u64::from(vttbr.vmid()));
        prop_assert_eq!(value(&fields, "BADDR"), vttbr.baddr());
        prop_assert_eq!(vmid(word), vttbr.vmid());

        let syndrome = EsrEl2::from_bits_retain(word);
        let fields = esr::fields(word);
        prop_assert_eq!(value(&fields, "EC"), u64::from(syndrome.ec()));
        prop_assert_eq!(value(&fields, "ISS2"), u64::from(syndrome.iss2()));

        // FIPA is 44 bits there, IPA[55:12]; the page of an address has no more than 52.
        let hpfar = HpfarEl2::from_bits_retain(word);
        prop_assert_eq!(esr::ipa(word, 0xabc), hpfar.fipa() << 12 | 0xabc);
    }

    /// A regime from a VTCR that arm-sysregs put together has what was put in.
    #[test]
    fn a_stage2_regime(t0sz in 16..=25u8, ps in 0..=5u8, sh0 in 0..=3u8, vmid in any::<u16>()) {
        let vtcr = VtcrEl2::RES1
            .with_t0sz(t0sz)
            .with_sl0(if t0sz > 20 { 1 } else { 2 })
            .with_sh0(sh0)
            .with_tg0(0)
            .with_ps(ps);
        let vttbr = VttbrEl2::empty().with_baddr(0x4801_0000 >> 1).with_vmid(vmid);
        let none = IdRegisters::default();
        let regime = Regime::stage2(vttbr.bits(), vtcr.bits(), HcrEl2::FWB.bits(), none).unwrap();
        prop_assert_eq!(regime.ia_bits, 64 - u32::from(t0sz));
        prop_assert_eq!(regime.start_level, if t0sz > 20 { 1 } else { 0 });
        let sizes = [32, 36, 40, 42, 44, 48];
        prop_assert_eq!(regime.oa_bits, sizes[usize::from(ps)]);
        prop_assert_eq!((regime.root, regime.sh0, regime.fwb), (0x4801_0000, sh0, true));
        prop_assert!(!regime.lpa2);
    }

    #[test]
    fn an_el2_regime(t0sz in 16..=39u8, ps in 0..=5u8, e2h in any::<bool>(), wxn in any::<bool>()) {
        let tcr = TcrEl2::empty().with_t0sz(t0sz);
        let registers = El2Stage1 {
            tcr: if e2h { tcr.with_ips(ps) | TcrEl2::HPD0 } else { tcr.with_ps(ps) }.bits(),
            mair: 0,
            hcr: if e2h { HcrEl2::E2H } else { HcrEl2::empty() }.bits(),
            sctlr: if wxn { SctlrEl2::WXN } else { SctlrEl2::empty() }.bits(),
        };
        let regime = Regime::el2_stage1(0, registers, IdRegisters::default()).unwrap();
        prop_assert_eq!(regime.ia_bits, 64 - u32::from(t0sz));
        let sizes = [32, 36, 40, 42, 44, 48];
        prop_assert_eq!(regime.oa_bits, sizes[usize::from(ps)]);
        prop_assert_eq!((regime.hpd, regime.wxn), (e2h, wxn));
    }
}
