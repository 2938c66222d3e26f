use super::*;

#[test]
fn descriptions() {
    for (esr, text) in [
        (
            0x9200_0046,
            "data abort from a lower level: translation fault, level 2, write",
        ),
        (
            0x9200_000f,
            "data abort from a lower level: permission fault, level 3, read",
        ),
        (
            0x9200_0087,
            "data abort from a lower level: translation fault, level 3, read, on a stage-1 walk",
        ),
        (
            0x8200_0007,
            "instruction abort from a lower level: translation fault, level 3",
        ),
        (
            0x9600_006b,
            "data abort from this level: translation fault, level -1, write",
        ),
        (0x5a00_0000, "HVC: #0x0"),
        (0x5e00_0007, "SMC: #0x7"),
        (0xf200_1234, "BRK: #0x1234"),
        (0x0200_0000, "unknown reason"),
        // MRS x3, MDSCR_EL1 (S2_0_C0_C2_2)
        (
            0x6224_0065,
            "trapped MSR, MRS or system instruction: read of S2_0_C0_C2_2",
        ),
        (0xfe00_0000, "reserved exception class"),
    ] {
        assert_eq!(describe(esr), text, "{esr:#x}");
    }
}

#[test]
fn the_page_comes_from_hpfar_and_the_offset_from_far() {
    assert_eq!(ipa(0x4_8000, 0xffff_0000_1234_5abc), 0x480_0abc);
    assert_eq!(ipa(0x90000, 0x10), 0x900_0010);
    // NS (bit 63) and RES0 bits are not address.
    assert_eq!(ipa(1 << 63 | 0x90000 | 0xf, 0), 0x900_0000);
}

#[test]
fn a_valid_access_syndrome() {
    // A 32-bit store of x5.
    let fields = fields(0x9385_0047);
    let find = |name| {
        fields
            .iter()
            .find(|field| field.name == name)
            .unwrap()
            .meaning
            .clone()
    };
    assert_eq!(find("EC"), "data abort from a lower level");
    assert_eq!(find("SAS"), "word");
    assert_eq!(find("SRT"), "x5");
    assert_eq!(find("WnR"), "write");
    assert_eq!(find("DFSC"), "translation fault, level 3");
}

#[test]
fn an_invalid_access_syndrome_has_no_access() {
    let fields = fields(0x9200_0047);
    assert!(fields.iter().all(|field| field.name != "SRT"));
}

#[test]
fn every_status_and_class_has_words() {
    for code in 0..64 {
        assert!(!fault_status(code).is_empty());
        assert!(!describe(code << 26 | 0x1ff_ffff).is_empty());
    }
    assert_eq!(fault_status(0b101011), "translation fault, level -1");
    assert_eq!(fault_status(0b111111), "reserved fault status 0x3f");
}
