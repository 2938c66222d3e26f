//! A target that remembers what was read through it, so that it can be saved.

use crate::addr::Span;
use crate::target::snapshot::{Contents, Memory, Refusal};
use crate::target::{ReadError, Registers, Target, TargetError, merge};
use std::collections::BTreeMap;

/// Passes everything on to another target and keeps the answers.
pub struct Recorder<'a> {
    target: &'a mut dyn Target,
    /// As they were read; where they overlap the later one counts.
    reads: Vec<Memory>,
    refused: Vec<Refusal>,
    registers: BTreeMap<usize, Registers>,
}

impl<'a> Recorder<'a> {
    /// Starts to remember.
    pub fn new(target: &'a mut dyn Target) -> Self {
        Self {
            target,
            reads: Vec::new(),
            refused: Vec::new(),
            registers: BTreeMap::new(),
        }
    }

    /// All that was read, and what every target has: RAM, the registers of all CPUs, the self-description.
    /// `physvirt_offset`, and `symbols` unless the target brought them, are for the caller to add.
    ///
    /// # Errors
    /// The link failed.
    pub fn finish(mut self) -> Result<Contents, TargetError> {
        let registers = (0..self.target.cpu_count()?)
            .map(|cpu| self.registers(cpu))
            .collect::<Result<_, _>>()?;
        Ok(Contents {
            registers,
            ram: self.target.ram()?,
            memory: join(self.reads),
            refused: self.refused,
            description: self.target.description()?,
            symbols: self.target.saved_symbols()?,
            physvirt_offset: None,
            found_running: self.target.run_control().map(|run| run.found_running()),
        })
    }
}

impl Target for Recorder<'_> {
    fn name(&self) -> &str {
        self.target.name()
    }

    fn cpu_count(&mut self) -> Result<usize, TargetError> {
        self.target.cpu_count()
    }

    fn registers(&mut self, cpu: usize) -> Result<Registers, TargetError> {
        if let Some(registers) = self.registers.get(&cpu) {
            return Ok(registers.clone());
        }
        let registers = self.target.registers(cpu)?;
        self.registers.insert(cpu, registers.clone());
        Ok(registers)
    }

    fn all_registers(&mut self) -> Result<Vec<Registers>, TargetError> {
        let all = self.target.all_registers()?;
        self.registers = all.iter().cloned().enumerate().collect();
        Ok(all)
    }

    fn ram(&mut self) -> Result<Option<Vec<Span>>, TargetError> {
        self.target.ram()
    }

    fn read_phys(
        &mut self,
        requests: &[Span],
    ) -> Result<Vec<Result<Vec<u8>, ReadError>>, TargetError> {
        let answers = self.target.read_phys(requests)?;
        for (span, answer) in requests.iter().zip(&answers) {
            match answer {
                Ok(bytes) if !bytes.is_empty() => self.reads.push(Memory {
                    start: span.start,
                    bytes: bytes.clone(),
                }),
                Err(ReadError::Refused { span, reason }) => self.refused.push(Refusal {
                    span: *span,
                    reason: reason.clone(),
                }),
                // What is unbacked follows from the RAM map.
                Ok(_) | Err(ReadError::Unbacked(_) | ReadError::NotSaved(_)) => {}
            }
        }
        Ok(answers)
    }

    fn description(&mut self) -> Result<Option<String>, TargetError> {
        self.target.description()
    }

    fn saved_symbols(&mut self) -> Result<Option<String>, TargetError> {
        self.target.saved_symbols()
    }

    fn problems(&self) -> Vec<String> {
        self.target.problems()
    }

    fn notes(&self) -> Vec<String> {
        self.target.notes()
    }
}

/// Joins reads that overlap or touch; the later one wins.
fn join(reads: Vec<Memory>) -> Vec<Memory> {
    let spans = merge(
        reads
            .iter()
            .map(|read| Span::new(read.start, read.bytes.len() as u64))
            .collect(),
    );
    let mut joined: Vec<_> = spans
        .iter()
        .map(|span| Memory {
            start: span.start,
            bytes: vec![0; span.size as usize],
        })
        .collect();
    for read in reads {
        let after = joined.partition_point(|range| range.start <= read.start);
        if let Some(range) = joined[..after].last_mut() {
            let at = (read.start - range.start) as usize;
            range.bytes[at..at + read.bytes.len()].copy_from_slice(&read.bytes);
        }
    }
    joined
}
