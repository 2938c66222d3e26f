use super::*;
use crate::image::kernel::Kernel;
use crate::image::kernel::made::kallsyms::{BASE, FORMS, Form};
use crate::image::kernel::made::{self, BUILD_ID, CODE, RELEASE, SIZE, TYPES, header, put};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use tempfile::NamedTempFile;

fn image(form: Form) -> Vec<u8> {
    made::image(form, &made::names(true))
}

/// The form of most kernels.
fn usual() -> Vec<u8> {
    image(FORMS[3])
}

fn kernel(bytes: Vec<u8>) -> Kernel {
    Kernel::of_image("Image", bytes).expect("a sound Image")
}

fn refusal(bytes: Vec<u8>) -> String {
    parse(bytes).map(|_| ()).expect_err("it is of no use")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("room");
    encoder.finish().expect("room")
}

/// An EFI program: where its payload is, how many bytes it claims, and its compression by name.
fn program(payload: &[u8], size: u32, name: &str) -> Vec<u8> {
    let mut program = vec![0; 0x1000];
    put(&mut program, 0, b"MZ\0\0zimg");
    put(&mut program, 8, &0x1000_u32.to_le_bytes());
    put(&mut program, 12, &size.to_le_bytes());
    put(&mut program, 24, name.as_bytes());
    program.extend(payload);
    program.extend([0; 64]);
    program
}

fn zboot(payload: &[u8], name: &str) -> Vec<u8> {
    program(payload, payload.len() as u32, name)
}

#[test]
fn an_image_of_every_form_is_read() {
    for form in FORMS {
        let mut kernel = kernel(image(form));
        assert_eq!(kernel.source(), "Image");
        assert_eq!(kernel.release(), Some(RELEASE), "{form:?}");
        assert_eq!(kernel.build_id(), Some(BUILD_ID.as_slice()), "{form:?}");
        assert_eq!(kernel.types(), Ok("BTF of Image"), "{form:?}");
        assert_eq!(kernel.size_of("hyp_page"), Some(8), "{form:?}");
        assert_eq!(kernel.symbols().len(), made::names(true).len());
        for (name, at) in [("_text", 0), ("_stext", CODE.start), ("__start_BTF", TYPES)] {
            let found = kernel.symbol(name).map(|span| span.start);
            assert_eq!(found, Some(BASE + at as u64), "{name} {form:?}");
        }
    }
}

/// Elf64_Rela entries in the image: place, type and addend.
fn relocations(image: &mut [u8], entries: &[[u64; 3]]) {
    let words = entries.iter().flatten().flat_map(|word| word.to_le_bytes());
    put(image, SIZE - 0x8000, &words.collect::<Vec<_>>());
}

#[test]
fn a_base_that_is_relocated_is_taken_from_the_relocation() {
    const RELATIVE: u64 = 0x403;
    for (text_offset, form) in [(0, FORMS[1]), (0x8_0000, FORMS[1]), (0, FORMS[3])] {
        let mut image = image(form);
        let base = memchr::memmem::find(&image, &BASE.to_le_bytes()).expect("a base");
        put(&mut image, base, &[0; 8]);
        put(
            &mut image,
            header::TEXT_OFFSET,
            &u64::to_le_bytes(text_offset),
        );
        let link = BASE + text_offset;
        let own = link + base as u64;
        for (entries, expected) in [
            (&[[own, RELATIVE, link]][..], link),
            (&[[own + 8, RELATIVE, link], [own, RELATIVE, link]], link),
            // None at all, of another place, of another type, for the lower half, for where it would not fit.
            (&[], 0),
            (&[[own + 8, RELATIVE, link]], 0),
            (&[[own, 0x101, link]], 0),
            (&[[own & !(1 << 63), RELATIVE, link & !(1 << 63)]], 0),
            (
                &[[base as u64, RELATIVE, 0_u64.wrapping_sub(text_offset)]],
                0,
            ),
        ] {
            let mut image = image.clone();
            relocations(&mut image, entries);
            let text = kernel(image).symbol("_text").expect("it is named");
            assert_eq!(text.start, expected, "{text_offset:#x} {entries:x?}");
        }
    }
}

/// Linked so high that no address beyond its beginning is left.
#[test]
fn a_relocation_beyond_the_end_of_addresses_is_not_taken() {
    let mut image = image(FORMS[1]);
    let base = memchr::memmem::find(&image, &BASE.to_le_bytes()).expect("a base");
    put(&mut image, base, &[0; 8]);
    // The base itself has an address then, the last name behind it has none.
    let link = u64::MAX - 0x1f_ffff;
    relocations(&mut image, &[[link + base as u64, 0x403, link]]);
    let text = kernel(image).symbol("_text").expect("it is named");
    assert_eq!(text.start, 0);
}

#[test]
fn what_an_image_lacks_is_said_with_its_size() {
    let cut = |end: usize| usual()[..end].to_vec();
    for end in [0x40, CODE.end, made::NAMES + 0x100] {
        assert_eq!(
            refusal(cut(end)),
            format!(
                "no table of names (kallsyms) was found in it, which has {end:#x} bytes of the 0x230000 that its header tells, so it \
                 may have been cut off"
            )
        );
    }
    let without_types = "no types (BTF) were found in it, which has ";
    for end in [TYPES, TYPES + 0x100, TYPES + 0x4_0000] {
        let mut kernel = kernel(cut(end));
        let error = kernel.types().expect_err("its types are cut off");
        assert!(error.starts_with(without_types), "{error}");
        assert!(kernel.symbol("_text").is_some());
    }
}

#[test]
fn an_image_for_big_endian_cpus_is_refused() {
    for (flags, refused) in [(0xb_u64, true), (1, true), (0, false), (0xe, false)] {
        let mut image = usual();
        put(&mut image, header::FLAGS, &flags.to_le_bytes());
        let found = parse(image).map(|_| ());
        assert_eq!(found.is_err(), refused, "{flags:#x}: {found:?}");
    }
}

#[test]
fn what_is_compressed_with_gzip_is_unpacked() {
    let image = usual();
    let packed = gzip(&image);
    for bytes in [
        packed.clone(),
        zboot(&packed, "gzip"),
        // Some kernels' programs end with the size.
        zboot(&[packed.as_slice(), &[1, 2, 3, 4]].concat(), "gzip"),
    ] {
        assert_eq!(unpacked(bytes).as_deref(), Ok(image.as_slice()));
    }
    let elsewhere =
        "compressed, but what it holds is no arm64 Image; a vmlinux must be unpacked first";
    for bytes in [gzip(b"text"), gzip(&packed), zboot(&gzip(b"text"), "gzip")] {
        assert_eq!(refusal(bytes), elsewhere);
    }
}

#[test]
fn what_is_damaged_or_cut_off_is_said() {
    let packed = gzip(&usual());
    let mut wrong = packed.clone();
    let end = wrong.len() - 8;
    wrong[end] ^= 1;
    for bytes in [
        packed[..packed.len() / 2].to_vec(),
        packed[..packed.len() - 1].to_vec(),
        packed[..4].to_vec(),
        wrong,
        zboot(b"no gzip", "gzip"),
        zboot(&packed[..packed.len() / 2], "gzip"),
    ] {
        let error = refusal(bytes);
        let sentence = "compressed with gzip, and damaged: ";
        assert!(error.starts_with(sentence), "{error}");
    }
    let whole = zboot(&packed, "gzip");
    for bytes in [
        whole[..30].to_vec(),
        whole[..0x1000].to_vec(),
        program(&packed, packed.len() as u32 + 65, "gzip"),
        program(&packed, u32::MAX, "gzip"),
    ] {
        let sentence = "an EFI program around a kernel, of which the end is missing";
        assert_eq!(refusal(bytes), sentence);
    }
}

#[test]
fn no_more_is_unpacked_than_a_kernel_has() {
    let packed = gzip(&[0; 1000]);
    let unpack = |limit| limited(GzDecoder::new(packed.as_slice()), limit);
    assert_eq!(unpack(1000).expect("so much").len(), 1000);
    let error = unpack(999).expect_err("too much").to_string();
    assert_eq!(error, "larger than 999 bytes, so no Image of a kernel");
}

#[test]
fn other_compressions_are_named_with_what_unpacks_them() {
    for (magic, name, command) in [
        (&b"BZh91AY&SY"[..], "bzip2", "bzip2 -d"),
        (b"\x02\x21\x4c\x18\0\0", "lz4", "lz4 -d"),
        (b"\x04\x22\x4d\x18\0\0", "lz4", "lz4 -d"),
        (b"\x5d\0\0\x80\0\xff", "lzma", "xz -d --format=lzma"),
        (b"\x89LZO\0\x0d\x0a\x1a\x0a", "lzo", "lzop -d"),
        (b"\xfd7zXZ\0\0\x04", "xz", "xz -d"),
        (b"\x28\xb5\x2f\xfd\x04\x58", "zstd", "zstd -d"),
    ] {
        assert_eq!(
            refusal(magic.to_vec()),
            format!(
                "compressed with {name}, which is not unpacked here: give what `{command}` makes of it"
            )
        );
    }
    for (name, way) in [
        (
            "zstd22",
            "give what `tail -c +4097 FILE | head -c 7 | zstd -d` makes of it",
        ),
        (
            "xzkern",
            "give what `tail -c +4097 FILE | head -c 7 | xz -d` makes of it",
        ),
        (
            "lzo",
            "give what `tail -c +4097 FILE | head -c 7 | lzop -d` makes of it",
        ),
        (
            "new\x1b",
            "give the vmlinux, or the Image from the folder in which it was built",
        ),
    ] {
        let shown = name.as_bytes().escape_ascii();
        assert_eq!(
            refusal(zboot(b"payload", name)),
            format!(
                "an EFI program around a kernel that is compressed with {shown}, which is not unpacked here: {way}"
            )
        );
    }
    let unified = [&b"MZ\0\0"[..], &[0; 0x100]].concat();
    assert!(refusal(unified).starts_with("an EFI program, and no arm64 Image; "));
}

/// By files, of which only the beginning is looked at unless it is a kernel's.
#[test]
fn a_file_that_is_not_made_for_booting_is_left_to_others() {
    let file = |bytes: &[u8]| {
        let mut file = NamedTempFile::new().expect("a temporary file");
        file.write_all(bytes).expect("room for it");
        file
    };
    let read = |bytes: &[u8]| read(file(bytes).path()).expect("a file");
    for bytes in [&b""[..], b"text", b"\x7fELF\x02\x01\x01", &[0; 100]] {
        assert_eq!(read(bytes), None);
    }
    for bytes in [
        usual(),
        gzip(b"text"),
        zboot(b"", "zstd22"),
        b"BZh9".to_vec(),
    ] {
        assert_eq!(read(&bytes), Some(bytes));
    }
    let gone = file(b"").path().to_owned();
    let error = super::read(&gone).expect_err("it was removed").to_string();
    assert!(error.starts_with(&gone.display().to_string()), "{error}");
    let packed = file(&gzip(&usual()));
    let mut kernel = Kernel::open(packed.path()).expect("a kernel");
    assert!(kernel.symbol("_stext").is_some());
}

#[test]
fn an_image_cut_anywhere_or_damaged_is_an_error_or_an_answer() {
    let image = usual();
    for end in (0..image.len()).step_by(0x1_2345) {
        let _ = parse(image[..end].to_vec());
    }
    // Every kind of part, hit in its first bytes.
    let parts = [0, made::BANNER, made::NAMES, made::NOTES, TYPES];
    for at in parts
        .into_iter()
        .flat_map(|part| (part..part + 40).step_by(3))
    {
        let mut image = image.clone();
        put(&mut image, at, &[0xff; 4]);
        if let Ok(parts) = parse(image) {
            let _ = parts.btf.and_then(super::super::Btf::parse);
        }
    }
}
