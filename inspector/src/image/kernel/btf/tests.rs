use super::*;
use crate::image::kernel::made::btf::{Builder, kernel};
use proptest::prelude::*;

fn parsed() -> Btf {
    Btf::parse(kernel()).expect("sound types")
}

const PATHS: [&str; 12] = [
    "pgtable.ia_bits",
    "pgtable.start_level",
    "pgtable.root",
    "pgtable.mmu",
    "pgtable.raw",
    "pgtable.other",
    "hyp_page.host_state",
    "hyp_page.hyp_state",
    "hyp_page.count",
    "vm.pages",
    "vm.vcpus",
    "old.field",
];

#[test]
fn members_are_found_wherever_they_hide() {
    let places: Vec<_> = PATHS.iter().map(|path| parsed().field(path)).collect();
    let field = |offset, size, bits, signed| {
        Some(Field {
            offset,
            size,
            bits,
            signed,
        })
    };
    assert_eq!(
        places,
        [
            field(0, 4, None, false),
            field(4, 1, None, true),
            field(8, 8, None, false),
            field(16, 8, None, false),
            field(8, 8, None, false),
            field(0, 8, None, false),
            field(0, 4, Some((24, 4)), false),
            field(0, 4, Some((28, 4)), false),
            field(4, 4, None, false),
            field(8, 48, None, false),
            field(56, 0, None, false),
            field(0, 4, Some((11, 5)), false),
        ]
    );
    for path in [
        "",
        "pgtable",
        "pgtable.",
        "pgtable.none",
        "pgtable.root.raw",
        "vm.pages.count",
        "hyp_page.host_state.x",
        "later.x",
        "none.x",
    ] {
        assert_eq!(parsed().field(path), None, "{path}");
    }
}

#[test]
fn records_have_sizes_and_enumerations_names() {
    let mut btf = parsed();
    for (name, size) in [
        ("hyp_page", Some(8)),
        ("pgtable", Some(8)),
        ("u64", Some(8)),
        ("page_state", Some(4)),
        ("later", None),
        ("none", None),
        ("", None),
    ] {
        assert_eq!(btf.size_of(name), size, "{name}");
    }
    let names = |low, minus| Some(vec![("LOW".to_owned(), low), ("MINUS".to_owned(), minus)]);
    assert_eq!(btf.enumerators("signed"), names(1, -1));
    assert_eq!(btf.enumerators("wide"), names(1 << 55, -1));
    assert_eq!(
        btf.enumerators("page_state"),
        Some(vec![("OWNED".to_owned(), i64::from(u32::MAX))])
    );
    assert_eq!(btf.enumerators("hyp_page"), None);
}

#[test]
fn what_is_no_btf_is_said() {
    let mut unknown = Builder::default();
    unknown.int("int", 4, true);
    unknown.plain(20, "news", 0);
    let mut big = kernel();
    big.swap(0, 1);
    let mut short = kernel();
    short[4] = 8;
    for (bytes, message) in [
        (Vec::new(), "the BTF is cut off"),
        (
            b"\x7fELF".to_vec(),
            "no BTF: it begins with 0x457f in place of 0xeb9f",
        ),
        (big, "the BTF is big-endian"),
        (short, "the BTF's header of 8 bytes is too short"),
        (
            unknown.bytes(),
            "the BTF's type 2 is of the unknown kind 20",
        ),
    ] {
        assert_eq!(Btf::parse(bytes).map(|_| ()), Err(message.to_owned()));
    }
    assert!(Btf::parse(Builder::default().bytes()).is_ok_and(|btf| btf.is_empty()));
}

/// A compiler writes none of these, a damaged file may.
#[test]
fn types_without_end_have_no_answer() {
    let mut btf = Builder::default();
    btf.plain(kind::TYPEDEF, "itself", 1);
    btf.structure("inside", 8, &[("", 2, 0, 0), ("a", 2, 0, 0)]);
    btf.array(3, 2);
    btf.structure("row", 8, &[("a", 3, 0, 0)]);
    // Each of 32 levels twice in the next: 2^32 ways to the end.
    for level in 0..32 {
        btf.structure("fan", 8, &[("", 4 + level, 0, 0), ("", 4 + level, 0, 0)]);
    }
    let mut btf = Btf::parse(btf.bytes()).expect("well-formed");
    assert_eq!(btf.size_of("itself"), None);
    assert_eq!(btf.field("inside.b"), None);
    assert_eq!(btf.field("fan.b"), None);
    assert_eq!(btf.field("inside.a").map(|field| field.size), Some(8));
    assert_eq!(btf.field("row.a").map(|field| field.size), Some(0));
}

/// Asks everything; the answers do not matter, that there are some does.
fn ask(bytes: Vec<u8>) {
    if let Ok(mut btf) = Btf::parse(bytes) {
        for path in PATHS {
            let _ = btf.field(path);
        }
        for name in ["pgtable", "vm", "signed", "wide", "u64"] {
            let _ = (btf.size_of(name), btf.enumerators(name));
        }
    }
}

#[test]
fn types_cut_anywhere_are_an_error_or_an_answer() {
    let bytes = kernel();
    for end in 0..bytes.len() {
        ask(bytes[..end].to_vec());
    }
}

proptest! {
    #[test]
    fn damaged_types_are_an_error_or_an_answer(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let mut bytes = kernel();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        ask(bytes);
    }
}
