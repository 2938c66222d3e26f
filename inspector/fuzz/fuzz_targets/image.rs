//! Any bytes are an Image or an error, and so are sound ones with changes, of every form of the table of names, compressed
//! or not; names come in order, and are no more than there were.
#![no_main]

use flate2::Compression;
use flate2::write::GzEncoder;
use inspector::image::kernel::Kernel;
use libfuzzer_sys::fuzz_target;
use std::io::Write;
use std::sync::LazyLock;

#[path = "../../tests/support/kernel/mod.rs"]
#[allow(dead_code)]
mod made;

/// Images without types, which would be most of their bytes, and without code.
static IMAGES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let names: Vec<_> = made::names(true).into_iter().step_by(3).collect();
    let image = |form| {
        let mut image = made::kallsyms::kernel(form, 0x200, &names);
        made::put(&mut image, made::header::MAGIC, b"ARM\x64");
        made::put(&mut image, made::header::FLAGS, &[0; 8]);
        made::put(&mut image, 0x80, b"Linux version 6.1 (x)");
        made::put(&mut image, 0x100, &made::note(b"GNU\0", 3, &made::BUILD_ID));
        image
    };
    made::kallsyms::FORMS.map(image).into()
});

/// Bytes, and where they are put.
type Changes = Vec<(u16, Vec<u8>)>;

fuzz_target!(|input: (u8, Changes, Option<u16>)| {
    let (choice, changes, cut) = input;
    let packed = choice >> 6;
    let mut bytes = match IMAGES.get(usize::from(choice & 0x3f)) {
        Some(image) => image.clone(),
        None => vec![0; 0x200],
    };
    let most = bytes.len();
    for (at, change) in changes {
        let at = usize::from(at);
        for (place, byte) in bytes.iter_mut().skip(at).zip(change) {
            *place = byte;
        }
    }
    bytes.truncate(cut.map_or(most, usize::from));
    if packed > 0 {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&bytes).unwrap();
        bytes = encoder.finish().unwrap();
    }
    if packed > 1 {
        let mut program = vec![0; 0x40];
        made::put(&mut program, 0, b"MZ\0\0zimg\x40\0\0\0");
        made::put(&mut program, 12, &(bytes.len() as u32).to_le_bytes());
        made::put(&mut program, 24, b"gzip");
        program.extend(bytes);
        bytes = program;
    }
    if let Ok(mut kernel) = Kernel::of_image("fuzz", bytes) {
        let symbols = kernel.symbols();
        assert!((1..=most).contains(&symbols.len()));
        assert!(symbols.is_sorted_by_key(|symbol| symbol.address));
        kernel.symbol("_text");
        kernel.field("pgtable.root");
    }
});
