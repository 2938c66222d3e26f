use super::*;
use std::io::Write;

const MEMORY: u64 = 0x4000_0000;

/// One program header: type, offset, physical address, bytes in the file and in memory.
type Piece = (u32, u64, u64, u64, u64);

const NOTE: u32 = 4;
const LOAD: u32 = 1;

fn note(owner: &str, kind: u32, content: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [owner.len() as u32 + 1, content.len() as u32, kind] {
        note.extend(word.to_le_bytes());
    }
    note.extend(owner.bytes());
    note.push(0);
    note.resize(note.len().next_multiple_of(4), 0);
    note.extend(content);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// General registers of which each differs, and differs from those of other CPUs.
fn general(cpu: u64) -> Registers {
    let mut registers = Registers::default();
    let names = (0..=30).map(|number| format!("x{number}"));
    let names = names.chain(["sp", "pc", "cpsr"].map(str::to_owned));
    for (number, name) in (1..).zip(names) {
        registers.0.insert(name, cpu << 32 | number);
    }
    registers
}

/// As QEMU writes it: a section header that is of no use stands before the program headers, and memory right behind the
/// notes, wherever that is.
fn core_file(notes: &[u8], pieces: &[Piece], contents: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    // ET_CORE, EM_AARCH64, version; entry, phoff, shoff; flags; sizes and counts.
    file.extend([4, 0, 183, 0, 1, 0, 0, 0]);
    for word in [0, 128, 64_u64] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64, 56, pieces.len() as u16, 64, 1, 0] {
        file.extend(half.to_le_bytes());
    }
    file.resize(128, 0);
    for (kind, offset, address, in_file, in_memory) in pieces {
        file.extend(kind.to_le_bytes());
        file.extend(0_u32.to_le_bytes());
        for word in [*offset, *address, *address, *in_file, *in_memory, 0] {
            file.extend(word.to_le_bytes());
        }
    }
    file.extend(notes);
    file.extend(contents);
    file
}

/// Two CPUs; 64 bytes of memory in two ranges that touch, and 16 elsewhere, in a file without order.
fn sample() -> Vec<u8> {
    let mut notes = Vec::new();
    for cpu in 0..2 {
        let content = core::prstatus(cpu, &general(cpu.into()));
        notes.extend(note("CORE", 1, &content));
        notes.extend(note("CORE", 2, &[7; 528]));
    }
    notes.extend(note("VMCOREINFO", 0, b"OSRELEASE=7\n"));
    let at = 128 + 4 * 56;
    let behind = at + notes.len() as u64;
    let pieces = [
        (NOTE, at, 0, notes.len() as u64, notes.len() as u64),
        (LOAD, behind, MEMORY + 0x1000, 16, 16),
        (LOAD, behind + 16, MEMORY, 24, 24),
        (LOAD, behind + 40, MEMORY + 24, 40, 40),
    ];
    let contents: Vec<u8> = (0..80).collect();
    core_file(&notes, &pieces, &contents)
}

/// A file with these bytes that nobody else has.
fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("room");
    file
}

fn open(bytes: &[u8]) -> Result<Dump, String> {
    match Dump::open("d", file(bytes)) {
        Ok(Some(dump)) => Ok(dump),
        Ok(None) => Err("a snapshot".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A machine whose memory is these pieces, with one CPU.
fn with_memory(pieces: &[Piece], contents: &[u8]) -> Dump {
    let notes = note("CORE", 1, &core::prstatus(0, &general(0)));
    let at = 128 + 56 * (pieces.len() as u64 + 1);
    let size = notes.len() as u64;
    let behind = at + size;
    let mut all = vec![(NOTE, at, 0, size, size)];
    let moved = |(kind, offset, start, in_file, in_memory): &Piece| {
        (
            *kind,
            offset.wrapping_add(behind),
            *start,
            *in_file,
            *in_memory,
        )
    };
    all.extend(pieces.iter().map(moved));
    open(&core_file(&notes, &all, contents)).expect("a dump")
}

fn read(dump: &mut Dump, start: u64, size: u64) -> Result<Vec<u8>, ReadError> {
    let answers = dump.read_phys(&[Span::new(start, size)]);
    answers.expect("no link").remove(0)
}

#[test]
fn registers_and_memory_are_as_qemu_wrote_them() {
    let mut dump = open(&sample()).expect("a dump");
    assert_eq!(dump.name(), "d");
    assert_eq!(dump.cpu_count().expect("no link"), 2);
    assert_eq!(
        dump.all_registers().expect("no link"),
        [general(0), general(1)]
    );
    assert!(dump.registers(2).is_err());
    assert_eq!(dump.problems(), [""; 0]);
    let ram = [Span::new(MEMORY, 64), Span::new(MEMORY + 0x1000, 16)];
    assert_eq!(dump.ram().expect("no link"), Some(ram.to_vec()));
    for (start, size, first) in [
        (MEMORY, 24, 16),
        // Across the two ranges that touch.
        (MEMORY, 64, 16),
        (MEMORY + 20, 8, 36),
        (MEMORY + 63, 1, 79),
        (MEMORY + 0x1000, 16, 0),
        (MEMORY + 0x100f, 1, 15),
    ] {
        let bytes: Vec<u8> = (first..first + size as u8).collect();
        assert_eq!(read(&mut dump, start, size), Ok(bytes), "{start:#x}");
    }
    assert_eq!(read(&mut dump, 0, 0), Ok(Vec::new()));
    for (start, size) in [
        (MEMORY, 65),
        (MEMORY - 1, 2),
        (MEMORY + 0x1000, 17),
        (MEMORY + 64, 1),
        (0, 1),
        (u64::MAX, 1),
        (MEMORY, u64::MAX),
    ] {
        let span = Span::new(start, size);
        let missing = Err(ReadError::NotSaved(span));
        assert_eq!(read(&mut dump, start, size), missing, "{start:#x}");
    }
}

/// Cut anywhere it is opened as far as it goes, or an error; never is a byte made up.
#[test]
fn cut_at_any_byte_it_says_so() {
    let whole = sample();
    let headers = whole.len() - 80;
    for length in 0..whole.len() {
        let opened = open(&whole[..length]);
        assert_eq!(opened.is_ok(), length >= headers, "{length}: {opened:?}");
        let mut dump = match opened {
            Ok(dump) => dump,
            Err(error) => {
                assert!(error.starts_with("d: ") && !error.contains('\n'), "{error}");
                continue;
            }
        };
        let total = whole.len();
        assert_eq!(
            dump.problems(),
            [format!(
                "the dump is truncated or damaged: {length} of {total} bytes are there"
            )]
        );
        let there = length - headers;
        let starts = (MEMORY + 0x1000..).take(16).chain((MEMORY..).take(64));
        for (byte, start) in (0..).zip(starts) {
            let answer = read(&mut dump, start, 1);
            let expected = match usize::from(byte) < there {
                true => Ok(vec![byte]),
                false => Err(ReadError::NotSaved(Span::new(start, 1))),
            };
            assert_eq!(answer, expected, "{length}: {start:#x}");
        }
    }
}

#[test]
fn whatever_byte_is_changed_it_answers_or_refuses() {
    let whole = sample();
    for at in 0..whole.len() {
        for with in [1, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[at] ^= with;
            let Ok(mut dump) = open(&changed) else {
                continue;
            };
            let ram = dump.ram().expect("no link").expect("dumps know it");
            for span in ram {
                // It may say that it is as large as can be.
                let parts = [span, Span::new(span.start, span.size.min(4096))];
                for answer in dump
                    .read_phys(&parts)
                    .expect("no link")
                    .into_iter()
                    .flatten()
                {
                    assert!(answer.len() <= whole.len(), "{at}");
                }
            }
        }
    }
}

#[test]
fn odd_ranges_of_memory() {
    let contents: Vec<u8> = (0..32).collect();
    // Overlapping, the lower one first: as mappings of virtual memory do.
    let mut dump = with_memory(
        &[(LOAD, 16, 0x1008, 16, 16), (LOAD, 0, 0x1000, 16, 16)],
        &contents,
    );
    let low: Vec<u8> = (0..16).chain(24..32).collect();
    assert_eq!(read(&mut dump, 0x1000, 24), Ok(low));
    // One within another.
    let mut dump = with_memory(
        &[(LOAD, 8, 0x1004, 4, 4), (LOAD, 0, 0x1000, 16, 16)],
        &contents,
    );
    assert_eq!(read(&mut dump, 0x1000, 16), Ok((0..16).collect()));
    // More memory than the file holds of it: RAM, but not known.
    let mut dump = with_memory(&[(LOAD, 0, 0x1000, 16, 0x1000)], &contents);
    assert_eq!(
        dump.ram().expect("no link"),
        Some(vec![Span::new(0x1000, 0x1000)])
    );
    assert!(read(&mut dump, 0x1000, 17).is_err());
    // Nothing of it in the file, with the offset that QEMU gives such a range.
    let mut dump = with_memory(&[(LOAD, u64::MAX, 0x1000, 0, 0x1000)], &contents);
    assert!(read(&mut dump, 0x1000, 1).is_err());
    assert_eq!(dump.problems(), [""; 0]);
    // Around the end of the address space.
    let mut dump = with_memory(
        &[
            (LOAD, 0, u64::MAX - 7, 16, 16),
            (LOAD, 16, u64::MAX, 16, 16),
        ],
        &contents,
    );
    assert_eq!(read(&mut dump, u64::MAX - 7, 8), Ok((0..8).collect()));
    let mut dump = with_memory(&[(LOAD, 0, 0x1000, u64::MAX, u64::MAX)], &contents);
    assert_eq!(read(&mut dump, 0x1000, 32), Ok(contents));
    assert!(read(&mut dump, 0x1000, 33).is_err());
    assert_eq!(dump.problems().len(), 1);
}

#[test]
fn other_cores_are_no_dumps() {
    let of_process = note("CORE", 3, &[0; 136]);
    let cut_off = note("CORE", 1, &[0; 383]);
    for (notes, words) in [
        (&[][..], "it has no CPU's registers"),
        (&of_process, "the core of a process"),
        (&cut_off, "a CPU's registers are cut off"),
        (&note("INSPECTOR", 4, &[]), "a snapshot"),
        (
            &note("CORE", 1, &[0; 392]).repeat(CPU_LIMIT + 1),
            "more CPUs than any machine has",
        ),
    ] {
        let size = notes.len() as u64;
        let file = core_file(notes, &[(NOTE, 184, 0, size, size)], &[]);
        let error = open(&file).expect_err(words);
        assert!(error.contains(words), "{error}");
    }
    // More notes than are read, in a file that has room for them.
    let limit = (64 << 20) + 1;
    let large = file(&core_file(&[], &[(NOTE, 184, 0, limit, limit)], &[]));
    large.set_len(184 + limit).expect("a sparse file");
    let error = Dump::open("d", large).expect_err("too many");
    assert!(error.to_string().contains("bytes of notes"), "{error}");
}

#[test]
fn a_compressed_dump_is_named_as_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("dump");
    for first in [&b"KDUMP   \x06\0\0\0"[..], b"makedumpfile\0\0\0\0\0"] {
        std::fs::write(&path, first).expect("a file");
        let name = path.to_str().expect("a plain path");
        let opened = crate::target::open(name, std::time::Duration::ZERO);
        let error = opened.err().expect("an error").to_string();
        assert!(
            error.ends_with("`dump-guest-memory FILE`, without -z, -l or -s"),
            "{error}"
        );
    }
}
