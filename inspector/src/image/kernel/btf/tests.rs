use super::*;
use proptest::prelude::*;

/// BTF, type by type.
#[derive(Default)]
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Builder {
    fn string(&mut self, text: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if text.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        at
    }

    fn add(&mut self, name: &str, info: u32, word: u32, rest: &[u32]) -> u32 {
        let name = self.string(name);
        for word in [name, info, word].iter().chain(rest) {
            self.types.extend(word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    fn plain(&mut self, kind: u32, name: &str, of: u32) -> u32 {
        self.add(name, kind << 24, of, &[])
    }

    fn int(&mut self, name: &str, size: u32, signed: bool) -> u32 {
        let data = (u32::from(signed) << 24) | (size * 8);
        self.add(name, kind::INT << 24, size, &[data])
    }

    fn array(&mut self, of: u32, count: u32) -> u32 {
        self.add("", kind::ARRAY << 24, 0, &[of, of, count])
    }

    /// Members: name, type, place in bits, width in bits or 0.
    fn record(
        &mut self,
        kind: u32,
        name: &str,
        size: u32,
        members: &[(&str, u32, u32, u32)],
    ) -> u32 {
        let mut rest = Vec::new();
        for (name, of, bit, width) in members {
            rest.extend([self.string(name), *of, *bit | *width << 24]);
        }
        let flag = members.iter().any(|member| member.3 > 0);
        let info = u32::from(flag) << 31 | kind << 24 | members.len() as u32;
        self.add(name, info, size, &rest)
    }

    fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u32, u32)]) -> u32 {
        self.record(kind::STRUCT, name, size, members)
    }

    fn bytes(mut self) -> Vec<u8> {
        self.string("");
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        bytes.extend([1, 0]);
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [24, 0, types, types, strings] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.types);
        bytes.extend(self.strings);
        bytes
    }
}

/// A kernel's types in small: every kind, and every way to hide a member.
pub(crate) fn kernel() -> Vec<u8> {
    let mut btf = Builder::default();
    let byte = btf.int("unsigned char", 1, false);
    let s8 = btf.int("signed char", 1, true);
    let word = btf.int("unsigned int", 4, false);
    let long = btf.int("long unsigned int", 8, false);
    let name = btf.plain(kind::TYPEDEF, "u64", long);
    let quiet = btf.plain(kind::CONST, "", name);
    let quiet = btf.plain(kind::VOLATILE, "", quiet);
    let quiet = btf.plain(kind::RESTRICT, "", quiet);
    let quiet = btf.plain(kind::TYPE_TAG, "user", quiet);
    let pointer = btf.plain(kind::PTR, "", quiet);
    // Two of one name: only the second has `mmu`.
    btf.structure("pgtable", 8, &[("other", long, 0, 0)]);
    let inner = btf.structure("", 16, &[("root", pointer, 0, 0), ("mmu", quiet, 64, 0)]);
    let hidden = btf.record(
        kind::UNION,
        "",
        16,
        &[("", inner, 0, 0), ("raw", long, 0, 0)],
    );
    btf.structure(
        "pgtable",
        24,
        &[
            ("ia_bits", word, 0, 0),
            ("start_level", s8, 32, 0),
            ("", hidden, 64, 0),
        ],
    );
    let owned = btf.string("OWNED");
    let state = btf.add("page_state", kind::ENUM << 24 | 1, 4, &[owned, u32::MAX]);
    let page = btf.structure(
        "hyp_page",
        8,
        &[
            ("refcount", byte, 0, 0),
            ("host_state", state, 24, 4),
            ("hyp_state", state, 28, 4),
            ("count", word, 32, 0),
        ],
    );
    let pages = btf.array(page, 3);
    let pages = btf.array(pages, 2);
    let none = btf.array(page, 0);
    btf.structure(
        "vm",
        56,
        &[
            ("at", long, 0, 0),
            ("pages", pages, 64, 0),
            ("vcpus", none, 448, 0),
        ],
    );
    let names = [btf.string("LOW"), btf.string("MINUS")];
    btf.add(
        "signed",
        1 << 31 | kind::ENUM << 24 | 2,
        4,
        &[names[0], 1, names[1], u32::MAX],
    );
    btf.add(
        "wide",
        kind::ENUM64 << 24 | 2,
        8,
        &[names[0], 0, 1 << 23, names[1], u32::MAX, u32::MAX],
    );
    let function = btf.add("", kind::FUNC_PROTO << 24 | 1, word, &[0, long]);
    btf.plain(kind::FUNC, "handle", function);
    btf.plain(kind::FWD, "later", 0);
    btf.plain(kind::FLOAT, "double", 8);
    let variable = btf.add("counter", kind::VAR << 24, long, &[1]);
    btf.add(".data", kind::DATASEC << 24 | 1, 8, &[variable, 0, 8]);
    btf.add("tag", kind::DECL_TAG << 24, variable, &[u32::MAX]);
    // Before kind_flag.
    let narrow = btf.add("unsigned int", kind::INT << 24, 4, &[3 << 16 | 5]);
    btf.structure("old", 4, &[("field", narrow, 8, 0)]);
    btf.bytes()
}

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
