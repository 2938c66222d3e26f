//! A little RAM with EL2's and the host's translation, to test readers of the hypervisor's memory on.

use super::memory::Memory;
use crate::addr::Span;
use crate::arch::regime::{El2Stage1, IdRegisters, Regime};
use crate::arch::walk::Table;
use crate::model::Cpu;
use crate::target::testing::Ram;
use crate::target::{ReadError, Registers, Target, TargetError};

/// The RAM there is; both translations map all of the GiB around it.
pub(super) const RAM: Span = Span {
    start: 0x4000_0000,
    size: 0x10_0000,
};
/// EL2's virtual address − physical address.
pub(super) const HYP: u64 = 0x40_0000_0000;
/// The host's virtual address − physical address.
pub(super) const KERNEL: u64 = 0xffff_ffc0_0000_0000;

const HYP_ROOT: u64 = RAM.start;
const HOST_ROOT: u64 = RAM.start + 0x1000;
/// 39 bits of 4K tables, E2H=0.
const TCR_EL2: u64 = 0x8005_3519;
/// T1SZ 25, TG1 4K, IPS 48 bits.
const TCR_EL1: u64 = 25 << 16 | 2 << 30 | 5 << 32;

pub(super) struct Machine {
    ram: Ram,
    /// How often memory was read.
    pub(super) waits: usize,
}

impl Machine {
    pub(super) fn new() -> Self {
        let mut machine = Self {
            ram: Ram::new(RAM),
            waits: 0,
        };
        machine.map_for_hyp(RAM.start + HYP, RAM.start);
        machine.map(HOST_ROOT, 0x101, RAM.start);
        machine
    }

    /// Maps a GiB of EL2's addresses.
    pub(super) fn map_for_hyp(&mut self, va: u64, pa: u64) {
        self.map(HYP_ROOT, va >> 30, pa);
    }

    fn map(&mut self, root: u64, index: u64, pa: u64) {
        const BLOCK: u64 = 0x701;
        self.put(root + index * 8, &[pa | BLOCK]);
    }

    pub(super) fn put(&mut self, pa: u64, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.ram.put(pa, &bytes);
    }

    pub(super) fn fill(&mut self, pa: u64, bytes: &[u8]) {
        self.ram.put(pa, bytes);
    }

    /// EL2's own translation is known, as it is once its tables were walked.
    pub(super) fn memory(&mut self) -> Memory<'_> {
        let registers = El2Stage1 {
            tcr: TCR_EL2,
            ..El2Stage1::default()
        };
        let id = IdRegisters::default();
        let regime = Regime::el2_stage1(HYP_ROOT, registers, id).expect("sound registers");
        let root = Table {
            pa: HYP_ROOT,
            level: regime.start_level,
            ia: 0,
            parent: None,
            words: (0..512)
                .map(|at| self.ram.word(HYP_ROOT + at * 8))
                .collect(),
        };
        let mut memory = Memory::new(self);
        memory.know_hyp(regime, &[root]);
        memory
    }
}

/// A CPU with these registers and those of the host's translation.
pub(super) fn cpu(number: usize, registers: &[(&str, u64)]) -> Cpu {
    let host = [("TTBR1_EL1", HOST_ROOT), ("TCR_EL1", TCR_EL1)];
    let all = host.iter().chain(registers);
    let all = all.map(|(name, value)| ((*name).to_owned(), *value));
    Cpu::new(number, Registers(all.collect()))
}

impl Target for Machine {
    fn name(&self) -> &str {
        "machine"
    }

    fn cpu_count(&mut self) -> Result<usize, TargetError> {
        Ok(0)
    }

    fn registers(&mut self, _: usize) -> Result<Registers, TargetError> {
        Ok(Registers::default())
    }

    fn ram(&mut self) -> Result<Option<Vec<Span>>, TargetError> {
        Ok(Some(vec![RAM]))
    }

    fn read_phys(
        &mut self,
        requests: &[Span],
    ) -> Result<Vec<Result<Vec<u8>, ReadError>>, TargetError> {
        self.waits += 1;
        Ok(self.ram.read(requests))
    }

    fn description(&mut self) -> Result<Option<String>, TargetError> {
        Ok(None)
    }
}
