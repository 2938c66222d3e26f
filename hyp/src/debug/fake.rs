//! A small machine for tests: RAM that tests fill by hand, registers that keep what is written.

use super::registers::{Register, System};
use super::*;
use std::collections::{BTreeMap, VecDeque};
use std::vec::Vec;

pub(crate) const RAM: Region = Region {
    base: 0x4000_0000,
    size: 0x20_0000,
};
pub(crate) const OFFSET: u64 = (0x40_0000_0000u64).wrapping_neg();
pub(crate) const HOST_ROOT: u64 = 0x4010_0000;
pub(crate) const HYP_ROOT: u64 = 0x4010_2000;
pub(crate) const HOST_LOCK: u64 = 0x4018_0000;
pub(crate) const RECORDS: u64 = 0x4018_1000;

/// Words that stand in RAM; all other RAM is zero.
pub(crate) struct Fake {
    pub(crate) words: BTreeMap<u64, u64>,
    pub(crate) registers: Vec<(usize, Register, u64)>,
    pub(crate) resumed: Vec<Resume>,
    pub(crate) breakpoints: Vec<Breakpoint>,
    /// What the coming calls of `run` return; after these nothing stops it.
    pub(crate) stops: VecDeque<Option<Stop>>,
    /// Where hyp panicked.
    pub(crate) panicked: Option<usize>,
    /// How often it ran.
    pub(crate) runs: usize,
    /// How often it was let go.
    pub(crate) let_go: usize,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self {
            words: BTreeMap::new(),
            registers: Vec::new(),
            resumed: Vec::new(),
            breakpoints: Vec::new(),
            stops: VecDeque::new(),
            panicked: None,
            runs: 0,
            let_go: 0,
        }
    }

    /// A machine with a small host stage 2 and hyp stage 1, covering each joint state:
    ///
    /// | page | host | hyp |
    /// |---|---|---|
    /// | 0x40000000 | owned page | – |
    /// | 0x40001000 | shared-owned | shared-borrowed |
    /// | 0x40002000, 0x40003000 | annotation hyp | owned |
    /// | 0x40004000 | shared-borrowed | shared-owned |
    pub(crate) fn with_tables() -> Self {
        let mut fake = Self::new();
        fake.words.extend([
            (HOST_ROOT + 8, 0x4010_3003),
            (0x4010_3000, 0x4010_4003),
            (0x4010_4000, 0x0000_0000_4000_07ff),
            (0x4010_4008, 0x0080_0000_4000_17ff),
            (0x4010_4010, 4),
            (0x4010_4018, 4),
            (0x4010_4020, 0x0100_0000_4000_47ff),
            // 0x40_4000_0000 is entry 257 of hyp's root table.
            (HYP_ROOT + 257 * 8, 0x4010_5003),
            (0x4010_5000, 0x4010_6003),
            (0x4010_6008, 0x0140_0000_4000_1743),
            (0x4010_6010, 0x0040_0000_4000_2743),
            (0x4010_6018, 0x0040_0000_4000_3743),
            (0x4010_6020, 0x00c0_0000_4000_47c3),
        ]);
        fake
    }

    pub(crate) fn set(&mut self, cpu: usize, register: Register, value: u64) {
        self.registers
            .retain(|known| (known.0, known.1) != (cpu, register));
        self.registers.push((cpu, register, value));
    }
}

impl Inferior for Fake {
    fn facts(&self) -> Facts<'_> {
        Facts {
            cpus: 2,
            physvirt_offset: OFFSET,
            host_s2: HostStage2 {
                root: HOST_ROOT,
                vtcr: 0x8002_3558,
            },
            hyp_s1: HypStage1 {
                root: HYP_ROOT,
                tcr: 0x8082_3519,
                mair: 0x4ff,
            },
            ram: &[RAM],
            sections: &[Section {
                name: "text",
                region: Region {
                    base: 0x4000_2000,
                    size: 0x1000,
                },
            }],
            locks: &[Lock {
                name: "host",
                symbol: "HYP.host.lock",
                pa: HOST_LOCK,
            }],
            pools: &[Pool {
                name: "host-pool",
                base: HOST_ROOT,
                pages: 8,
                records: RECORDS,
                record_size: 2,
            }],
            stacks: &[0x40_4019_0000, 0x40_4019_4000],
            symbols: &[Symbol {
                name: "share_hyp",
                address: 0x40_4000_2100,
                size: 0x40,
            }],
        }
    }

    fn register(&self, cpu: usize, register: Register) -> Option<u64> {
        let known = |known: &&(usize, Register, u64)| (known.0, known.1) == (cpu, register);
        self.registers.iter().find(known).map(|known| known.2)
    }

    fn set_register(&mut self, cpu: usize, register: Register, value: u64) -> Result<(), Refused> {
        if register == Register::System(System::TCR_EL2) {
            return Err(Refused::ReadOnly);
        }
        self.set(cpu, register, value);
        Ok(())
    }

    fn read_phys(&self, pa: u64, bytes: &mut [u8]) -> usize {
        let in_ram = |(i, _): &(usize, &mut u8)| {
            pa.checked_add(*i as u64).is_some_and(|pa| RAM.contains(pa))
        };
        bytes
            .iter_mut()
            .enumerate()
            .take_while(in_ram)
            .map(|(i, byte)| {
                let pa = pa + i as u64;
                let word = self.words.get(&(pa & !7)).copied().unwrap_or(0);
                *byte = word.to_le_bytes()[(pa & 7) as usize];
            })
            .count()
    }

    fn write_phys(&mut self, pa: u64, bytes: &[u8]) -> Result<(), Refused> {
        let end = pa
            .checked_add(bytes.len() as u64)
            .ok_or(Refused::Unmapped)?;
        if pa < RAM.base || end > RAM.end() {
            return Err(Refused::Unmapped);
        }
        for (pa, &byte) in (pa..).zip(bytes) {
            let word = self.words.entry(pa & !7).or_insert(0);
            let shift = 8 * (pa & 7);
            *word = *word & !(0xff << shift) | u64::from(byte) << shift;
        }
        Ok(())
    }

    fn translate(&self, _cpu: usize, va: u64) -> Option<u64> {
        walk::lookup(self, walk::Regime::HypS1, va).output(va)
    }

    fn resume(&mut self, resume: Resume) {
        self.resumed.push(resume);
    }

    fn run(&mut self) -> Option<Stop> {
        self.runs += 1;
        self.stops.pop_front().flatten()
    }

    fn panicked(&self) -> Option<usize> {
        self.panicked
    }

    fn insert(&mut self, breakpoint: Breakpoint) -> Result<(), Refused> {
        match breakpoint {
            Breakpoint::Software { va } => {
                self.translate(0, va).ok_or(Refused::Unmapped).map(drop)?;
            }
            Breakpoint::Hardware { .. } | Breakpoint::Watch { .. }
                if self.breakpoints.len() >= 4 =>
            {
                return Err(Refused::Full);
            }
            _ => {}
        }
        if !self.breakpoints.contains(&breakpoint) {
            self.breakpoints.push(breakpoint);
        }
        Ok(())
    }

    fn remove(&mut self, breakpoint: Breakpoint) -> bool {
        let before = self.breakpoints.len();
        self.breakpoints.retain(|known| *known != breakpoint);
        self.breakpoints.len() < before
    }

    fn let_go(&mut self) -> usize {
        self.let_go += 1;
        self.breakpoints.drain(..).count()
    }

    fn stats(&self, visit: &mut dyn FnMut(&str, u64)) {
        visit("steps", 12);
        visit("host-aborts", 3);
    }
}
