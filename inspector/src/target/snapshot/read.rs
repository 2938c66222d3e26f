//! Reading a snapshot: nothing is believed before its checksum is right, and nothing read without bounds.

use super::Contents;
use super::notes::{self, Checksums};
use crate::addr::Span;
use crate::target::core::{self, SHORT, Segment};
use object::LittleEndian;
use object::elf;
use object::read::elf::ProgramHeader;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

/// The longest file that is read into memory.
const FILE_LIMIT: u64 = 1 << 32;

/// Physical ranges and where in the file they are.
type Segments = Vec<(Span, Range<usize>)>;

/// The bytes of a file that begins as a snapshot does.
pub(super) fn load(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot read it: {error}");
    let file = core::open(path)?;
    if file.metadata().map_err(cannot)?.len() > FILE_LIMIT {
        return Err("no snapshot: it is larger than 4 GiB".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    Ok(bytes)
}

/// Checks all of `file` and takes it apart.
pub(super) fn parse(file: &[u8]) -> Result<(Contents, Segments), String> {
    let headers = core::segments(file)?;
    let mut ours = Vec::new();
    core::each_note(headers, file, |note| {
        if note.owner == notes::OURS {
            ours.push((note.kind, note.content));
        }
    })?;
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

/// Checks that every byte of the file is what was written.
fn verify(file: &[u8], content: &[u8], headers: &[Segment]) -> Result<(), String> {
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
fn what_is_at(start: usize, checksums_at: usize, headers: &[Segment]) -> String {
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

fn segments(headers: &[Segment], file: &[u8]) -> Result<Segments, String> {
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
