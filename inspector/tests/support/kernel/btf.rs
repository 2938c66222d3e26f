//! A kernel's types (BTF), by an encoder that shares nothing with the decoder.

/// Kinds of types (Linux, Documentation/bpf/btf.rst).
mod kind {
    pub(crate) const INT: u32 = 1;
    pub(crate) const PTR: u32 = 2;
    pub(crate) const ARRAY: u32 = 3;
    pub(crate) const STRUCT: u32 = 4;
    pub(crate) const UNION: u32 = 5;
    pub(crate) const ENUM: u32 = 6;
    pub(crate) const FWD: u32 = 7;
    pub(crate) const TYPEDEF: u32 = 8;
    pub(crate) const VOLATILE: u32 = 9;
    pub(crate) const CONST: u32 = 10;
    pub(crate) const RESTRICT: u32 = 11;
    pub(crate) const FUNC: u32 = 12;
    pub(crate) const FUNC_PROTO: u32 = 13;
    pub(crate) const VAR: u32 = 14;
    pub(crate) const DATASEC: u32 = 15;
    pub(crate) const FLOAT: u32 = 16;
    pub(crate) const DECL_TAG: u32 = 17;
    pub(crate) const TYPE_TAG: u32 = 18;
    pub(crate) const ENUM64: u32 = 19;
}

/// BTF, type by type.
#[derive(Default)]
pub(crate) struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Builder {
    pub(crate) fn string(&mut self, text: &str) -> u32 {
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

    pub(crate) fn add(&mut self, name: &str, info: u32, word: u32, rest: &[u32]) -> u32 {
        let name = self.string(name);
        for word in [name, info, word].iter().chain(rest) {
            self.types.extend(word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    pub(crate) fn plain(&mut self, kind: u32, name: &str, of: u32) -> u32 {
        self.add(name, kind << 24, of, &[])
    }

    pub(crate) fn int(&mut self, name: &str, size: u32, signed: bool) -> u32 {
        let data = (u32::from(signed) << 24) | (size * 8);
        self.add(name, kind::INT << 24, size, &[data])
    }

    pub(crate) fn array(&mut self, of: u32, count: u32) -> u32 {
        self.add("", kind::ARRAY << 24, 0, &[of, of, count])
    }

    /// Members: name, type, place in bits, width in bits or 0.
    pub(crate) fn record(
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

    pub(crate) fn structure(
        &mut self,
        name: &str,
        size: u32,
        members: &[(&str, u32, u32, u32)],
    ) -> u32 {
        self.record(kind::STRUCT, name, size, members)
    }

    pub(crate) fn bytes(mut self) -> Vec<u8> {
        self.string("");
        let mut bytes = 0xeb9f_u16.to_le_bytes().to_vec();
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
    described().bytes()
}

/// The same among so many others that both types and texts have at least `size` bytes, as a whole kernel's have.
pub(crate) fn large(size: usize) -> Vec<u8> {
    let mut btf = described();
    while btf.types.len() < size {
        btf.int("", 4, false);
    }
    btf.string(&"x".repeat(size));
    btf.bytes()
}

fn described() -> Builder {
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
    btf
}
