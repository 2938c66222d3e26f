//! A kernel out of a raw arm64 `Image`: what a boot loader gets, which is what then lies in memory.

use super::kallsyms::{self, Kallsyms};
use super::parts::Parts;
use super::signs::{OVERLAP, Signs};
use crate::addr::Span;
use crate::image::ImageError;
use flate2::read::GzDecoder;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Linux, Documentation/arch/arm64/booting.rst: the header's magic number, at its offset.
const MAGIC: (usize, &[u8]) = (56, b"ARM\x64");
/// An EFI program that carries a compressed kernel: `zimg`; at 8 where it is, at 12 its size, at 24 how it is compressed.
const ZBOOT: (usize, &[u8]) = (4, b"zimg");
/// RFC 1952.
const GZIP: (usize, &[u8]) = (0, &[0x1f, 0x8b]);
/// Any EFI program.
const PROGRAM: (usize, &[u8]) = (0, b"MZ");

/// How else kernels are compressed (arm64's Makefile and EFI's know all of these): how a file begins then, what it is called,
/// and what unpacks it. lz4 has two.
const OTHERS: [(&[u8], &str, &str); 7] = [
    (b"BZh", "bzip2", "bzip2 -d"),
    (b"\x02\x21\x4c\x18", "lz4", "lz4 -d"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4 -d"),
    (b"\x5d\0\0", "lzma", "xz -d --format=lzma"),
    (b"\x89LZO", "lzo", "lzop -d"),
    (b"\xfd7zXZ", "xz", "xz -d"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -d"),
];

/// Linux, Documentation/arch/arm64/booting.rst: the offset of the header's flags, of which bit 0 says big-endian.
const FLAGS: usize = 24;

/// No arm64 kernel is near this; a file that is or becomes larger is something else.
const MAX_SIZE: u64 = 256 << 20;
/// Bytes looked through at a time.
const WINDOW: usize = 1 << 22;

/// Reads a raw Image, compressed or not; `None` for what is not even made for booting.
///
/// # Errors
/// The file cannot be read, or is too large.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, ImageError> {
    let failed = |error: std::io::Error| ImageError::File {
        file: path.display().to_string(),
        reason: error.to_string(),
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut head = Vec::new();
    file.by_ref()
        .take(64)
        .read_to_end(&mut head)
        .map_err(failed)?;
    let known = [MAGIC, GZIP, PROGRAM]
        .iter()
        .any(|magic| has(&head, *magic));
    if !known && other(&head).is_none() {
        return Ok(None);
    }
    limited(head.as_slice().chain(file), MAX_SIZE)
        .map(Some)
        .map_err(failed)
}

/// The kernel in these bytes; what is wrong with them is said in one sentence.
pub(super) fn parse(bytes: Vec<u8>) -> Result<Parts, String> {
    let bytes = unpacked(bytes)?;
    if bytes.get(FLAGS).is_some_and(|flags| flags & 1 != 0) {
        return Err("made for big-endian CPUs, which is not read here".to_owned());
    }
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
    // The header's size counts what is zeroed when the kernel starts, so a file is shorter than it, but not much.
    let (length, size) = (bytes.len(), u64_at(&bytes, 16).unwrap_or(0));
    let lacks = |what: &str| {
        format!(
            "{what} found in it, which has {length:#x} bytes of the {size:#x} that its header tells, so it may have been cut off"
        )
    };
    let names = names.filter(|names| !names.symbols.is_empty());
    let mut names = names.ok_or_else(|| lacks("no table of names (kallsyms) was"))?;
    link(&bytes, &mut names);
    let btf = signs.btf.and_then(|span| slice(&bytes, span));
    Ok(Parts {
        symbols: names.symbols,
        btf: btf
            .map(<[u8]>::to_vec)
            .ok_or_else(|| lacks("no types (BTF) were")),
        build_id: signs.build_id,
        release: signs.release,
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
    names.symbols.last()?.address.checked_add(entry[2])?;
    for symbol in &mut names.symbols {
        symbol.address += entry[2];
    }
    Some(())
}

fn limited(stream: impl Read, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(std::io::Error::other(format!(
            "larger than {limit} bytes, so no Image of a kernel"
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
    } else if has(&bytes, ZBOOT) {
        zboot(&bytes)?
    } else if let Some((_, name, command)) = other(&bytes) {
        return Err(format!(
            "compressed with {name}, which is not unpacked here: give what `{command}` makes of it"
        ));
    } else {
        return Err(
            "an EFI program, and no arm64 Image; of a unified one, `objcopy -O binary --only-section=.linux FILE Image` makes that"
                .to_owned(),
        );
    };
    if has(&image, MAGIC) {
        Ok(image)
    } else {
        Err(
            "compressed, but what it holds is no arm64 Image; a vmlinux must be unpacked first"
                .to_owned(),
        )
    }
}

/// What else a file is compressed with.
fn other(bytes: &[u8]) -> Option<(&'static [u8], &'static str, &'static str)> {
    let mut others = OTHERS.into_iter();
    others.find(|(magic, ..)| bytes.starts_with(magic))
}

fn zboot(program: &[u8]) -> Result<Vec<u8>, String> {
    let word = |at: usize| Some(u64_at(program, at)? & 0xffff_ffff);
    let cut = || "an EFI program around a kernel, of which the end is missing".to_owned();
    let (start, size) = word(8).zip(word(12)).ok_or_else(cut)?;
    let payload = slice(program, Span::new(start, size)).ok_or_else(cut)?;
    let name = program.get(24..56).ok_or_else(cut)?;
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    if name == b"gzip" {
        return gunzip(payload);
    }
    // `zstd22` and `xzkern` are a level and a filter of what the tools know anyway.
    let mut others = OTHERS.iter();
    let way = match others.find(|(_, other, _)| name.starts_with(other.as_bytes())) {
        Some((_, _, command)) => format!(
            "give what `tail -c +{} FILE | head -c {size} | {command}` makes of it",
            start + 1
        ),
        None => "give the vmlinux, or the Image from the folder in which it was built".to_owned(),
    };
    Err(format!(
        "an EFI program around a kernel that is compressed with {}, which is not unpacked here: {way}",
        name.escape_ascii()
    ))
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, String> {
    limited(GzDecoder::new(bytes), MAX_SIZE)
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

#[cfg(test)]
mod tests;
