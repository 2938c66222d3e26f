//! Words known from the patch series and from machines, each with what it must mean.

use inspector::arch::regime::{El2Stage1, IdRegisters, Regime};
use inspector::arch::walk::{self, Kind, Walk};

/// 4 KiB, 40 bits from level 1, two roots.
fn host() -> Regime {
    Regime::stage2(0x4800_0000, 0x8005_3558, 0, IdRegisters::default()).unwrap()
}

/// 4 KiB, 39 bits, attribute 0 normal and 1 device.
fn hyp() -> Regime {
    let registers = El2Stage1 {
        tcr: 0x8085_3519,
        mair: 0x04ff,
        ..El2Stage1::default()
    };
    Regime::el2_stage1(0x4900_0000, registers, IdRegisters::default()).unwrap()
}

/// What `word` becomes as the first descriptor below the root, at `level`.
fn entry(regime: &Regime, level: i8, word: u64) -> walk::Entry {
    let mut memory = crate::memory::Memory::default();
    let size = usize::try_from(regime.root_span().size / 8).unwrap();
    let mut pa = regime.root;
    memory.tables.insert(pa, vec![0; size]);
    for _ in regime.start_level..level {
        let next = pa + 0x10_0000;
        memory.tables.get_mut(&pa).unwrap()[0] = next | 3;
        memory.tables.insert(next, vec![0; 512]);
        pa = next;
    }
    memory.tables.get_mut(&pa).unwrap()[0] = word;
    let Walk { entries, .. } = walk::walk_all(regime, &mut |spans| memory.read(spans)).unwrap();
    assert_eq!(entries.len(), 1);
    entries.into_iter().next().unwrap()
}

/// `kind oa permissions memory shareability af sw` in one line.
fn line(entry: &walk::Entry) -> String {
    let kind = match entry.kind {
        Kind::Block => "block",
        Kind::Page => "page",
        Kind::Invalid => "invalid",
        Kind::Reserved => "reserved",
        Kind::Loop => "loop",
        Kind::Unreadable => "unreadable",
    };
    let mut line = kind.to_owned();
    if let Some(oa) = entry.oa {
        line += &format!(" {oa:#x}");
    }
    if let Some(at) = entry.attributes {
        let letter = |allowed, letter| if allowed { letter } else { '-' };
        line += &format!(
            " {}{}{} {} {}{}",
            letter(at.read, 'R'),
            letter(at.write, 'W'),
            letter(at.execute, 'X'),
            at.memory,
            at.shareability,
            if at.af { " AF" } else { "" }
        );
    }
    format!("{line} sw={}", entry.sw)
}

#[test]
fn words_of_the_host() {
    for (level, word, expected) in [
        (
            3,
            0x0000_0000_4800_07ff,
            "page 0x48000000 RWX normal-wb inner AF sw=0",
        ),
        (
            3,
            0x0080_0000_4800_07ff,
            "page 0x48000000 RWX normal-wb inner AF sw=1",
        ),
        (
            3,
            0x0100_0000_4800_07ff,
            "page 0x48000000 RWX normal-wb inner AF sw=2",
        ),
        (
            3,
            0x0180_0000_4800_07ff,
            "page 0x48000000 RWX normal-wb inner AF sw=3",
        ),
        (
            3,
            0x0040_0000_0900_07ff,
            "page 0x9000000 RW- normal-wb inner AF sw=0",
        ),
        (
            2,
            0x0000_0000_4800_07fd,
            "block 0x48000000 RWX normal-wb inner AF sw=0",
        ),
        (3, 0x0000_0000_0000_0004, "invalid sw=0"),
        (3, 0x0100_0000_0000_0000, "invalid sw=2"),
        (3, 0x2000_0000_0000_0002, "invalid sw=0"),
        (3, 0x2000_0080_0001_0004, "invalid sw=0"),
        (3, 0x3000_0000_0000_0000, "invalid sw=0"),
    ] {
        let entry = entry(&host(), level, word);
        assert_eq!(line(&entry), expected, "{word:#x}");
        assert_eq!((entry.raw, entry.level, entry.problem), (word, level, None));
    }
}

#[test]
fn words_of_the_hypervisor() {
    for (word, expected) in [
        (
            0x0040_0000_7c00_1743,
            "page 0x7c001000 RW- normal-wb inner AF sw=0",
        ),
        (
            0x0140_0000_4800_0743,
            "page 0x48000000 RW- normal-wb inner AF sw=2",
        ),
        (
            0x00c0_0000_4100_07c3,
            "page 0x41000000 R-- normal-wb inner AF sw=1",
        ),
        (
            0x0000_0000_4120_07c3,
            "page 0x41200000 R-X normal-wb inner AF sw=0",
        ),
        // A fixmap slot of Linux 7.3: a page with only its valid bit cleared.
        (0x0060_0000_429d_c402, "invalid sw=0"),
    ] {
        let entry = entry(&hyp(), 3, word);
        assert_eq!(line(&entry), expected, "{word:#x}");
        assert_eq!(entry.problem, None);
    }
}
