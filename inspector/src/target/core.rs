//! ELF cores of AArch64 machines, as far as snapshots and memory dumps are alike: which files can be one, program
//! headers, notes, general registers.

use crate::target::Registers;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, ReadRef};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::path::Path;

/// What a file says that ends too early.
pub(super) const SHORT: &str = "it is truncated or damaged: its headers point behind its end";
const NOT_OURS: &str =
    "neither a snapshot nor a memory dump: it is no ELF core of an AArch64 machine";
const COMPRESSED: &str = "a memory dump in kdump's compressed form, which is not read: take one with QEMU's `dump-guest-memory FILE`, without -z, -l or -s";

/// The name of notes that every ELF core has.
pub(super) const CORE: &[u8] = b"CORE";
/// A CPU's general registers: `struct elf_prstatus` of AArch64 Linux.
pub(super) const PRSTATUS: u32 = 1;
/// In it: the thread's number, which is the CPU's plus one, as QEMU has it.
const NUMBER_AT: usize = 32;
/// In it: x0…x30, sp, pc and pstate.
const GENERAL_AT: usize = 112;

/// The most CPUs a file may claim.
pub(super) const CPU_LIMIT: usize = 4096;
/// More program headers than any core has: memory of QEMU's machines is a few dozen pieces, a snapshot has 65,536 at most.
const HEADER_LIMIT: u32 = 1 << 20;
/// Bytes of all notes together. A CPU's registers take less than 16 KiB, SVE included.
const NOTES_LIMIT: u64 = 64 << 20;

type Header = elf::FileHeader64<LittleEndian>;
/// A program header.
pub(super) type Segment = elf::ProgramHeader64<LittleEndian>;

/// A note: who wrote it, of which type, and its content.
pub(super) struct Note<'a> {
    pub(super) owner: &'a [u8],
    pub(super) kind: u32,
    pub(super) content: &'a [u8],
}

/// Opens a file that begins as a core does.
pub(super) fn open(path: &Path) -> Result<File, String> {
    let cannot = |error: std::io::Error| {
        match error.kind() {
        ErrorKind::NotFound => {
            "no such file; a target is `demo`, HOST:PORT, :PORT, unix:PATH, or the file of a snapshot or a memory dump"
                .to_owned()
        }
        _ => format!("cannot read it: {error}"),
    }
    };
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(
            "neither a snapshot nor a memory dump: it is not a regular file (a socket is named unix:PATH)"
                .to_owned(),
        );
    }
    let mut file = File::open(path).map_err(cannot)?;
    let mut first = Vec::new();
    let read = file.by_ref().take(16).read_to_end(&mut first);
    read.and_then(|_| file.rewind()).map_err(cannot)?;
    // Files of makedumpfile's: `struct disk_dump_header`, or the form for pipes around it, which is what QEMU writes.
    if first.starts_with(b"KDUMP   ") || first.starts_with(b"makedumpfile\0") {
        return Err(COMPRESSED.to_owned());
    }
    if !first.starts_with(&elf::ELFMAG) {
        return Err(NOT_OURS.to_owned());
    }
    Ok(file)
}

/// The program headers of an ELF core of AArch64.
pub(super) fn segments<'a, R: ReadRef<'a>>(data: R) -> Result<&'a [Segment], String> {
    if data
        .len()
        .is_ok_and(|length| length < size_of::<Header>() as u64)
    {
        return Err(SHORT.to_owned());
    }
    let header = Header::parse(data).map_err(|_| NOT_OURS.to_owned())?;
    let endian = header.endian().map_err(|_| NOT_OURS.to_owned())?;
    if matches!(header.e_type(endian), elf::ET_EXEC | elf::ET_DYN) {
        return Err("no snapshot but a program: name it with --image".to_owned());
    }
    if header.e_type(endian) != elf::ET_CORE || header.e_machine(endian) != elf::EM_AARCH64 {
        return Err(NOT_OURS.to_owned());
    }
    let count = header.phnum(endian, data).map_err(|_| SHORT.to_owned())?;
    if count > HEADER_LIMIT {
        return Err(format!(
            "it is damaged: {count} program headers are too many"
        ));
    }
    header
        .program_headers(endian, data)
        .map_err(|_| SHORT.to_owned())
}

/// Shows every note to `see`, in order.
pub(super) fn each_note<'a, R: ReadRef<'a>>(
    segments: &[Segment],
    data: R,
    mut see: impl FnMut(Note<'a>),
) -> Result<(), String> {
    let mut left = NOTES_LIMIT;
    let are_notes = |segment: &&Segment| segment.p_type(LittleEndian) == elf::PT_NOTE;
    for segment in segments.iter().filter(are_notes) {
        let (_, size) = segment.file_range(LittleEndian);
        left = left
            .checked_sub(size)
            .ok_or_else(|| format!("it is damaged: more than {NOTES_LIMIT} bytes of notes"))?;
        let notes = segment.notes(LittleEndian, data);
        let Some(mut notes) = notes.map_err(|_| SHORT.to_owned())? else {
            continue;
        };
        while let Some(note) = notes.next().map_err(|_| SHORT.to_owned())? {
            see(Note {
                owner: note.name(),
                kind: note.n_type(LittleEndian).0,
                content: note.desc(),
            });
        }
    }
    Ok(())
}

/// The content of a CPU's note PRSTATUS; what is not known is 0.
pub(super) fn prstatus(cpu: u32, registers: &Registers) -> Vec<u8> {
    let mut note = vec![0; GENERAL_AT];
    note[NUMBER_AT..NUMBER_AT + 4].copy_from_slice(&(cpu + 1).to_le_bytes());
    for name in general() {
        note.extend(registers.get(&name).unwrap_or(0).to_le_bytes());
    }
    note.extend([0; 8]);
    note
}

/// The registers in a note PRSTATUS; `None` where it is too short.
pub(super) fn registers(prstatus: &[u8]) -> Option<Registers> {
    let (words, _) = prstatus.get(GENERAL_AT..)?.as_chunks();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let named: Vec<_> = general().zip(words).collect();
    (named.len() == general().count()).then(|| Registers(named.into_iter().collect()))
}

/// The general registers, in the order of `struct user_pt_regs`.
fn general() -> impl Iterator<Item = String> {
    let numbered = (0..=30).map(|number| format!("x{number}"));
    numbered.chain(["sp", "pc", "cpsr"].map(str::to_owned))
}
