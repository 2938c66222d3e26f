//! A target that counts waits.

use inspector::addr::Span;
use inspector::target::{ReadError, Registers, Target, TargetError};

/// A target that counts how often somebody waited for it.
pub(crate) struct Counted {
    pub(crate) target: Box<dyn Target>,
    pub(crate) waits: usize,
}

impl Target for Counted {
    fn name(&self) -> &str {
        self.target.name()
    }

    fn cpu_count(&mut self) -> Result<usize, TargetError> {
        self.target.cpu_count()
    }

    fn registers(&mut self, cpu: usize) -> Result<Registers, TargetError> {
        self.waits += 1;
        self.target.registers(cpu)
    }

    fn all_registers(&mut self) -> Result<Vec<Registers>, TargetError> {
        self.waits += 1;
        self.target.all_registers()
    }

    fn ram(&mut self) -> Result<Option<Vec<Span>>, TargetError> {
        self.target.ram()
    }

    fn read_phys(
        &mut self,
        requests: &[Span],
    ) -> Result<Vec<Result<Vec<u8>, ReadError>>, TargetError> {
        self.waits += 1;
        self.target.read_phys(requests)
    }

    fn description(&mut self) -> Result<Option<String>, TargetError> {
        self.target.description()
    }
}
