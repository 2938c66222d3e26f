//! Where the hypervisor keeps what it knows of each page.

use crate::addr::Span;

/// The hypervisor's array with a record of each page of RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRecords {
    /// EL2's address of the record of physical address 0.
    pub base: u64,
    /// log2 of a page's bytes.
    pub page_shift: u32,
    /// Bytes of a record.
    pub size: u64,
}

impl PageRecords {
    /// The record of the page at a physical address, as EL2 addresses it.
    pub fn record_of(&self, pa: u64) -> Option<Span> {
        let offset = (pa >> self.page_shift).checked_mul(self.size)?;
        Some(Span::new(self.base.checked_add(offset)?, self.size))
    }
}
