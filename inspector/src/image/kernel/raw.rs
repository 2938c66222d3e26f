//! A kernel out of a raw arm64 `Image`: what a boot loader gets, which is what then lies in memory.

use super::kallsyms::{self, Kallsyms};
use super::parts::Parts;
use super::signs::{OVERLAP, Signs};
use crate::addr::Span;
use crate::image::ImageError;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Linux, Documentation/arch/arm64/booting.rst: the header's magic number, at its offset.
const MAGIC: (usize, &[u8]) = (56, b"ARM\x64");
/// An EFI program that carries a compressed kernel: `zimg`; at 8 where it is, at 12 its size, at 24 how it is compressed.
const ZBOOT: (usize, &[u8]) = (4, b"zimg");
/// RFC 1952.
const GZIP: (usize, &[u8]) = (0, &[0x1f, 0x8b]);

/// No arm64 kernel is near this; a file that is or becomes larger is something else.
const MAX_SIZE: u64 = 256 << 20;
/// Bytes looked through at a time.
const WINDOW: usize = 1 << 22;

/// Opens a raw Image, or one that is compressed with gzip; `None` for what is not even made for booting.
///
/// # Errors
/// The file cannot be read, or is no arm64 Image that is of use.
pub(super) fn open(path: &Path) -> Result<Option<Parts>, ImageError> {
    let failed = |reason: String| ImageError::File {
        file: path.display().to_string(),
        reason,
    };
    let mut file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut head = Vec::new();
    let read = file.by_ref().take(64).read_to_end(&mut head);
    read.map_err(|error| failed(error.to_string()))?;
    if ![MAGIC, ZBOOT, GZIP].iter().any(|magic| has(&head, *magic)) {
        return Ok(None);
    }
    let bytes = limited(head.as_slice().chain(file)).map_err(|error| failed(error.to_string()))?;
    parse(bytes).map(Some).map_err(failed)
}

/// The same from the file's bytes; what is wrong with them is said in one sentence.
fn parse(bytes: Vec<u8>) -> Result<Parts, String> {
    let bytes = unpacked(bytes)?;
    let size = u64_at(&bytes, 16).unwrap_or(0);
    // The header's size counts what is zeroed when the kernel starts, so a file is shorter than it, but not much.
    let mut signs = Signs::default();
    for start in (0..bytes.len()).step_by(WINDOW) {
        let end = bytes.len().min(start + WINDOW + OVERLAP);
        signs.look(&bytes[start..end], start as u64);
    }
    let mut read = |span: Span| Ok(slice(&bytes, span).map(<[u8]>::to_vec));
    let names = match &signs.tokens {
        // A slice is a link that cannot fail.
        Some(tokens) => kallsyms::decode(tokens, &mut read).unwrap_or(None),
        None => None,
    };
    let mut missing = Vec::new();
    let cut = || {
        let length = bytes.len();
        format!(
            "it has {length:#x} bytes of the {size:#x} that its header tells, so it may have been cut off"
        )
    };
    if names.is_none() {
        missing.push(format!(
            "no table of names (kallsyms) was found in it; {}",
            cut()
        ));
    }
    let types = signs.btf.and_then(|span| slice(&bytes, span));
    if types.is_none() {
        missing.push(format!("no types (BTF) were found in it; {}", cut()));
    }
    if names.is_none() && types.is_none() {
        return Err(missing.join("; "));
    }
    let btf = types.map(<[u8]>::to_vec);
    let mut names = names.unwrap_or_default();
    link(&bytes, &mut names);
    Ok(Parts {
        symbols: names.symbols,
        btf,
        build_id: signs.build_id,
        release: signs.release,
        missing,
    })
}

/// A kernel that relocates itself may have 0 for the base of its names in the file; then they are moved to where its
/// relocation says.
fn link(bytes: &[u8], names: &mut Kallsyms) -> Option<()> {
    /// Elf64_Rela: `r_offset`, which is the base's own address, `r_info`, `r_addend`.
    const R_AARCH64_RELATIVE: u64 = 0x403;
    let (at, 0) = names.base? else {
        return None;
    };
    // Linux is linked for the start of 2 MiB and what the header asks for (booting.rst: text_offset, 0 since 5.8).
    let text_offset = u64_at(bytes, 8)?;
    let own = |base: u64| {
        (base & !0x1f_ffff)
            .checked_add(text_offset)?
            .checked_add(at)
    };
    let words = bytes.chunks_exact(8).filter_map(|word| u64_at(word, 0));
    let words: Vec<u64> = words.collect();
    let entry = words.windows(3).find(|entry| {
        entry[1] == R_AARCH64_RELATIVE && entry[2] >> 63 == 1 && own(entry[2]) == Some(entry[0])
    })?;
    for symbol in &mut names.symbols {
        symbol.address = symbol.address.wrapping_add(entry[2]);
    }
    Some(())
}

fn limited(stream: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(std::io::Error::other(format!(
            "larger than {MAX_SIZE} bytes, so no Image of a kernel"
        )));
    }
    Ok(bytes)
}

/// The raw Image in a file.
fn unpacked(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let image = if has(&bytes, MAGIC) {
        return Ok(bytes);
    } else if has(&bytes, GZIP) {
        gunzip(&bytes)?
    } else {
        zboot(&bytes)?
    };
    if has(&image, MAGIC) {
        Ok(image)
    } else {
        Err("compressed, but what it holds is no arm64 Image".to_owned())
    }
}

fn zboot(program: &[u8]) -> Result<Vec<u8>, String> {
    let word = |at: usize| Some(u64_at(program, at)? & 0xffff_ffff);
    let payload = word(8).zip(word(12));
    let payload = payload.and_then(|(start, size)| slice(program, Span::new(start, size)));
    let (Some(payload), Some(name)) = (payload, program.get(24..56)) else {
        return Err("an EFI program around a kernel, of which the end is missing".to_owned());
    };
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    match name {
        b"gzip" => gunzip(payload),
        _ => Err(format!(
            "an EFI program around a kernel that is compressed with {}, which is not unpacked here; give the vmlinux, or the Image \
             from the folder in which the kernel was built",
            name.escape_ascii()
        )),
    }
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, String> {
    limited(flate2::read::GzDecoder::new(bytes))
        .map_err(|error| format!("compressed with gzip, and damaged: {error}"))
}

fn has(bytes: &[u8], (at, magic): (usize, &[u8])) -> bool {
    bytes.get(at..at + magic.len()) == Some(magic)
}

fn slice(bytes: &[u8], span: Span) -> Option<&[u8]> {
    let start = usize::try_from(span.start).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(span.size).ok()?)?)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
