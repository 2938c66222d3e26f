//! Memory of a located kernel: by linked address, by EL2's virtual address, by physical address.

use crate::addr::Span;
use crate::arch::regime::Regime;
use crate::arch::walk::{End, Table, translate};
use crate::target::{Target, TargetError};
use std::collections::HashMap;

/// The memory of the machine as the kernel and its hypervisor address it.
pub(super) struct Memory<'a> {
    pub(super) target: &'a mut dyn Target,
    /// Physical − linked, wrapping, of the kernel's image.
    pub(super) image_offset: u64,
    /// EL2's own translation, once it is on.
    pub(super) hyp: Option<Regime>,
    /// The tables of that translation, by their physical address: they are read once.
    tables: HashMap<u64, Vec<u8>>,
    /// PA = EL2's linear address + this, wrapping (`hyp_physvirt_offset`), once it is known.
    pub(super) physvirt_offset: Option<u64>,
    /// By the CPU's number, what stands in for a `TPIDR_EL2` that is not known.
    pub(super) per_cpu: HashMap<usize, u64>,
}

impl<'a> Memory<'a> {
    /// Of a kernel of which nothing is known yet.
    pub(super) fn new(target: &'a mut dyn Target) -> Self {
        Self {
            target,
            image_offset: 0,
            hyp: None,
            tables: HashMap::new(),
            physvirt_offset: None,
            per_cpu: HashMap::new(),
        }
    }

    /// From now on translates EL2's addresses, by tables that were read already.
    pub(super) fn know_hyp(&mut self, regime: Regime, tables: &[Table]) {
        let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let tables = tables.iter().map(|table| (table.pa, bytes(&table.words)));
        self.tables = tables.collect();
        self.hyp = Some(regime);
    }

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
        let page = !(regime.granule.bytes() - 1);
        let (tables, target) = (&self.tables, &mut self.target);
        let mut read = |spans: &[Span]| {
            let known = spans.iter().map(|span| {
                let table = tables.get(&(span.start & page))?;
                let at = usize::try_from(span.start & !page).ok()?;
                let bytes = table.get(at..)?.get(..usize::try_from(span.size).ok()?)?;
                Some(Ok(bytes.to_vec()))
            });
            match known.collect() {
                Some(answers) => Ok(answers),
                None => target.read_phys(spans),
            }
        };
        let found = translate(regime, &mut read, va)?;
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
