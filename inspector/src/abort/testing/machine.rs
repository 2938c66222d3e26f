//! A machine whose CPUs execute what a test says, one step at a time.

use crate::addr::Span;
use crate::model::testing::RAM;
use crate::target::testing::Ram;
use crate::target::{Breakpoint, ReadError, Registers, RunControl, RunState, Target, TargetError};
use std::time::Duration;

/// What the instruction of a CPU at an address does to memory, and where it leads.
type Execute = fn(&mut Ram, usize, u64) -> u64;

pub(crate) struct Machine {
    pub(crate) ram: Ram,
    pub(crate) cpus: Vec<Registers>,
    pub(crate) execute: Execute,
    /// Breakpoints beyond these are refused.
    pub(crate) room: usize,
    pub(crate) breakpoints: Vec<Breakpoint>,
}

impl Machine {
    /// CPUs at EL2 that stand at these addresses; every instruction leads to the next.
    pub(crate) fn at(pcs: &[u64]) -> Self {
        let cpu = |pc: &u64| {
            let registers = [("pc", *pc), ("cpsr", 0x3c9)];
            Registers(registers.map(|(name, word)| (name.to_owned(), word)).into())
        };
        Self {
            ram: Ram::new(Span::new(RAM, 64 << 20)),
            cpus: pcs.iter().map(cpu).collect(),
            execute: |_, _, pc| pc + 4,
            room: usize::MAX,
            breakpoints: Vec::new(),
        }
    }

    pub(crate) fn pc(&self, cpu: usize) -> u64 {
        self.cpus[cpu].get("pc").expect("each has one")
    }
}

impl Target for Machine {
    fn name(&self) -> &str {
        "machine"
    }

    fn cpu_count(&mut self) -> Result<usize, TargetError> {
        Ok(self.cpus.len())
    }

    fn registers(&mut self, cpu: usize) -> Result<Registers, TargetError> {
        Ok(self.cpus[cpu].clone())
    }

    fn ram(&mut self) -> Result<Option<Vec<Span>>, TargetError> {
        Ok(None)
    }

    fn read_phys(
        &mut self,
        requests: &[Span],
    ) -> Result<Vec<Result<Vec<u8>, ReadError>>, TargetError> {
        Ok(self.ram.read(requests))
    }

    fn description(&mut self) -> Result<Option<String>, TargetError> {
        Ok(None)
    }

    fn run_control(&mut self) -> Option<&mut dyn RunControl> {
        Some(self)
    }
}

impl RunControl for Machine {
    fn found_running(&self) -> bool {
        false
    }

    fn state(&mut self) -> Result<RunState, TargetError> {
        let (cpu, reason) = (None, String::new());
        Ok(RunState::Stopped { cpu, reason })
    }

    fn resume(&mut self) -> Result<(), TargetError> {
        Ok(())
    }

    fn interrupt(&mut self) -> Result<(), TargetError> {
        Ok(())
    }

    fn wait(&mut self, _: Duration) -> Result<RunState, TargetError> {
        self.state()
    }

    fn insert_all(
        &mut self,
        breakpoints: &[Breakpoint],
    ) -> Result<Vec<Result<(), String>>, TargetError> {
        let insert = |breakpoint: &Breakpoint| {
            if self.breakpoints.len() == self.room {
                return Err("no room".to_owned());
            }
            self.breakpoints.push(*breakpoint);
            Ok(())
        };
        Ok(breakpoints.iter().map(insert).collect())
    }

    fn remove_all(&mut self, breakpoints: &[Breakpoint]) -> Result<(), TargetError> {
        self.breakpoints.retain(|set| !breakpoints.contains(set));
        Ok(())
    }

    fn breakpoints(&self) -> Vec<Breakpoint> {
        self.breakpoints.clone()
    }

    fn step(&mut self, cpu: usize) -> Result<u64, TargetError> {
        let from = self.pc(cpu);
        let pc = (self.execute)(&mut self.ram, cpu, from);
        self.cpus[cpu].0.insert("pc".to_owned(), pc);
        Ok(pc)
    }
}
