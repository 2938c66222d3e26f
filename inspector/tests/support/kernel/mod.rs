//! A kernel in small, byte for byte as an Image has it: header, code, names, notes and types, at places that are known.

pub(crate) mod btf;
pub(crate) mod kallsyms;

use kallsyms::Form;

pub(crate) const RELEASE: &str = "6.1.0-made";
pub(crate) const BUILD_ID: [u8; 20] = [0xab; 20];

/// Functions are here, and others behind the read-only data.
pub(crate) const CODE: std::ops::Range<usize> = 0x1_0000..0x15_0000;
pub(crate) const INIT: std::ops::Range<usize> = 0x1f_0000..0x20_0000;
/// Read-only data: the banner, names, notes and types.
pub(crate) const BANNER: usize = 0x15_0800;
pub(crate) const NAMES: usize = 0x15_1000;
pub(crate) const NOTES: usize = 0x16_0000;
pub(crate) const TYPES: usize = 0x16_1000;
/// Bytes of all of it.
pub(crate) const SIZE: usize = 0x22_0000;
/// As many bytes of types and of texts as a whole kernel has at least.
const MANY: usize = 0x4_0000;

/// The offset from which the header's fields are written: Documentation/arch/arm64/booting.rst.
pub(crate) mod header {
    pub(crate) const TEXT_OFFSET: usize = 8;
    pub(crate) const IMAGE_SIZE: usize = 16;
    pub(crate) const FLAGS: usize = 24;
    pub(crate) const MAGIC: usize = 56;
}

/// Where functions begin: at distances that are never alike, so that a kernel fits over itself in one place only.
pub(crate) fn functions() -> Vec<usize> {
    let mut state = 1_u32;
    let mut all = Vec::new();
    for range in [CODE, INIT] {
        let mut at = range.start;
        while at < range.end {
            all.push(at);
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            at += 0x100 + (state >> 20) as usize % 0x700 / 4 * 4;
        }
    }
    all
}

/// Names with their kinds and positions, in order; `data` tells whether data has names, too.
pub(crate) fn names(data: bool) -> Vec<(u64, String)> {
    let function = |(index, at): (usize, usize)| (at as u64, format!("tf{index}"));
    let mut names: Vec<_> = functions().into_iter().enumerate().map(function).collect();
    names.push((0, "T_text".to_owned()));
    names.push((CODE.start as u64, "T_stext".to_owned()));
    if data {
        let data = [
            (BANNER, "Dlinux_banner"),
            (NOTES, "D__start_notes"),
            (NOTES + 0x100, "D__stop_notes"),
            (TYPES, "D__start_BTF"),
            (SIZE, "B_end"),
        ];
        names.extend(data.map(|(at, name)| (at as u64, name.to_owned())));
    }
    names.sort();
    names
}

/// An Image whose table of names has this form.
pub(crate) fn image(form: Form, names: &[(u64, String)]) -> Vec<u8> {
    let mut image = kallsyms::kernel(form, NAMES, names);
    assert!(image.len() <= NOTES, "the names are too many");
    image.resize(SIZE, 0);
    put(&mut image, 0, b"MZ");
    put(&mut image, header::TEXT_OFFSET, &[0; 8]);
    put(
        &mut image,
        header::IMAGE_SIZE,
        &(SIZE as u64 + 0x1_0000).to_le_bytes(),
    );
    // Little-endian, 4 KiB pages, anywhere in memory.
    put(&mut image, header::FLAGS, &0xa_u64.to_le_bytes());
    put(&mut image, header::MAGIC, b"ARM\x64");
    // nop; bti c; paciasp; mov x9, x30; stp x29, x30, [sp, #-32]!
    let first = [
        0xd503_201f_u32,
        0xd503_245f,
        0xd503_233f,
        0xaa1e_03e9,
        0xa9be_7bfd,
    ];
    for (index, at) in functions().into_iter().enumerate() {
        put(&mut image, at, &first[index % first.len()].to_le_bytes());
    }
    // What prints the banner, and the banner.
    put(&mut image, BANNER - 0x100, b"Linux version %s (%s)\0");
    put(
        &mut image,
        BANNER,
        format!("Linux version {RELEASE} (someone@somewhere) #1\0").as_bytes(),
    );
    let notes = [
        note(b"Linux\0", 0x100, &[1; 20]),
        note(b"GNU\0", 3, &BUILD_ID),
    ]
    .concat();
    put(&mut image, NOTES, &notes);
    put(&mut image, TYPES, &btf::large(MANY));
    image
}

/// An ELF note.
pub(crate) fn note(name: &[u8], kind: u32, contents: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for number in [name.len() as u32, contents.len() as u32, kind] {
        note.extend(number.to_le_bytes());
    }
    for part in [name, contents] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

/// Overwrites bytes from a position on.
pub(crate) fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}
