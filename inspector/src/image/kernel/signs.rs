//! What shows a kernel's parts in its bytes, wherever they come from: a file or guest RAM.

use super::kallsyms::Tokens;
use crate::addr::Span;
use memchr::memmem;

/// What one window must share with the next, so that nothing is cut in two: the tokens, or an ELF header's page.
pub(super) const OVERLAP: usize = super::kallsyms::TOKENS_SIZE;

/// The BTF of a whole kernel is megabytes; that of a module, which lies elsewhere, is not.
const MIN_BTF: u64 = 0x4_0000;
const MAX_BTF: u64 = 1 << 26;

/// The parts of a kernel that were seen.
#[derive(Default)]
pub(super) struct Signs {
    pub(super) tokens: Option<Tokens>,
    /// Where its types are: the largest, where more than one looks so.
    pub(super) btf: Option<Span>,
    pub(super) build_id: Option<Vec<u8>>,
    pub(super) release: Option<String>,
    /// Position of the banner that tells the release.
    pub(super) banner: Option<u64>,
}

impl Signs {
    /// Looks through a window, which begins at a position that is a multiple of 4 KiB.
    pub(super) fn look(&mut self, window: &[u8], at: u64) {
        if self.tokens.is_none() {
            self.tokens = Tokens::find(window, at);
        }
        if self.build_id.is_none() {
            self.build_id = build_id(window);
        }
        if self.release.is_none()
            && let Some((start, release)) = banner(window)
        {
            self.banner = Some(at + start as u64);
            self.release = Some(release);
        }
        for (start, size) in btf(window) {
            if self.btf.is_none_or(|known| known.size < size) {
                self.btf = Some(Span::new(at + start as u64, size));
            }
        }
    }

    /// Whether there is nothing left to look for.
    pub(super) fn complete(&self) -> bool {
        self.is_whole() && self.build_id.is_some()
    }

    /// Whether all was seen that every kernel has: it may be built without an id.
    pub(super) fn is_whole(&self) -> bool {
        self.tokens.is_some() && self.btf.is_some() && self.release.is_some()
    }
}

/// Where BTF begins, and its size as its header says: magic 0xeb9f, version 1, no flags, the header's size, then offsets
/// and sizes of types and texts, counted from the header's end. Later headers are longer.
fn btf(window: &[u8]) -> impl Iterator<Item = (usize, u64)> {
    memmem::find_iter(window, &[0x9f, 0xeb, 1, 0]).filter_map(|start| {
        let header = window.get(start..start + 24)?;
        let word = |at: usize| u64::from(u32_at(header, at));
        let (size, types, types_size, texts, texts_size) =
            (word(4), word(8), word(12), word(16), word(20));
        let sane = (24..=256).contains(&size)
            && [size, types, types_size, texts].iter().all(|n| n % 4 == 0)
            && types + types_size <= texts
            && (MIN_BTF..=MAX_BTF).contains(&types_size)
            && (MIN_BTF..=MAX_BTF).contains(&texts_size);
        sane.then_some((start, size + texts + texts_size))
    })
}

/// The build id in a GNU note of type 3 that is the kernel's: its vDSOs are whole ELF files within it, with notes of
/// their own.
fn build_id(window: &[u8]) -> Option<Vec<u8>> {
    memmem::find_iter(window, b"\x03\0\0\0GNU\0").find_map(|kind| {
        let start = kind.checked_sub(8)?;
        let note = &window[start..];
        let size = u32_at(note, 4) as usize;
        let sane = u32_at(note, 0) == 4 && (4..=64).contains(&size);
        // An ELF file's notes follow its headers.
        let pages = (0..=start & !0xfff).rev().step_by(0x1000).take(4);
        let mut elves = pages.filter(|&page| window[page..].starts_with(b"\x7fELF"));
        let inside = elves.any(|elf| has_note(&window[elf..], (start - elf) as u64));
        let id = note.get(16..16 + size).filter(|_| sane && !inside)?;
        Some(id.to_vec())
    })
}

/// Whether the ELF file's program headers say that there are notes at an offset.
fn has_note(elf: &[u8], offset: u64) -> bool {
    use object::elf::{FileHeader32, FileHeader64, PT_NOTE};
    use object::read::elf::{FileHeader, ProgramHeader};
    fn covers<H: FileHeader<Endian = object::LittleEndian>>(elf: &[u8], offset: u64) -> bool {
        let segments = H::parse(elf).and_then(|h| h.program_headers(object::LittleEndian, elf));
        segments.is_ok_and(|segments| {
            segments.iter().any(|segment| {
                let (start, size) = segment.file_range(object::LittleEndian);
                segment.p_type(object::LittleEndian) == PT_NOTE
                    && Span::new(start, size).contains(offset)
            })
        })
    }
    covers::<FileHeader64<_>>(elf, offset) || covers::<FileHeader32<_>>(elf, offset)
}

/// Where the kernel introduces itself, and the release it names: `Linux version 6.1.0-50-arm64 (…`.
fn banner(window: &[u8]) -> Option<(usize, String)> {
    const START: &[u8] = b"Linux version ";
    memmem::find_iter(window, START).find_map(|start| {
        let text = &window[start + START.len()..];
        let end = memmem::find(&text[..text.len().min(128)], b" (")?;
        let release = std::str::from_utf8(&text[..end]).ok()?;
        let named = release.starts_with(|c: char| c.is_ascii_digit())
            && release.chars().all(|c| c.is_ascii_graphic());
        named.then(|| (start, release.to_owned()))
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    u32::from_le_bytes(word.unwrap_or_default())
}

#[cfg(test)]
mod tests;
