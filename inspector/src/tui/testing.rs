//! A machine in memory for the tests: four CPUs, 512 MiB of RAM, hyp with its tables, one lock that
//! is contended. It goes through the same capture as a real one.

mod guests;

use super::worker::Machine;
use crate::addr::Span;
use crate::hypervisor;
use crate::image::Images;
use crate::model::System;
use crate::target::testing::Ram;
use crate::target::{Breakpoint, ReadError, Registers, RunControl, RunState, Target, TargetError};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const RAM: Span = Span {
    start: 0x4000_0000,
    size: 512 << 20,
};
/// VA − PA of EL2's linear range.
const LINEAR: u64 = 0x40_0000_0000;
const TEXT: u64 = 0x4020_0000;
const DATA: u64 = 0x4024_0000;
const LOCKS: u64 = 0x4025_0000;
const RECORDS: u64 = 0x4026_0000;
const HOST_ROOT: u64 = 0x4030_0000;
const HYP_ROOT: u64 = 0x4034_0000;
const POOL_PAGES: u64 = 64;
/// hyp's memory.
const HYP: Span = Span {
    start: TEXT,
    size: 0x20_0000,
};

/// What begins at `handle_host_mem_abort`; CPU 1 stands at the call of `TicketLock::lock`.
const CODE: [u32; 32] = [
    0xa9be_7bfd,
    0x9100_03fd,
    0xa901_53f3,
    0xaa00_03f3,
    0xd53c_5214,
    0xd53c_6015,
    0xd53c_6080,
    0xd344_fc00,
    0xd374_cc00,
    0x9240_2ea8,
    0xaa08_0016,
    0x360f_ffb4,
    0xf940_0260,
    0xb400_0060,
    0x9100_0400,
    0xf900_0260,
    0xd503_201f,
    0xaa13_03e0,
    0x9100_4000,
    0x9400_07ad,
    0xaa16_03e1,
    0xaa13_03e0,
    0x9400_006a,
    0x3500_0080,
    0xaa16_03e0,
    0x9400_0060,
    0x1400_0003,
    0xaa16_03e0,
    0x97ff_ffa4,
    0xa941_53f3,
    0xa8c2_7bfd,
    0xd65f_03c0,
];

/// What stops the machine while it runs.
#[derive(Clone, Copy)]
pub(super) struct Stop {
    pub(super) cpu: usize,
    /// Where that CPU then stands.
    pub(super) pc: u64,
    /// How deep its stack has grown there, in bytes.
    pub(super) deep: u64,
    /// The word that it is about to write.
    pub(super) write: Option<(u64, u32)>,
}

/// The machine.
pub(super) struct Fake {
    pub(super) ram: Ram,
    tables: BTreeMap<u64, u64>,
    cpus: Vec<Registers>,
    state: RunState,
    breakpoints: Vec<Breakpoint>,
    /// What happens while it runs, in order.
    pub(super) script: VecDeque<Stop>,
    /// What the CPU that stands before a write will write.
    write: Option<(u64, u32)>,
    /// Breakpoints beyond these are refused.
    pub(super) room: usize,
    /// The link breaks at the next thing that is asked.
    pub(super) broken: Arc<AtomicBool>,
    /// The machine ends as soon as it runs.
    pub(super) ends: bool,
    /// The machine starts anew as soon as it runs.
    pub(super) restarts: bool,
    /// There is no hypervisor.
    pub(super) bare: bool,
    /// The next capture panics.
    pub(super) panics: bool,
}

impl Fake {
    pub(super) fn new() -> Self {
        let mut fake = Self {
            ram: Ram::new(RAM),
            tables: [
                (HOST_ROOT, HOST_ROOT + 0x2000),
                (HYP_ROOT, HYP_ROOT + 0x1000),
            ]
            .into(),
            cpus: (0..4).map(cpu).collect(),
            state: stopped(),
            breakpoints: Vec::new(),
            script: VecDeque::new(),
            write: None,
            room: 4,
            broken: Arc::default(),
            ends: false,
            restarts: false,
            bare: false,
            panics: false,
        };
        for uart in [0x0900_0000, 0x0800_0000, 0x0801_0000] {
            fake.map(HOST_ROOT, 3, uart, 0x0040_0000_0000_07ff | uart);
        }
        // What the host touched: blocks, and pages beside hyp's memory and where something is shared.
        for block in 0..12 {
            let pa = 0x4100_0000 + block * 0x40_0000;
            fake.map(HOST_ROOT, 2, pa, 0x7fd | pa);
        }
        for page in 0..96 {
            let pa = 0x4000_0000 + page * 0x1000;
            fake.map(HOST_ROOT, 3, pa, 0x7ff | pa);
        }
        for page in 0..512 {
            let pa = 0x4800_0000 + page * 0x1000;
            let shared = if matches!(page, 3..=6 | 40) {
                0x0080_0000_0000_0000
            } else {
                0
            };
            fake.map(HOST_ROOT, 3, pa, shared | 0x7ff | pa);
            if shared != 0 {
                fake.map(HYP_ROOT, 3, LINEAR + pa, 0x0140_0000_0000_0743 | pa);
            }
        }
        // The host's constants, which hyp owns and lends back.
        for pa in [0x4080_0000, 0x4080_1000] {
            fake.map(HOST_ROOT, 3, pa, 0x0100_0000_0000_0000 | 0x7ff | pa);
            fake.map(HYP_ROOT, 3, LINEAR + pa, 0x00c0_0000_0000_07c3 | pa);
        }
        for page in 0..HYP.size >> 12 {
            let pa = HYP.start + page * 0x1000;
            fake.map(HOST_ROOT, 3, pa, 4);
            let attributes = if pa < DATA {
                0x7c3
            } else {
                0x0040_0000_0000_0743
            };
            fake.map(HYP_ROOT, 3, LINEAR + pa, attributes | pa);
        }
        fake.map(HYP_ROOT, 3, 0x10_0000_0000, 0x0040_0000_0900_0703);
        fake.lock(0, 5, 8, Some((1, LINEAR + TEXT + 0x140)));
        for (index, ticket) in [(1, 9), (2, 117), (3, 40)] {
            fake.lock(index, ticket, ticket, None);
        }
        for (index, word) in CODE.into_iter().enumerate() {
            fake.ram
                .put(TEXT + 0x100 + 4 * index as u64, &u32::to_le_bytes(word));
        }
        for page in 0..POOL_PAGES {
            fake.ram.put(RECORDS + 2 * page, &[page as u8 % 7, 0]);
        }
        fake
    }

    /// Puts a word into the tables at a level, making tables on the way.
    pub(super) fn map(&mut self, root: u64, level: u32, ia: u64, word: u64) {
        let mut table = root + (ia >> 39) * 0x1000;
        for above in 1..level {
            let at = table + (ia >> (39 - 9 * above) & 0x1ff) * 8;
            if self.ram.word(at) == 0 {
                let next = self.tables.get_mut(&root).expect("a root of ours");
                let word = *next | 3;
                *next += 0x1000;
                self.ram.put(at, &word.to_le_bytes());
            }
            table = self.ram.word(at) & 0x0000_ffff_ffff_f000;
        }
        self.ram.put(
            table + (ia >> (39 - 9 * level) & 0x1ff) * 8,
            &word.to_le_bytes(),
        );
    }

    /// The same in the host's stage 2.
    pub(super) fn map_host(&mut self, level: u32, ia: u64, word: u64) {
        self.map(HOST_ROOT, level, ia, word);
    }

    /// Lends a page of the host's to hyp.
    pub(super) fn share(&mut self, pa: u64) {
        self.map(HOST_ROOT, 3, pa, 0x0080_0000_0000_07ff | pa);
        self.map(HYP_ROOT, 3, LINEAR + pa, 0x0140_0000_0000_0743 | pa);
    }

    /// Sets a lock: the ticket served, the next one, and CPU and address of the taker.
    pub(super) fn lock(&mut self, index: u64, owner: u16, next: u16, holder: Option<(u32, u64)>) {
        let at = LOCKS + 16 * index;
        let (cpu, taker) = holder.unwrap_or((u32::MAX, 0));
        self.ram.put(at, &owner.to_le_bytes());
        self.ram.put(at + 2, &next.to_le_bytes());
        self.ram.put(at + 4, &cpu.to_le_bytes());
        self.ram.put(at + 8, &taker.to_le_bytes());
    }

    /// Sets a register of a CPU.
    pub(super) fn set(&mut self, cpu: usize, register: &str, value: u64) {
        self.cpus[cpu].0.insert(register.to_owned(), value);
    }

    fn link(&self) -> Result<(), TargetError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(TargetError::Lost {
                target: "fake".into(),
                doing: "reading".into(),
                reason: "connection reset".into(),
            });
        }
        Ok(())
    }

    /// Captures it.
    pub(super) fn system(&mut self) -> System {
        let mut system = hypervisor::capture(self, &mut Images::default()).expect("the link holds");
        system.run_state = Some(self.state.clone());
        system
    }
}

pub(super) fn stopped() -> RunState {
    RunState::Stopped {
        cpu: Some(0),
        reason: "signal 2".into(),
    }
}

fn cpu(number: u64) -> Registers {
    let el2 = number == 1 || number == 2;
    let pc = match number {
        1 => LINEAR + TEXT + 0x14c,
        2 => LINEAR + TEXT + 0x2010,
        _ => 0x4100_0420 + 8 * number,
    };
    let mut registers: BTreeMap<String, u64> = [
        ("pc", pc),
        (
            "sp",
            if el2 {
                LINEAR + DATA + 0x1000 * (number + 1)
            } else {
                0x4110_0000
            },
        ),
        ("cpsr", if el2 { 0x3c9 } else { 0x3c5 }),
        ("ELR_EL2", 0x4100_0420 + 8 * number),
        ("ESR_EL2", 0x9200_0007 + (number << 6)),
        ("FAR_EL2", 0x4900_0000 + (number << 12)),
        ("HCR_EL2", 0x8000_0001),
        ("HPFAR_EL2", (0x4900_0000 + (number << 12)) >> 12 << 4),
        ("MAIR_EL2", 0x04ff),
        ("SCTLR_EL2", 0x30c5_183d),
        ("SPSR_EL2", 0x6000_03c5),
        ("TCR_EL2", 0x8082_3519),
        ("TPIDR_EL2", number),
        ("TTBR0_EL2", HYP_ROOT | 1),
        ("VBAR_EL2", LINEAR + TEXT + 0x800),
        ("VTCR_EL2", 0x8002_3558),
        ("VTTBR_EL2", HOST_ROOT),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for n in 0..31 {
        registers.insert(
            format!("x{n}"),
            if n == 19 { LINEAR + LOCKS } else { n * number },
        );
    }
    Registers(registers)
}

impl Target for Fake {
    fn name(&self) -> &str {
        "fake"
    }

    fn cpu_count(&mut self) -> Result<usize, TargetError> {
        self.link()?;
        Ok(self.cpus.len())
    }

    fn registers(&mut self, cpu: usize) -> Result<Registers, TargetError> {
        Ok(self.cpus[cpu].clone())
    }

    fn ram(&mut self) -> Result<Option<Vec<Span>>, TargetError> {
        Ok(Some(vec![RAM]))
    }

    fn read_phys(
        &mut self,
        requests: &[Span],
    ) -> Result<Vec<Result<Vec<u8>, ReadError>>, TargetError> {
        self.link()?;
        Ok(self.ram.read(requests))
    }

    fn description(&mut self) -> Result<Option<String>, TargetError> {
        Ok((!self.bare).then(description))
    }

    fn run_control(&mut self) -> Option<&mut dyn RunControl> {
        Some(self)
    }
}

impl RunControl for Fake {
    fn found_running(&self) -> bool {
        false
    }

    fn state(&mut self) -> Result<RunState, TargetError> {
        self.link()?;
        Ok(match self.state {
            RunState::Running if self.ends => RunState::Exited,
            _ => self.state.clone(),
        })
    }

    fn resume(&mut self) -> Result<(), TargetError> {
        self.link()?;
        self.state = RunState::Running;
        if self.restarts {
            let reset = ["pc", "VBAR_EL2"].map(|name| (name.to_owned(), 0));
            self.cpus = vec![Registers(reset.into()); self.cpus.len()];
        }
        Ok(())
    }

    fn interrupt(&mut self) -> Result<(), TargetError> {
        self.link()?;
        self.state = stopped();
        Ok(())
    }

    fn wait(&mut self, _: Duration) -> Result<RunState, TargetError> {
        if self.state == RunState::Running
            && let Some(stop) = self.script.pop_front()
        {
            let sp = cpu(stop.cpu as u64).get("sp").expect("each has one");
            self.set(stop.cpu, "sp", sp - stop.deep);
            self.set(stop.cpu, "pc", stop.pc);
            self.write = stop.write;
            self.state = RunState::Stopped {
                cpu: Some(stop.cpu),
                reason: "signal 5".into(),
            };
        }
        self.state()
    }

    fn insert_all(
        &mut self,
        breakpoints: &[Breakpoint],
    ) -> Result<Vec<Result<(), String>>, TargetError> {
        self.link()?;
        let insert = |breakpoint: &Breakpoint| {
            if self.breakpoints.len() == self.room {
                return Err("no room".to_owned());
            }
            if !self.breakpoints.contains(breakpoint) {
                self.breakpoints.push(*breakpoint);
            }
            Ok(())
        };
        Ok(breakpoints.iter().map(insert).collect())
    }

    fn remove_all(&mut self, breakpoints: &[Breakpoint]) -> Result<(), TargetError> {
        self.link()?;
        self.breakpoints
            .retain(|other| !breakpoints.contains(other));
        Ok(())
    }

    fn breakpoints(&self) -> Vec<Breakpoint> {
        self.breakpoints.clone()
    }

    /// Every instruction leads to the next.
    fn step(&mut self, cpu: usize) -> Result<u64, TargetError> {
        self.link()?;
        if let Some((pa, word)) = self.write.take() {
            self.ram.put(pa, &word.to_le_bytes());
        }
        let pc = self.cpus[cpu].0.get_mut("pc").expect("each has one");
        *pc += 4;
        Ok(*pc)
    }
}

impl Machine for (Fake, Images) {
    fn name(&self) -> &str {
        "fake"
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    fn capture(&mut self) -> anyhow::Result<System> {
        let (fake, images) = self;
        assert_ne!(
            fake.state,
            RunState::Running,
            "a machine that runs cannot be read"
        );
        assert!(!fake.panics, "as asked");
        Ok(hypervisor::capture(fake, images)?)
    }

    fn parts(&mut self) -> (&mut dyn Target, &mut Images) {
        (&mut self.0, &mut self.1)
    }

    fn save(&mut self, path: &Path) -> anyhow::Result<()> {
        self.0.link()?;
        anyhow::ensure!(
            path.parent().is_some_and(Path::is_dir),
            "{}: no such folder",
            path.display()
        );
        Ok(())
    }
}

fn description() -> String {
    let locks = [
        ("host", "HYP.host.lock"),
        ("hyp", "HYP.hyp.lock"),
        ("host-pool", "HYP.host.pool.lock"),
        ("hyp-pool", "HYP.hyp.pool.lock"),
    ];
    let locks = locks.iter().enumerate().map(|(i, (name, symbol))| {
        let pa = LOCKS + 16 * i as u64;
        serde_json::json!({"name": name, "symbol": symbol, "pa": format!("{pa:#x}")})
    });
    let symbols = [
        ("handle_trap", 0x0, 0x100),
        ("handle_host_mem_abort", 0x100, 0x200),
        ("host_share_hyp", 0x300, 0x180),
        ("vectors", 0x800, 0x800),
        ("hyp_panic", 0x1000, 0x40),
        ("TicketLock::lock", 0x2000, 0x60),
        ("HYP", DATA - TEXT, 0x400),
    ];
    let symbols = symbols.iter().map(|(name, offset, size)| {
        let address = LINEAR + TEXT + offset;
        serde_json::json!({"name": name, "address": format!("{address:#x}"), "size": size})
    });
    let sections = [
        ("text", TEXT, DATA - TEXT),
        ("data", DATA, 0x1_0000),
        ("bss", LOCKS, 0xb_0000),
        ("pools", HOST_ROOT, 2 * POOL_PAGES * 4096),
        ("host-rodata", 0x4080_0000, 0x2000),
    ];
    let sections = sections.iter().map(|(name, base, size)| {
        serde_json::json!({"name": name, "base": format!("{base:#x}"), "size": size})
    });
    let pools = [("host-pool", HOST_ROOT), ("hyp-pool", HYP_ROOT)].map(|(name, base)| {
        serde_json::json!({"name": name, "base": format!("{base:#x}"), "pages": POOL_PAGES,
            "records": format!("{RECORDS:#x}"), "record_size": 2})
    });
    serde_json::json!({
        "format": "hyp.description/1", "release": "0.1.0", "granule": 4096,
        "layout": {"profile": "A"},
        "physvirt_offset": "0xffffffc000000000",
        "regimes": [
            {"name": "host-s2", "root": format!("{HOST_ROOT:#x}"), "vtcr": "0x80023558"},
            {"name": "hyp-s1", "root": format!("{HYP_ROOT:#x}"), "tcr": "0x80823519", "mair": "0x4ff"},
        ],
        "ram": [{"base": format!("{:#x}", RAM.start), "size": RAM.size}],
        "sections": sections.collect::<Vec<_>>(),
        "locks": locks.collect::<Vec<_>>(),
        "pools": pools,
        "symbols": symbols.collect::<Vec<_>>(),
    })
    .to_string()
}
