//! A ticket lock that guards no data of its own, and records who holds it.
//!
//! ```text
//! byte  0       2       4               8                              16
//!       | owner | next  | holder CPU    | address of the taker          |
//! ```
//! A CPU draws the ticket `next` and waits until `owner` reaches it. The lock is taken while the two differ;
//! `next − owner − 1` CPUs wait. The record beside the tickets is for debuggers and assertions: it is written
//! after the lock is taken and cleared before it is released, so while the lock changes hands it says "nobody".

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(not(loom))]
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use core::fmt;

use crate::cpu::Cpu;

/// [`LockState::holder`] while no CPU holds the lock.
pub const NO_CPU: u32 = u32::MAX;

/// One more in the upper half, `next`. Its carry leaves the word.
const NEXT_ONE: u32 = 1 << 16;
/// The lower half, `owner`.
const OWNER: u32 = 0xffff;

/// The lock; 16 bytes, laid out as shown [above](self).
#[repr(C)]
pub struct TicketLock {
    tickets: AtomicU32,
    holder: AtomicU32,
    taker: AtomicU64,
}

/// What a lock's memory says at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockState {
    /// The ticket that is being served.
    pub owner: u16,
    /// The ticket the next CPU will draw.
    pub next: u16,
    /// The CPU that holds the lock, or [`NO_CPU`].
    pub holder: u32,
    /// Address of the code that took the lock, or 0.
    pub taker: u64,
}

impl TicketLock {
    /// A lock nobody holds, whose tickets start at 0.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self::with_tickets(0)
    }

    /// A lock nobody holds, whose next ticket is `ticket`.
    #[cfg(not(loom))]
    pub const fn with_tickets(ticket: u16) -> Self {
        let half = ticket as u32;
        Self {
            tickets: AtomicU32::new(half << 16 | half),
            holder: AtomicU32::new(NO_CPU),
            taker: AtomicU64::new(0),
        }
    }

    /// A lock nobody holds, whose tickets start at 0.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self::with_tickets(0)
    }

    /// A lock nobody holds, whose next ticket is `ticket`.
    #[cfg(loom)]
    pub fn with_tickets(ticket: u16) -> Self {
        let half = u32::from(ticket);
        Self {
            tickets: AtomicU32::new(half << 16 | half),
            holder: AtomicU32::new(NO_CPU),
            taker: AtomicU64::new(0),
        }
    }

    /// Takes the lock, waiting for every CPU that came before. It is released when the guard is dropped.
    pub fn lock<'a>(&'a self, cpu: &'a dyn Cpu) -> Guard<'a> {
        let taker = cpu.lock_taker();
        let ticket = self.tickets.fetch_add(NEXT_ONE, Ordering::Relaxed) >> 16;
        while self.tickets.load(Ordering::Acquire) & OWNER != ticket {
            cpu.relax();
        }
        self.taker.store(taker, Ordering::Relaxed);
        self.holder.store(cpu.id(), Ordering::Relaxed);
        Guard { lock: self, cpu }
    }

    fn unlock(&self, cpu: &dyn Cpu) {
        self.holder.store(NO_CPU, Ordering::Relaxed);
        self.taker.store(0, Ordering::Relaxed);
        // Only the holder changes `owner`, so it may be read first; others draw tickets meanwhile, so the word
        // must change in one step, and 0xffff + 1 must not carry into `next`.
        if self.tickets.load(Ordering::Relaxed) & OWNER == OWNER {
            self.tickets.fetch_sub(OWNER, Ordering::Release);
        } else {
            self.tickets.fetch_add(1, Ordering::Release);
        }
        cpu.wake();
    }

    /// Whether some CPU holds the lock: one atomic read. Says nothing about which.
    pub fn is_locked(&self) -> bool {
        let tickets = self.tickets.load(Ordering::Relaxed);
        tickets & OWNER != tickets >> 16
    }

    /// Whether this very CPU holds the lock.
    pub fn is_held_by(&self, cpu: &dyn Cpu) -> bool {
        self.is_locked() && self.holder.load(Ordering::Relaxed) == cpu.id()
    }

    /// What the lock's memory says.
    pub fn state(&self) -> LockState {
        let tickets = self.tickets.load(Ordering::Relaxed);
        LockState {
            owner: (tickets & OWNER) as u16,
            next: (tickets >> 16) as u16,
            holder: self.holder.load(Ordering::Relaxed),
            taker: self.taker.load(Ordering::Relaxed),
        }
    }
}

impl Default for TicketLock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TicketLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state().fmt(f)
    }
}

/// Proof that a lock is held, by the CPU that took it. Dropping it releases the lock.
#[must_use = "the lock is released when the guard is dropped"]
pub struct Guard<'a> {
    lock: &'a TicketLock,
    cpu: &'a dyn Cpu,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.lock.unlock(self.cpu);
    }
}
