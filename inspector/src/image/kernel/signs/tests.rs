use super::*;
use crate::image::kernel::made::{note, put};

fn seen(window: &[u8]) -> Signs {
    let mut signs = Signs::default();
    signs.look(window, 0);
    signs
}

/// Of a header: its size, then offset and size of types and of texts.
type Header = [u32; 5];

const SOUND: Header = [24, 0, 0x4_0000, 0x4_0000, 0x4_0001];

fn btf_header(words: Header) -> Vec<u8> {
    let mut bytes = vec![0x9f, 0xeb, 1, 0];
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

#[test]
fn types_are_known_by_their_header() {
    let changed = |index: usize, value: u32| {
        let mut words = SOUND;
        words[index] = value;
        words
    };
    let whole = Some(Span::new(0x100, 24 + 0x8_0001));
    for (words, expected) in [
        (SOUND, whole),
        // Later headers are longer.
        (changed(0, 32), Some(Span::new(0x100, 32 + 0x8_0001))),
        // A gap between types and texts.
        (changed(3, 0x4_0010), Some(Span::new(0x100, 24 + 0x8_0011))),
        (changed(0, 20), None),
        (changed(0, 260), None),
        (changed(0, 26), None),
        (changed(1, 4), None),
        (changed(1, 2), None),
        (changed(1, u32::MAX), None),
        (changed(2, 0x4_0002), None),
        (changed(3, 0x3_fffc), None),
        (changed(4, 0x3_ffff), None),
        (changed(4, 0x400_0001), None),
        // A module's.
        ([24, 0, 0x3_fffc, 0x4_0000, 0x4_0000], None),
        ([24, 0, 0x400_0004, 0x400_0004, 0x4_0000], None),
        ([u32::MAX; 5], None),
    ] {
        let mut window = vec![0; 0x1000];
        put(&mut window, 0x100, &btf_header(words));
        assert_eq!(seen(&window).btf, expected, "{words:x?}");
    }
    // Another version, flags, and a header of which the end is not there.
    for (at, byte) in [(0x102, 2), (0x103, 1), (0x101, 0)] {
        let mut window = vec![0; 0x1000];
        put(&mut window, 0x100, &btf_header(SOUND));
        window[at] = byte;
        assert_eq!(seen(&window).btf, None);
    }
    assert_eq!(seen(&btf_header(SOUND)[..23]).btf, None);
}

#[test]
fn of_several_types_the_largest_are_the_kernels() {
    let small = btf_header(SOUND);
    let large = btf_header([24, 0, 0x4_0004, 0x4_0004, 0x4_0000]);
    for (first, second, at) in [(&small, &large, 0x800), (&large, &small, 0x100)] {
        let mut window = vec![0; 0x1000];
        put(&mut window, 0x100, first);
        put(&mut window, 0x800, second);
        let found = seen(&window).btf.expect("types");
        assert_eq!((found.start, found.size), (at, 24 + 0x8_0004));
        // In windows of their own.
        let mut signs = Signs::default();
        signs.look(&window[..0x800], 0x7000_0000);
        signs.look(&window[0x800..], 0x7000_0800);
        assert_eq!(signs.btf.map(|span| span.start), Some(0x7000_0000 + at));
    }
}

#[test]
fn the_release_is_what_the_banner_tells() {
    for (text, expected) in [
        (
            &b"Linux version 6.1.0-50-arm64 (debian) #1 SMP"[..],
            Some("6.1.0-50-arm64"),
        ),
        (
            b"Linux version %s (%s)\0Linux version 7.3.4+ (x)",
            Some("7.3.4+"),
        ),
        (b"Linux version 6.1 debian (x)", None),
        (b"Linux version 6.1\x01 (x)", None),
        (b"Linux version 6.1\xff (x)", None),
        (b"Linux version 6.1.0", None),
        (b"Linux version  (x)", None),
        (b"Linux version ", None),
        (b"", None),
    ] {
        let signs = seen(text);
        assert_eq!(signs.release.as_deref(), expected);
        let place = signs.banner.map(|at| &text[at as usize..]);
        assert!(place.is_none_or(|text| text.starts_with(b"Linux version ")));
        assert_eq!(place.is_some(), expected.is_some());
    }
    // Nobody's release has as many letters.
    for (letters, known) in [(126, true), (127, false)] {
        let text = format!("Linux version {} (x)", "6".repeat(letters));
        assert_eq!(seen(text.as_bytes()).release.is_some(), known, "{letters}");
    }
    let mut signs = Signs::default();
    signs.look(&vec![0; 0x1000], 0x1000);
    signs.look(b"..Linux version 6.1 (x)", 0x2000);
    signs.look(b"Linux version 6.2 (x)", 0x3000);
    assert_eq!(
        (signs.banner, signs.release.as_deref()),
        (Some(0x2002), Some("6.1"))
    );
}

const ID: [u8; 20] = [7; 20];

#[test]
fn the_build_id_is_in_the_gnu_note_of_type_3() {
    let id = note(b"GNU\0", 3, &ID);
    let padding = vec![0; 8];
    for (notes, known) in [
        (id.clone(), true),
        (
            [note(b"Linux\0", 0x100, b"salt"), id.clone()].concat(),
            true,
        ),
        // Of other types, names and sizes.
        (note(b"GNU\0", 1, &ID), false),
        (note(b"GNV\0", 3, &ID), false),
        (note(b"GNU\0", 3, &[7; 3]), false),
        (note(b"GNU\0", 3, &[7; 68]), false),
        (id[..id.len() - 1].to_vec(), false),
        // Just the end of one.
        (id[8..].to_vec(), false),
        ([padding, id[8..].to_vec()].concat(), false),
        // A name's size that is not that of the name.
        ([&[5], &id[1..]].concat(), false),
    ] {
        let found = seen(&notes).build_id;
        assert_eq!(found, known.then(|| ID.to_vec()), "{notes:x?}");
    }
    let mut sizes = (4..=64).step_by(20).map(|size| vec![9; size]);
    assert!(sizes.all(|id| seen(&note(b"GNU\0", 3, &id)).build_id == Some(id)));
}

/// An ELF file of 32 or 64 bits with one program header, for notes at an offset.
fn elf(wide: bool, kind: u32, notes: u64, size: u64) -> Vec<u8> {
    let mut elf = vec![0; 0x800];
    put(&mut elf, 0, b"\x7fELF");
    put(&mut elf, 4, &[if wide { 2 } else { 1 }, 1, 1]);
    // e_phoff, e_phentsize and e_phnum; p_offset and p_filesz.
    let (phoff, phentsize, header) = if wide { (32, 54, 64) } else { (28, 42, 52) };
    elf[phoff] = header as u8;
    put(&mut elf, phentsize, &[if wide { 56 } else { 32 }, 0, 1]);
    put(&mut elf, header, &kind.to_le_bytes());
    if wide {
        put(&mut elf, header + 8, &notes.to_le_bytes());
        put(&mut elf, header + 32, &size.to_le_bytes());
    } else {
        put(&mut elf, header + 4, &(notes as u32).to_le_bytes());
        put(&mut elf, header + 16, &(size as u32).to_le_bytes());
    }
    elf
}

#[test]
fn a_vdsos_build_id_is_not_the_kernels() {
    const PT_NOTE: u32 = 4;
    let other = note(b"GNU\0", 3, &[0xee; 20]);
    for wide in [true, false] {
        for (file, vdso) in [
            (elf(wide, PT_NOTE, 0x400, 0x24), true),
            (elf(wide, 1, 0x400, 0x24), false),
            (elf(wide, PT_NOTE, 0x100, 0x24), false),
            (elf(wide, PT_NOTE, 0x400, 0), false),
            (elf(wide, PT_NOTE, 0, u64::MAX), true),
        ] {
            let mut window = vec![0; 0x6000];
            put(&mut window, 0x1000, &file);
            put(&mut window, 0x1400, &other);
            put(&mut window, 0x5004, &note(b"GNU\0", 3, &ID));
            let expected = if vdso { ID } else { [0xee; 20] };
            assert_eq!(seen(&window).build_id, Some(expected.to_vec()), "{wide}");
        }
    }
    // Where its headers lie too far before the note, or behind it, they are not its file's.
    for (page, vdso) in [(0x2000, true), (0x1000, false), (0x6000, false)] {
        let mut window = vec![0; 0x8000];
        put(&mut window, page, &elf(true, PT_NOTE, 0, 0x8000));
        put(&mut window, 0x5800, &other);
        assert_eq!(seen(&window).build_id.is_none(), vdso, "{page:#x}");
    }
}

#[test]
fn nothing_more_is_looked_for_when_all_is_there() {
    let mut signs = Signs {
        btf: Some(Span::new(0, 1)),
        build_id: Some(Vec::new()),
        release: Some(String::new()),
        ..Signs::default()
    };
    assert!(!signs.complete());
    let image = crate::image::kernel::made::kallsyms::kernel(
        crate::image::kernel::made::kallsyms::FORMS[3],
        0x1000,
        &crate::image::kernel::made::names(true),
    );
    signs.look(&image, 0x4000_0000);
    assert!(signs.complete());
    let tokens = signs.tokens.as_ref().expect("a table").position();
    assert!((0x4000_1000..0x4000_0000 + image.len() as u64).contains(&tokens));
    for lacks in [
        |signs: &mut Signs| signs.btf = None,
        |signs: &mut Signs| signs.build_id = None,
        |signs: &mut Signs| signs.release = None,
        |signs: &mut Signs| signs.tokens = None,
    ] {
        let mut signs = seen(&image);
        signs.btf = Some(Span::new(0, 1));
        signs.build_id = Some(Vec::new());
        signs.release = Some(String::new());
        assert!(signs.complete());
        lacks(&mut signs);
        assert!(!signs.complete());
    }
}
