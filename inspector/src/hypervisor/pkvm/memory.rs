//! Memory of a located kernel: by linked address, by EL2's virtual address, by physical address.

use crate::addr::Span;
use crate::arch::regime::Regime;
use crate::arch::walk::{End, translate};
use crate::target::{Target, TargetError};

/// The memory of the machine as the kernel and its hypervisor address it.
pub(super) struct Memory<'a> {
    pub(super) target: &'a mut dyn Target,
    /// Physical − linked, wrapping, of the kernel's image.
    pub(super) image_offset: u64,
    /// EL2's own translation, once it is on.
    pub(super) hyp: Option<Regime>,
    /// PA = EL2's linear address + this, wrapping (`hyp_physvirt_offset`), once it is known.
    pub(super) physvirt_offset: Option<u64>,
}

impl Memory<'_> {
    /// Where a linked address is in physical memory.
    pub(super) fn phys_of_linked(&self, linked: u64) -> u64 {
        linked.wrapping_add(self.image_offset)
    }

    /// Where one of EL2's virtual addresses is in physical memory, by a walk of its tables.
    ///
    /// # Errors
    /// The link failed.
    pub(super) fn phys_of_hyp(&mut self, va: u64) -> Result<Option<u64>, TargetError> {
        let Some(regime) = &self.hyp else {
            return Ok(None);
        };
        let found = translate(regime, va, &mut |spans| self.target.read_phys(spans))?;
        Ok(match found.end {
            End::Mapped { oa, .. } => Some(oa),
            _ => None,
        })
    }

    /// Physical memory; `None` where it cannot be read.
    ///
    /// # Errors
    /// The link failed.
    pub(super) fn read(&mut self, span: Span) -> Result<Option<Vec<u8>>, TargetError> {
        Ok(self.target.read_phys(&[span])?.pop().and_then(Result::ok))
    }

    /// A little-endian word of at most 8 bytes in physical memory.
    ///
    /// # Errors
    /// The link failed.
    pub(super) fn word(&mut self, pa: u64, size: u64) -> Result<Option<u64>, TargetError> {
        let bytes = self.read(Span::new(pa, size.min(8)))?;
        Ok(bytes.map(|bytes| little_endian(&bytes)))
    }
}

/// The number that at most 8 bytes hold.
pub(super) fn little_endian(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let size = bytes.len().min(8);
    word[..size].copy_from_slice(&bytes[..size]);
    u64::from_le_bytes(word)
}
