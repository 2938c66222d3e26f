//! Writing a snapshot.

use super::notes::{self, Checksums, Part};
use super::{Contents, Memory};
use crate::target::core;
use object::elf;
use object::write::elf::{FileHeader, ProgramHeader, Writer};
use std::fs::{File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The most ranges of memory: e_phnum has 16 bits, and 0xffff is reserved.
const SEGMENT_LIMIT: usize = 0xfff0;

/// Writes the file; the error is what goes after its name.
pub(super) fn write(path: &Path, contents: &Contents) -> Result<(), String> {
    // The new file takes the place of what is there: right for a file, fatal for a device.
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(
            "cannot write it: not a regular file, so it is left alone; name another".to_owned(),
        );
    }
    let bytes = encode(contents)?;
    // An error of the file under way carries that file's name, which is nothing to the user.
    let cannot = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => "cannot write it: there is no such folder".to_owned(),
        kind if error.raw_os_error().is_none() => format!("cannot write it: {kind}"),
        _ => format!("cannot write it: {error}"),
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // As any new file, less what the umask takes away; the default is for the owner alone.
    let mut file = tempfile::Builder::new()
        .prefix(".snapshot")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .map_err(cannot)?;
    file.write_all(&bytes).map_err(cannot)?;
    file.as_file().sync_all().map_err(cannot)?;
    file.persist(path).map_err(|error| cannot(error.error))?;
    // The name, too, shall survive a crash.
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(cannot)
}

/// The bytes of a snapshot: the same contents give the same bytes.
pub(super) fn encode(contents: &Contents) -> Result<Vec<u8>, String> {
    let memory = &contents.memory;
    if memory.len() > SEGMENT_LIMIT {
        return Err(format!(
            "{} separate ranges of memory are more than an ELF core holds",
            memory.len()
        ));
    }
    let plain = plain_notes(contents)?;
    // Headers, each note, the head of the note of checksums, each range of memory.
    let parts = 1 + plain.len() + 1 + memory.len();
    let checksums_size = Checksums::size(parts);
    let blank = notes::note(notes::OURS, notes::CHECKSUMS, &vec![0; checksums_size])?;
    let notes_size = plain.iter().map(Vec::len).sum::<usize>() + blank.len();

    let mut file = Vec::new();
    let mut writer = Writer::new(object::Endianness::Little, true, &mut file);
    writer.reserve_file_header();
    writer.reserve_program_headers(memory.len() as u32 + 1);
    let notes_at = writer.reserve(notes_size as u64, 4);
    let mut at = notes_at + notes_size as u64;
    let headers: Vec<_> = memory
        .iter()
        .map(|range| {
            let header = load(range, at, contents.physvirt_offset);
            at = writer.reserve(range.bytes.len() as u64, 1) + range.bytes.len() as u64;
            header
        })
        .collect();
    writer
        .write_file_header(&FileHeader {
            os_abi: elf::ELFOSABI_NONE,
            abi_version: 0,
            e_type: elf::ET_CORE,
            e_machine: elf::EM_AARCH64,
            e_entry: 0,
            e_flags: elf::FileFlags(0),
        })
        .map_err(|error| error.to_string())?;
    writer.write_align_program_headers();
    writer.write_program_header(&ProgramHeader {
        p_type: elf::PT_NOTE,
        p_flags: elf::PF_R,
        p_offset: notes_at,
        p_vaddr: 0,
        p_paddr: 0,
        p_filesz: notes_size as u64,
        p_memsz: 0,
        p_align: 4,
    });
    for header in &headers {
        writer.write_program_header(header);
    }
    writer.pad_until(notes_at);
    let mut ends = vec![notes_at];
    for note in &plain {
        writer.write(note);
        ends.push(writer.len());
    }
    let checksums_at = writer.len() + (blank.len() - checksums_size) as u64;
    ends.push(checksums_at);
    writer.write(&blank);
    for range in memory {
        writer.write(&range.bytes);
        ends.push(writer.len());
    }
    seal(&mut file, &ends, checksums_at, checksums_size);
    Ok(file)
}

/// Puts the checksums of the parts that end at `ends` in the place left for them.
fn seal(file: &mut [u8], ends: &[u64], checksums_at: u64, checksums_size: usize) {
    let mut start = 0;
    let mut parts = Vec::new();
    for &end in ends {
        let crc = crc32fast::hash(&file[start as usize..end as usize]);
        parts.push(Part { end, crc });
        start = match end {
            end if end == checksums_at => end + checksums_size as u64,
            end => end,
        };
    }
    let checksums = Checksums {
        length: file.len() as u64,
        parts,
    };
    let at = checksums_at as usize;
    file[at..at + checksums_size].copy_from_slice(&checksums.encode());
}

fn plain_notes(contents: &Contents) -> Result<Vec<Vec<u8>>, String> {
    let mut all = Vec::new();
    for (cpu, registers) in (0..).zip(&contents.registers) {
        all.push(notes::note(
            core::CORE,
            core::PRSTATUS,
            &core::prstatus(cpu, registers),
        )?);
    }
    let facts = notes::facts(contents)?;
    all.push(notes::note(notes::OURS, notes::FACTS, &facts)?);
    for (kind, text) in [
        (notes::DESCRIPTION, &contents.description),
        (notes::SYMBOLS, &contents.symbols),
    ] {
        if let Some(text) = text {
            all.push(notes::note(notes::OURS, kind, text.as_bytes())?);
        }
    }
    Ok(all)
}

fn load(range: &Memory, offset: u64, physvirt_offset: Option<u64>) -> ProgramHeader {
    let size = range.bytes.len() as u64;
    ProgramHeader {
        p_type: elf::PT_LOAD,
        // Not read-only: gdb would take read-only memory from the executable.
        p_flags: elf::PF_R | elf::PF_W | elf::PF_X,
        p_offset: offset,
        p_vaddr: range.start.wrapping_sub(physvirt_offset.unwrap_or(0)),
        p_paddr: range.start,
        p_filesz: size,
        p_memsz: size,
        p_align: 1,
    }
}
