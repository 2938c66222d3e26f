//! Reading a snapshot: nothing is believed before its checksum is right, and nothing read without bounds.

use super::Contents;
use super::notes::{self, Checksums};
use crate::addr::Span;
use object::LittleEndian;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

/// The longest file that is read into memory.
const FILE_LIMIT: u64 = 1 << 32;
const SHORT: &str = "it is truncated or damaged: its headers point behind its end";
const NOT_OURS: &str = "no snapshot: it is no ELF core of an AArch64 machine";

type Header = elf::FileHeader64<LittleEndian>;
/// Physical ranges and where in the file they are.
type Segments = Vec<(Span, Range<usize>)>;

/// The bytes of a file that begins as a snapshot does.
pub(super) fn load(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            "no such file; a target is `demo`, HOST:PORT, :PORT, unix:PATH or a snapshot file"
                .to_owned()
        }
        _ => format!("cannot read it: {error}"),
    };
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err(
            "no snapshot: it is not a regular file (a socket is named unix:PATH)".to_owned(),
        );
    }
    let mut file = File::open(path).map_err(cannot)?;
    // The first bytes tell, before all of some other large file is read.
    let mut bytes = Vec::new();
    let head = size_of::<Header>() as u64;
    file.by_ref()
        .take(head)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if !bytes.starts_with(&elf::ELFMAG) {
        return Err(NOT_OURS.to_owned());
    }
    if metadata.len() > FILE_LIMIT {
        return Err("no snapshot: it is larger than 4 GiB".to_owned());
    }
    file.take(FILE_LIMIT - head)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    Ok(bytes)
}

/// Checks all of `file` and takes it apart.
pub(super) fn parse(file: &[u8]) -> Result<(Contents, Segments), String> {
    if file.len() < size_of::<Header>() {
        return Err(SHORT.to_owned());
    }
    let header = Header::parse(file).map_err(|_| NOT_OURS.to_owned())?;
    let endian = header.endian().map_err(|_| NOT_OURS.to_owned())?;
    if matches!(header.e_type(endian), elf::ET_EXEC | elf::ET_DYN) {
        return Err("no snapshot but a program: name it with --image".to_owned());
    }
    if header.e_type(endian) != elf::ET_CORE || header.e_machine(endian) != elf::EM_AARCH64 {
        return Err(NOT_OURS.to_owned());
    }
    let headers = header
        .program_headers(endian, file)
        .map_err(|_| SHORT.to_owned())?;
    let ours = our_notes(headers, file)?;
    let find = |kind| ours.iter().find(|(other, _)| *other == kind);
    let Some((_, content)) = find(notes::CHECKSUMS) else {
        return Err("an ELF core, but not one that `inspector save` wrote".to_owned());
    };
    verify(file, content, headers)?;

    let Some((_, facts)) = find(notes::FACTS) else {
        return Err("it has no note of facts".to_owned());
    };
    let text = |kind| {
        find(kind)
            .map(|(_, content)| String::from_utf8(content.to_vec()))
            .transpose()
            .map_err(|_| "its JSON is not UTF-8".to_owned())
    };
    let contents = Contents {
        description: text(notes::DESCRIPTION)?,
        symbols: text(notes::SYMBOLS)?,
        ..notes::parse_facts(facts)?
    };
    Ok((contents, segments(headers, file)?))
}

/// Types and contents of the notes that are ours.
fn our_notes<'a>(
    headers: &[elf::ProgramHeader64<LittleEndian>],
    file: &'a [u8],
) -> Result<Vec<(u32, &'a [u8])>, String> {
    let mut ours = Vec::new();
    for header in headers {
        let Some(mut notes) = header
            .notes(LittleEndian, file)
            .map_err(|_| SHORT.to_owned())?
        else {
            continue;
        };
        while let Some(note) = notes.next().map_err(|_| SHORT.to_owned())? {
            if note.name() == notes::OURS {
                ours.push((note.n_type(LittleEndian).0, note.desc()));
            }
        }
    }
    Ok(ours)
}

/// Checks that every byte of the file is what was written.
fn verify(
    file: &[u8],
    content: &[u8],
    headers: &[elf::ProgramHeader64<LittleEndian>],
) -> Result<(), String> {
    let checksums =
        Checksums::parse(content).ok_or("it is damaged: the list of checksums is wrong")?;
    if checksums.length != file.len() as u64 {
        return Err(format!(
            "it is truncated or damaged: {} of {} bytes are there",
            file.len(),
            checksums.length
        ));
    }
    // `content` is a part of `file`.
    let checksums_at = content.as_ptr().addr() - file.as_ptr().addr();
    let mut start = 0;
    for part in &checksums.parts {
        let bytes = usize::try_from(part.end)
            .ok()
            .and_then(|end| file.get(start..end))
            .ok_or("it is damaged: the list of checksums does not fit the file")?;
        if crc32fast::hash(bytes) != part.crc {
            return Err(format!(
                "it is damaged: the checksum of {} is wrong",
                what_is_at(start, checksums_at, headers)
            ));
        }
        start += bytes.len();
        if start == checksums_at {
            start += content.len();
        }
    }
    if start != file.len() {
        return Err("it is damaged: some of it has no checksum".to_owned());
    }
    Ok(())
}

/// What a part of the file is, in words.
fn what_is_at(
    start: usize,
    checksums_at: usize,
    headers: &[elf::ProgramHeader64<LittleEndian>],
) -> String {
    match start {
        0 => "its headers".to_owned(),
        start if start < checksums_at => "its notes".to_owned(),
        start => headers
            .iter()
            .find(|header| header.p_offset.get(LittleEndian) == start as u64)
            .map_or("its memory".to_owned(), |header| {
                format!("the memory at {:#x}", header.p_paddr.get(LittleEndian))
            }),
    }
}

fn segments(
    headers: &[elf::ProgramHeader64<LittleEndian>],
    file: &[u8],
) -> Result<Segments, String> {
    let mut segments: Segments = Vec::new();
    for header in headers {
        if header.p_type(LittleEndian) != elf::PT_LOAD {
            continue;
        }
        let (offset, size) = header.file_range(LittleEndian);
        let start = header.p_paddr(LittleEndian);
        let span = Span::new(start, size);
        let range = usize::try_from(offset)
            .ok()
            .zip(usize::try_from(size).ok())
            .and_then(|(offset, size)| Some(offset..offset.checked_add(size)?))
            .filter(|range| range.end <= file.len())
            .ok_or(SHORT)?;
        let in_order = segments
            .last()
            .is_none_or(|(before, _)| before.last() < Some(start));
        if size == 0 || span.size != size || header.p_memsz(LittleEndian) != size || !in_order {
            return Err(format!("its memory at {start:#x} is out of order"));
        }
        segments.push((span, range));
    }
    Ok(segments)
}
