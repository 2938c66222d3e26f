use super::notes::Checksums;
use super::*;
use crate::target::{Recorder, merge};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::process::Command;

/// hyp's linear map: VA = PA + 0x40_0000_0000.
const PHYSVIRT: u64 = 0_u64.wrapping_sub(0x40_0000_0000);

fn registers(pc: u64) -> Registers {
    let values = [
        ("pc", pc),
        ("x0", 1),
        ("x30", 31),
        ("sp", 0x4020_8000),
        ("cpsr", 0x3c9),
    ];
    let values = values.map(|(name, value)| (name.to_owned(), value));
    let mut registers = Registers(values.into());
    registers.0.insert("VTTBR_EL2".to_owned(), 0x4100_0000);
    registers.0.insert("HCR_EL2".to_owned(), u64::MAX);
    registers
}

fn sample() -> Contents {
    Contents {
        registers: vec![registers(0x40_4020_1000), registers(0x4100_2000)],
        ram: Some(vec![Span::new(0x4000_0000, 0x800_0000)]),
        memory: vec![
            Memory {
                start: 0x4020_0000,
                bytes: (0..64).collect(),
            },
            Memory {
                start: 0x4020_1000,
                bytes: vec![0; 3],
            },
        ],
        refused: vec![Refusal {
            span: Span::new(0x4030_0000, 8),
            reason: "QEMU answered `E14`".to_owned(),
        }],
        description: Some(r#"{"format":"hyp.description/1"}"#.to_owned()),
        symbols: Some("{}".to_owned()),
        physvirt_offset: Some(PHYSVIRT),
        found_running: Some(true),
    }
}

/// What the file gives back, memory included.
fn decode(file: &[u8]) -> Result<Contents, String> {
    let (contents, segments) = read::parse(file)?;
    let memory = segments
        .into_iter()
        .map(|(span, range)| Memory {
            start: span.start,
            bytes: file[range].to_vec(),
        })
        .collect();
    Ok(Contents { memory, ..contents })
}

fn save(contents: &Contents) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.core");
    write(&path, contents).unwrap();
    let name = path.to_str().unwrap().to_owned();
    (dir, name)
}

/// Bytes as `load` would have them, or what it says.
fn open_bytes(bytes: &[u8]) -> Result<Snapshot, TargetError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.core");
    std::fs::write(&path, bytes).unwrap();
    Snapshot::open(path.to_str().unwrap())
}

#[test]
fn what_is_written_is_read() {
    let file = write::encode(&sample()).unwrap();
    assert_eq!(decode(&file), Ok(sample()));
    assert_eq!(write::encode(&sample()).unwrap(), file);

    let bare = Contents::default();
    assert_eq!(decode(&write::encode(&bare).unwrap()), Ok(bare));
}

#[test]
fn a_snapshot_answers_as_the_machine_did() {
    let (_dir, name) = save(&sample());
    let mut snapshot = crate::target::open(&name, std::time::Duration::ZERO).unwrap();
    assert_eq!(snapshot.name(), name);
    assert_eq!(snapshot.cpu_count().unwrap(), 2);
    assert_eq!(snapshot.registers(1).unwrap(), registers(0x4100_2000));
    assert!(snapshot.registers(2).is_err());
    assert!(snapshot.run_control().is_none());
    assert_eq!(snapshot.description().unwrap(), sample().description);
    assert_eq!(snapshot.saved_symbols().unwrap(), sample().symbols);

    let refused = Span::new(0x4030_0000, 8);
    let table = [
        (Span::new(0x4020_0002, 3), Ok(vec![2, 3, 4])),
        (Span::new(0x4020_0000, 64), Ok((0..64).collect())),
        (Span::new(0x4020_1000, 3), Ok(vec![0; 3])),
        (Span::new(0, 0), Ok(vec![])),
        (
            refused,
            Err(ReadError::Refused {
                span: refused,
                reason: "QEMU answered `E14`".to_owned(),
            }),
        ),
    ];
    let spans = table.clone().map(|(span, _)| span);
    assert_eq!(
        snapshot.read_phys(&spans).unwrap(),
        table.map(|(_, answer)| answer)
    );
    for span in [
        Span::new(0x4020_003f, 2),
        Span::new(0x4000_0000, 1),
        Span::new(0x4030_0000, 9),
    ] {
        assert_eq!(
            snapshot.read_phys(&[span]).unwrap(),
            [Err(ReadError::NotSaved(span))]
        );
    }
    for span in [
        Span::new(0x4800_0000, 1),
        Span::new(0x47ff_ffff, 2),
        Span::new(0, 1),
        Span::new(u64::MAX, 1),
    ] {
        assert_eq!(
            snapshot.read_phys(&[span]).unwrap(),
            [Err(ReadError::Unbacked(span))]
        );
    }
}

#[test]
fn a_recording_of_a_snapshot_is_the_snapshot() {
    let (_dir, name) = save(&sample());
    let mut snapshot = Snapshot::open(&name).unwrap();
    let mut recorder = Recorder::new(&mut snapshot);
    // In another order, overlapping, in pieces; with ranges that cannot be read.
    let spans = [
        Span::new(0x4020_1000, 3),
        Span::new(0x4020_0020, 32),
        Span::new(0x4020_0000, 33),
        Span::new(0x4030_0000, 8),
        Span::new(0x900_0000, 4),
        Span::new(0x4000_0000, 4),
        Span::new(0x4020_0000, 0),
    ];
    let direct = Snapshot::open(&name).unwrap().read_phys(&spans).unwrap();
    assert_eq!(recorder.read_phys(&spans).unwrap(), direct);
    let contents = recorder.finish().unwrap();
    let expected = Contents {
        physvirt_offset: None,
        found_running: None,
        ..sample()
    };
    assert_eq!(contents, expected);
}

#[test]
fn truncated_anywhere_it_says_so() {
    let file = write::encode(&sample()).unwrap();
    for length in 0..file.len() {
        let error = read::parse(&file[..length]).unwrap_err();
        assert!(error.contains("truncated or damaged"), "{length}: {error}");
        assert!(!error.contains('\n'), "{length}: {error}");
    }
    let error = open_bytes(&file[..file.len() - 1]).unwrap_err().to_string();
    assert!(error.contains("truncated or damaged: "), "{error}");
    let error = open_bytes(&file[..3]).unwrap_err().to_string();
    assert!(error.contains("neither a snapshot"), "{error}");
    let longer = [&file[..], b"x"].concat();
    let error = open_bytes(&longer).unwrap_err().to_string();
    assert!(error.contains("bytes are there"), "{error}");
}

#[test]
fn every_changed_byte_is_noticed() {
    let file = write::encode(&sample()).unwrap();
    for at in 0..file.len() {
        for with in [0x01, 0x80, 0xff] {
            let mut changed = file.clone();
            changed[at] ^= with;
            let error = read::parse(&changed).unwrap_err();
            assert!(!error.is_empty() && !error.contains('\n'), "{at}: {error}");
        }
    }
}

#[test]
fn damage_is_located() {
    let file = write::encode(&sample()).unwrap();
    let says = |at: usize| {
        let mut changed = file.clone();
        changed[at] ^= 4;
        read::parse(&changed).unwrap_err()
    };
    let memory = file.len() - 10;
    assert_eq!(
        says(memory),
        "it is damaged: the checksum of the memory at 0x40200000 is wrong"
    );
    assert_eq!(
        says(file.len() - 1),
        "it is damaged: the checksum of the memory at 0x40201000 is wrong"
    );
    // e_entry
    assert_eq!(
        says(24),
        "it is damaged: the checksum of its headers is wrong"
    );
    let pid = 64 + 3 * 56 + 20 + 32;
    assert_eq!(
        says(pid),
        "it is damaged: the checksum of its notes is wrong"
    );
}

#[test]
fn other_files_are_no_snapshots() {
    let mut program = write::encode(&Contents::default()).unwrap();
    program[16] = 2; // ET_EXEC
    let mut other_machine = write::encode(&Contents::default()).unwrap();
    other_machine[18] = 62; // EM_X86_64
    for (bytes, words) in [
        (
            &b""[..],
            "neither a snapshot nor a memory dump: it is no ELF core",
        ),
        (
            b"hello\n",
            "neither a snapshot nor a memory dump: it is no ELF core",
        ),
        (
            &[0; 4096],
            "neither a snapshot nor a memory dump: it is no ELF core",
        ),
        (
            &other_machine,
            "neither a snapshot nor a memory dump: it is no ELF core",
        ),
        (&program, "no snapshot but a program: name it with --image"),
    ] {
        let error = open_bytes(bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }

    let mut foreign = write::encode(&Contents::default()).unwrap();
    while let Some(at) = foreign.windows(9).position(|name| name == notes::OURS) {
        foreign[at..at + 9].copy_from_slice(b"SOMEBODYS");
    }
    let error = open_bytes(&foreign).unwrap_err().to_string();
    assert!(
        error.contains("not one that `inspector save` wrote"),
        "{error}"
    );

    let dir = tempfile::tempdir().unwrap();
    let error = Snapshot::open(dir.path().to_str().unwrap())
        .unwrap_err()
        .to_string();
    assert!(error.contains("not a regular file"), "{error}");
    let missing = dir.path().join("none");
    let error = crate::target::open(missing.to_str().unwrap(), std::time::Duration::ZERO)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("no such file; a target is"), "{error}");
}

#[test]
fn nothing_is_left_behind_when_writing_fails() {
    let dir = tempfile::tempdir().unwrap();
    let taken = dir.path().join("taken");
    std::fs::create_dir_all(taken.join("inside")).unwrap();
    let error = write(&taken, &sample()).unwrap_err().to_string();
    assert!(error.contains("taken: cannot write it"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);

    let error = write(&dir.path().join("no/where"), &sample())
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot write it"), "{error}");
}

#[test]
fn writing_replaces_what_was_there() {
    let (dir, name) = save(&Contents::default());
    write(Path::new(&name), &sample()).unwrap();
    assert_eq!(decode(&std::fs::read(&name).unwrap()), Ok(sample()));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn lies_with_good_checksums_are_refused() {
    let memory = |starts: &[u64]| Contents {
        memory: starts
            .iter()
            .map(|start| Memory {
                start: *start,
                bytes: vec![1; 16],
            })
            .collect(),
        ..Contents::default()
    };
    let cases = [
        (
            memory(&[0x2000, 0x1000]),
            "memory at 0x1000 is out of order",
        ),
        (
            memory(&[0x1000, 0x1008]),
            "memory at 0x1008 is out of order",
        ),
        (
            memory(&[u64::MAX - 3]),
            "memory at 0xfffffffffffffffc is out of order",
        ),
        (
            Contents {
                registers: vec![Registers::default(); 4097],
                ..Contents::default()
            },
            "more CPUs than any machine",
        ),
    ];
    for (contents, says) in cases {
        let file = write::encode(&contents).unwrap();
        let error = read::parse(&file).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    let many = Contents {
        memory: (0..0x1_0000)
            .map(|n| Memory {
                start: n * 2,
                bytes: vec![0],
            })
            .collect(),
        ..Contents::default()
    };
    assert!(
        write::encode(&many)
            .unwrap_err()
            .contains("separate ranges")
    );
}

#[test]
fn facts_that_are_none_are_refused() {
    for (facts, says) in [
        (&b""[..], "not what they should be"),
        (b"{}", "not what they should be"),
        (
            br#"{"format":"inspector.snapshot/2","tool":"","refused":[],"cpus":[]}"#,
            "this version reads",
        ),
        (
            br#"{"format":"inspector.snapshot/1","tool":"","refused":[],"cpus":[{"pc":"12"}]}"#,
            "no \"0x…\" word",
        ),
        (
            br#"{"format":"inspector.snapshot/1","tool":"","refused":[],"cpus":[{"pc":12}]}"#,
            "not what they should be",
        ),
    ] {
        let error = notes::parse_facts(facts).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn readelf_knows_it() {
    let (_dir, name) = save(&sample());
    let output = Command::new("readelf")
        .args(["-aW", &name])
        .env("LC_ALL", "C")
        .output()
        .expect("readelf is missing: install binutils (`cargo fixtures setup` does)");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    for says in [
        "CORE (Core file)",
        "AArch64",
        "NT_PRSTATUS",
        "INSPECTOR",
        "0x0000004040200000 0x0000000040200000 0x000040 0x000040 RWE",
    ] {
        assert!(text.contains(says), "{says} is missing in:\n{text}");
    }
}

#[test]
fn gdb_opens_it() {
    let (_dir, name) = save(&sample());
    let output = Command::new("gdb-multiarch")
        .args(["-nx", "-batch", "-ex", "set architecture aarch64", "-ex"])
        .arg(format!("core-file {name}"))
        .args(["-ex", "info threads", "-ex", "p/x $sp", "-ex", "p/x $x30"])
        .args([
            "-ex",
            "x/8xb 0x4040200008",
            "-ex",
            "thread 2",
            "-ex",
            "p/x $pc",
        ])
        .env("LC_ALL", "C")
        .output()
        .expect("gdb-multiarch is missing: install it (`cargo fixtures setup` does)");
    let text = String::from_utf8_lossy(&output.stdout);
    for says in [
        "LWP 1",
        "LWP 2",
        "$1 = 0x40208000",
        "$2 = 0x1f",
        "0x08\t0x09\t0x0a\t0x0b\t0x0c\t0x0d\t0x0e\t0x0f",
        "$3 = 0x41002000",
    ] {
        assert!(
            text.contains(says),
            "{says} is missing in:\n{text}\n{output:?}"
        );
    }
}

/// Sets the checksums right again in a file whose parts are still where they were.
fn reseal(file: &mut [u8], original: &[u8]) {
    let content = checksums_of(original);
    let mut checksums = Checksums::parse(&original[content.clone()]).unwrap();
    let mut start = 0;
    for part in &mut checksums.parts {
        part.crc = crc32fast::hash(&file[start..part.end as usize]);
        start = part.end as usize;
        if start == content.start {
            start = content.end;
        }
    }
    file[content].copy_from_slice(&checksums.encode());
}

/// Where the content of the note of checksums is.
fn checksums_of(file: &[u8]) -> Range<usize> {
    let memory: usize = sample().memory.iter().map(|range| range.bytes.len()).sum();
    let end = file.len() - memory;
    (0..end)
        .map(|start| start..end)
        .find(|range| Checksums::parse(&file[range.clone()]).is_some())
        .unwrap()
}

fn any_contents() -> impl Strategy<Value = Contents> {
    let range = (0_u64..1 << 16, 1_u64..300);
    let cpu = proptest::collection::btree_map("[A-Za-z0-9_]{1,12}", any::<u64>(), 0..5);
    let text = proptest::option::of(".{0,40}");
    let ranges = || proptest::collection::vec(range.clone(), 0..6);
    (
        (proptest::collection::vec(cpu, 0..4), ranges(), ranges()),
        (
            text.clone(),
            text,
            any::<Option<u64>>(),
            any::<Option<bool>>(),
        ),
        ".{0,20}",
    )
        .prop_map(
            |((cpus, ram, memory), (description, symbols, offset, running), reason)| {
                let spans = |ranges: Vec<(u64, u64)>| {
                    merge(
                        ranges
                            .into_iter()
                            .map(|(at, size)| Span::new(at, size))
                            .collect(),
                    )
                };
                let memory = spans(memory);
                Contents {
                    registers: cpus
                        .into_iter()
                        .map(|cpu: BTreeMap<String, u64>| Registers(cpu))
                        .collect(),
                    ram: Some(spans(ram)),
                    refused: memory
                        .iter()
                        .map(|span| Refusal {
                            span: *span,
                            reason: reason.clone(),
                        })
                        .collect(),
                    memory: memory
                        .iter()
                        .map(|span| Memory {
                            start: span.start,
                            bytes: (span.start..span.start + span.size)
                                .map(|n| n as u8)
                                .collect(),
                        })
                        .collect(),
                    description,
                    symbols,
                    physvirt_offset: offset,
                    found_running: running,
                }
            },
        )
}

proptest! {
    #[test]
    fn any_contents_come_back(contents in any_contents()) {
        let file = write::encode(&contents).unwrap();
        prop_assert_eq!(decode(&file), Ok(contents));
    }

    #[test]
    fn any_bytes_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read::parse(&bytes).is_err());
        let with_magic = [b"\x7fELF\x02\x01\x01".as_slice(), &bytes].concat();
        prop_assert!(read::parse(&with_magic).is_err());
    }

    #[test]
    fn forged_files_never_panic(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let original = write::encode(&sample()).unwrap();
        let mut file = original.clone();
        for (at, with) in changes {
            file[at.index(original.len())] = with;
        }
        reseal(&mut file, &original);
        if let Ok(snapshot) = Snapshot::from_bytes("forged", file) {
            for (span, _) in &snapshot.segments {
                prop_assert!(snapshot.read(*span).is_ok());
            }
            let _ = snapshot.read(Span::new(u64::MAX, 1));
        }
    }
}
