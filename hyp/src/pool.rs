//! Pages for page tables: a fixed stock with one reference count a page, which can run dry.

use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use crate::addr::{PAGE_SIZE, Pa, PageRange};
use crate::cpu::Cpu;
use crate::errno::Errno;
use crate::lock::TicketLock;

/// What is recorded about one page of a pool. An array of these lies in RAM, where a debugger reads it.
#[derive(Debug, Default)]
#[repr(C)]
pub struct PageRecord {
    /// 0: free. A table in use counts 1 for itself; a stage-2 table also 1 for each entry that is not zero.
    refcount: AtomicU16,
}

impl PageRecord {
    /// The record of a free page.
    pub const fn new() -> Self {
        Self {
            refcount: AtomicU16::new(0),
        }
    }

    /// How many references the page has.
    pub fn refcount(&self) -> u16 {
        self.refcount.load(Ordering::Relaxed)
    }
}

/// A stock of table pages.
///
/// The lock is innermost: it is only held inside this module. Counts of pages in use change under the lock of
/// the tables they belong to.
#[derive(Debug)]
pub struct Pool<'m> {
    pub(crate) lock: TicketLock,
    base: Pa,
    pages: u64,
    records: &'m [PageRecord],
    free: AtomicU64,
}

impl<'m> Pool<'m> {
    /// A pool of all pages of `memory`, with one record for each; all are free.
    ///
    /// `None` unless there is exactly one record a page. The memory need not be zero.
    pub fn new(memory: PageRange<Pa>, records: &'m [PageRecord]) -> Option<Self> {
        let pages = memory.size() / PAGE_SIZE;
        if u64::try_from(records.len()) != Ok(pages) {
            return None;
        }
        for record in records {
            record.refcount.store(0, Ordering::Relaxed);
        }
        Some(Self {
            lock: TicketLock::new(),
            base: memory.base(),
            pages,
            records,
            free: AtomicU64::new(pages),
        })
    }

    /// Takes `count` pages that follow each other, aligned to their size, zeroed, each with one reference.
    ///
    /// `count` is a power of two: 1, or the number of concatenated root tables. `-ENOMEM` when there are none left.
    pub(crate) fn alloc(&self, cpu: &dyn Cpu, count: u64) -> Result<Pa, Errno> {
        let _held = self.lock.lock(cpu);
        let size = count * PAGE_SIZE;
        let first = self.base.get().next_multiple_of(size) - self.base.get();
        let mut starts = (first / PAGE_SIZE..self.pages).step_by(count as usize);
        let start = starts
            .find(|&start| {
                let run = self.records.get(start as usize..(start + count) as usize);
                run.is_some_and(|run| run.iter().all(|record| record.refcount() == 0))
            })
            .ok_or(Errno::NoMem)?;
        let base = self.base.wrapping_add(start * PAGE_SIZE);
        for page in 0..count {
            self.records[(start + page) as usize]
                .refcount
                .store(1, Ordering::Relaxed);
            cpu.zero_page(base.wrapping_add(page * PAGE_SIZE));
        }
        self.free.fetch_sub(count, Ordering::Relaxed);
        Ok(base)
    }

    /// Adds a reference to the page in use that holds `address`.
    pub(crate) fn get(&self, address: Pa) {
        self.record(address)
            .refcount
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Drops a reference to the page that holds `address`. The page stays in use: this is never the last one.
    pub(crate) fn put(&self, address: Pa) {
        let before = self
            .record(address)
            .refcount
            .fetch_sub(1, Ordering::Relaxed);
        assert!(
            before > 1,
            "table page {}: entry reference dropped at count {before}",
            address.page()
        );
    }

    /// Gives a page back. Its own reference must be the only one left.
    pub(crate) fn free(&self, cpu: &dyn Cpu, page: Pa) {
        let _held = self.lock.lock(cpu);
        let before = self.record(page).refcount.swap(0, Ordering::Relaxed);
        assert!(before == 1, "table page {page}: freed at count {before}");
        self.free.fetch_add(1, Ordering::Relaxed);
    }

    /// How many references the page that holds `address` has.
    pub fn refcount(&self, address: Pa) -> u16 {
        self.record(address).refcount()
    }

    fn record(&self, address: Pa) -> &PageRecord {
        let record = address
            .get()
            .checked_sub(self.base.get())
            .and_then(|offset| {
                let index = usize::try_from(offset / PAGE_SIZE).ok()?;
                self.records.get(index)
            });
        match record {
            Some(record) => record,
            None => panic!(
                "{address} is in no page of the pool at {} ({} pages)",
                self.base, self.pages
            ),
        }
    }

    /// The first page.
    pub fn base(&self) -> Pa {
        self.base
    }

    /// The number of pages, in use and free.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The number of free pages.
    pub fn free_pages(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// One record a page, in order.
    pub fn records(&self) -> &'m [PageRecord] {
        self.records
    }

    /// The pool's lock.
    pub fn lock(&self) -> &TicketLock {
        &self.lock
    }
}
