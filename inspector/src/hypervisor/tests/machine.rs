//! A machine as small as can be, with hyp on it, and hyp's image.

use super::super::*;
use crate::image::tests::elf_file::{Program, Type};
use crate::target::testing::Ram;
use crate::target::{ReadError, Registers};

pub(super) const RAM: Span = Span {
    start: 0x4000_0000,
    size: 0x100_0000,
};
/// VA − PA of EL2's linear range.
pub(super) const LINEAR: u64 = 0x40_0000_0000;
pub(super) const VAR: u64 = 0x4030_0000;
const RECORDS: u64 = 0x4030_8000;
const REGIONS: u64 = 0x4030_9000;
const SECTIONS: u64 = 0x4030_a000;
const RELEASE: u64 = 0x4030_b000;
pub(super) const HOST_ROOT: u64 = 0x4031_0000;
pub(super) const HYP_ROOT: u64 = 0x4031_2000;
const POOL: u64 = HOST_ROOT;
const POOL_PAGES: u64 = 16;

/// A machine as small as can be: two CPUs, both regimes, and `HYP`.
#[derive(Clone)]
pub(super) struct Machine {
    pub(super) ram: Ram,
    next_table: u64,
    pub(super) registers: Registers,
    pub(super) description: Option<String>,
    pub(super) notes: Option<String>,
}

impl Machine {
    /// hyp keeps its pool, borrows 0x40001000, and lends 0x40002000; it has a stack outside the
    /// linear range; the host touched 0x40000000 and a device.
    pub(super) fn new() -> Self {
        let registers = [
            ("HCR_EL2", 0x8000_0001),
            ("VTCR_EL2", 0x8002_3558),
            ("VTTBR_EL2", HOST_ROOT),
            ("TCR_EL2", 0x8082_3519),
            ("TTBR0_EL2", HYP_ROOT | 1),
            ("MAIR_EL2", 0x04ff),
            ("cpsr", 0x3c9),
            ("pc", LINEAR + 0x4020_0040),
        ];
        let mut machine = Self {
            ram: Ram::new(RAM),
            next_table: HYP_ROOT + 0x1000,
            registers: Registers(
                registers
                    .map(|(name, value)| (name.to_owned(), value))
                    .into(),
            ),
            description: Some(description()),
            notes: None,
        };
        for (ia, word) in [
            (0x0900_0000, 0x0040_0000_0900_07ff),
            (0x4000_0000, 0x4000_07ff),
            (0x4000_1000, 0x0080_0000_4000_17ff),
            (0x4000_2000, 0x0100_0000_4000_27ff),
        ] {
            machine.map(HOST_ROOT, ia, word);
        }
        for (va, word) in [
            (LINEAR + 0x4000_1000, 0x0140_0000_4000_1743),
            (LINEAR + 0x4000_2000, 0x00c0_0000_4000_27c3),
            // A stack of hyp: private, does not count.
            (0x10_0000_0000, 0x0040_0000_4000_5743),
        ] {
            machine.map(HYP_ROOT, va, word);
        }
        for page in 0..POOL_PAGES {
            let pa = POOL + page * 0x1000;
            machine.map(HOST_ROOT, pa, 4);
            machine.map(HYP_ROOT, LINEAR + pa, 0x0040_0000_0000_0743 | pa);
        }
        machine.write_variable();
        machine
    }

    /// `HYP` as [`program`] lays it out, and what its slices point to.
    fn write_variable(&mut self) {
        self.put(VAR, &[b'A', 1]);
        self.put(VAR + 8, &0xffff_ffc0_0000_0000_u64.to_le_bytes());
        for (at, pa, count) in [
            (0x10, REGIONS, 1_u64),
            (0x20, SECTIONS, 1),
            (0x30, RELEASE, 5),
            (0x50, RECORDS, POOL_PAGES),
        ] {
            self.put(VAR + at, &(LINEAR + pa).to_le_bytes());
            self.put(VAR + at + 8, &count.to_le_bytes());
        }
        self.put(VAR + 0x40, &POOL.to_le_bytes());
        self.put(VAR + 0x48, &POOL_PAGES.to_le_bytes());
        self.put(VAR + 0x60, &HOST_ROOT.to_le_bytes());
        self.put(VAR + 0x68, &HYP_ROOT.to_le_bytes());
        // Ticket 5 is served, 6 waits; CPU 1 took it at share+0x10.
        self.put(VAR + 0x80, &[5, 0, 7, 0, 1, 0, 0, 0]);
        self.put(VAR + 0x88, &(LINEAR + 0x4020_0050).to_le_bytes());
        self.put(VAR + 0x94, &[0xff; 4]);
        self.put(REGIONS, &RAM.start.to_le_bytes());
        self.put(REGIONS + 8, &RAM.size.to_le_bytes());
        self.put(SECTIONS, &[6]);
        self.put(SECTIONS + 8, &0x4000_2000_u64.to_le_bytes());
        self.put(SECTIONS + 16, &0x1000_u64.to_le_bytes());
        self.put(RELEASE, b"0.1.0");
        self.put(RECORDS, &[4, 0]);
    }

    pub(super) fn map(&mut self, root: u64, ia: u64, word: u64) {
        let mut table = root + (ia >> 39) * 0x1000;
        for shift in [30, 21] {
            let at = table + (ia >> shift & 0x1ff) * 8;
            if self.word(at) == 0 {
                self.put(at, &(self.next_table | 3).to_le_bytes());
                self.next_table += 0x1000;
            }
            table = self.word(at) & 0x0000_ffff_ffff_f000;
        }
        self.put(table + (ia >> 12 & 0x1ff) * 8, &word.to_le_bytes());
    }

    pub(super) fn word(&self, pa: u64) -> u64 {
        self.ram.word(pa)
    }

    pub(super) fn put(&mut self, pa: u64, bytes: &[u8]) {
        self.ram.put(pa, bytes);
    }

    pub(super) fn capture(&mut self, images: &mut Images) -> System {
        capture(self, images).expect("the link holds")
    }
}

impl Target for Machine {
    fn name(&self) -> &str {
        "machine"
    }

    fn cpu_count(&mut self) -> Result<usize, TargetError> {
        Ok(2)
    }

    fn registers(&mut self, _: usize) -> Result<Registers, TargetError> {
        Ok(self.registers.clone())
    }

    fn ram(&mut self) -> Result<Option<Vec<Span>>, TargetError> {
        Ok(Some(vec![RAM]))
    }

    fn read_phys(
        &mut self,
        requests: &[Span],
    ) -> Result<Vec<Result<Vec<u8>, ReadError>>, TargetError> {
        Ok(self.ram.read(requests))
    }

    fn description(&mut self) -> Result<Option<String>, TargetError> {
        Ok(self.description.clone())
    }

    fn saved_symbols(&mut self) -> Result<Option<String>, TargetError> {
        Ok(self.notes.clone())
    }
}

pub(super) fn description() -> String {
    let lock = |name: &str, path: &str, pa: u64| {
        format!(r#"{{"name":"{name}","symbol":"{path}","pa":"{pa:#x}"}}"#)
    };
    let pool = |name: &str| {
        format!(
            r#"{{"name":"{name}","base":"{POOL:#x}","pages":{POOL_PAGES},"records":"{RECORDS:#x}","record_size":2}}"#
        )
    };
    format!(
        r#"{{"format":"hyp.description/1","release":"0.1.0","layout":{{"profile":"A"}},"granule":4096,
        "physvirt_offset":"0xffffffc000000000","later":"is ignored",
        "regimes":[{{"name":"host-s2","root":"{HOST_ROOT:#x}","vtcr":"0x80023558"}},
                   {{"name":"hyp-s1","root":"{HYP_ROOT:#x}","tcr":"0x80823519","mair":"0x4ff"}}],
        "ram":[{{"base":"0x40000000","size":16777216}}],
        "sections":[{{"name":"host-rodata","base":"0x40002000","size":4096}}],
        "locks":[{},{},{},{}],"pools":[{},{}],
        "symbols":[{{"name":"HYP","address":"0x4040300000","size":256}},
                   {{"name":"share","address":"0x4040200040","size":64}}]}}"#,
        lock("host", "HYP.host.lock", VAR + 0x80),
        lock("hyp", "HYP.hyp.lock", VAR + 0x90),
        lock("host-pool", "HYP.host.pool.lock", VAR + 0xa0),
        lock("hyp-pool", "HYP.hyp.pool.lock", VAR + 0xb0),
        pool("host-pool"),
        pool("hyp-pool"),
    )
}

pub(super) fn program() -> Program {
    let word = || Type::Number(8);
    let range = || {
        Type::record(
            "PageRange",
            16,
            vec![
                ("base", 0, Type::record("Pa", 8, vec![("__0", 0, word())])),
                ("size", 8, word()),
            ],
        )
    };
    let kinds = [
        "Text",
        "Rodata",
        "Data",
        "Bss",
        "Stacks",
        "Pools",
        "HostRodata",
    ];
    let kinds = kinds.map(str::to_owned).into_iter().zip(0..).collect();
    let section = Type::record(
        "Section",
        24,
        vec![("kind", 0, Type::Enum(kinds)), ("range", 8, range())],
    );
    let record = Type::record("PageRecord", 2, vec![("refcount", 0, Type::Number(2))]);
    let lock = || {
        Type::record(
            "TicketLock",
            16,
            vec![
                ("tickets", 0, Type::Number(4)),
                ("holder", 4, Type::Number(4)),
                ("taker", 8, word()),
            ],
        )
    };
    // Both sides share one pool here, and overlap so that one layout serves both.
    let side = |root: u64, at: u64| {
        let pool = Type::record(
            "Pool",
            0x100,
            vec![
                ("base", 0x40, word()),
                ("pages", 0x48, word()),
                ("records", 0x50, Type::slice(record.clone())),
                ("lock", at + 0x20, lock()),
            ],
        );
        let table = Type::record(
            "PageTable",
            0x100,
            vec![("root", root, word()), ("ia_bits", 0, Type::Number(1))],
        );
        Type::record(
            "Component",
            0x100,
            vec![("pgt", 0, table), ("pool", 0, pool), ("lock", at, lock())],
        )
    };
    let hyp = Type::record(
        "Hyp",
        0x100,
        vec![
            ("profile", 0, Type::Enum(vec![("A".to_owned(), 0x41)])),
            ("finalised", 1, Type::Number(1)),
            ("physvirt_offset", 8, word()),
            ("regions", 0x10, Type::slice(range())),
            ("sections", 0x20, Type::slice(section)),
            ("release", 0x30, Type::slice(Type::Number(1))),
            ("host", 0, side(0x60, 0x80)),
            ("hyp", 0, side(0x68, 0x90)),
        ],
    );
    Program {
        segments: vec![(LINEAR + 0x4020_0000, 0x4020_0000, 0x20_0000)],
        symbols: vec![
            ("share".to_owned(), LINEAR + 0x4020_0040, 64),
            ("HYP".to_owned(), LINEAR + VAR, 0x100),
        ],
        variables: vec![("HYP".to_owned(), hyp)],
        ..Program::default()
    }
}

pub(super) fn images(program: &Program) -> Images {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), program.elf()).expect("a temporary file");
    Images::open(&[file.path().to_owned()]).expect("a sound file")
}
