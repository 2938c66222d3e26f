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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::addr::{Ipa, Pa};
    use crate::cpu::TableMemory;

    /// A CPU whose wait and wake-up steps a test can look at.
    #[derive(Default)]
    struct Watched<'a> {
        id: u32,
        on_relax: Option<&'a dyn Fn()>,
        wakes: Cell<u32>,
    }

    impl TableMemory for Watched<'_> {
        fn read(&self, _: Pa) -> u64 {
            unreachable!("a lock reads no tables")
        }

        fn write(&self, _: Pa, _: u64) {
            unreachable!("a lock writes no tables")
        }
    }

    impl Cpu for Watched<'_> {
        fn id(&self) -> u32 {
            self.id
        }

        fn lock_taker(&self) -> u64 {
            0x1234
        }

        fn relax(&self) {
            self.on_relax
                .expect("the lock is free: there is nothing to wait for")();
        }

        fn wake(&self) {
            self.wakes.set(self.wakes.get() + 1);
        }

        fn publish(&self) {}

        fn invalidate_ipa(&self, _: Ipa, _: u8) {}

        fn invalidate_vmid(&self) {}
    }

    #[test]
    fn is_locked_from_taking_to_release() {
        let (cpu, lock) = (Watched::default(), TicketLock::new());
        assert!(!lock.is_locked());
        let held = lock.lock(&cpu);
        assert!(lock.is_locked() && lock.is_held_by(&cpu));
        assert!(!lock.is_held_by(&Watched {
            id: 1,
            ..Watched::default()
        }));
        assert_eq!(
            lock.state(),
            LockState {
                owner: 0,
                next: 1,
                holder: 0,
                taker: 0x1234
            }
        );
        drop(held);
        assert!(!lock.is_locked() && !lock.is_held_by(&cpu));
        assert_eq!(
            lock.state(),
            LockState {
                owner: 1,
                next: 1,
                holder: NO_CPU,
                taker: 0
            }
        );
        assert_eq!(cpu.wakes.get(), 1);
    }

    /// The lock is served in the order of the tickets; one that waits keeps the lock locked.
    #[test]
    fn a_waiter_is_served_when_its_turn_comes() {
        let (cpu, lock) = (Watched::default(), TicketLock::new());
        let held = Cell::new(Some(lock.lock(&cpu)));
        let seen = Cell::new(None);
        let release = || {
            seen.set(Some(lock.state()));
            drop(held.take());
        };
        let waiter = Watched {
            id: 1,
            on_relax: Some(&release),
            ..Watched::default()
        };
        let second = lock.lock(&waiter);
        assert_eq!(
            seen.get(),
            Some(LockState {
                owner: 0,
                next: 2,
                holder: 0,
                taker: 0x1234
            }),
            "locked, one waits"
        );
        assert!(lock.is_locked() && lock.is_held_by(&waiter));
        drop(second);
        assert!(!lock.is_locked());
    }

    /// The tickets wrap from 0xffff to 0, each half by itself.
    #[test]
    fn halves_wrap_without_carry() {
        let (cpu, lock) = (Watched::default(), TicketLock::with_tickets(0xffff));
        assert!(!lock.is_locked());
        let held = lock.lock(&cpu);
        assert_eq!(
            (lock.state().owner, lock.state().next),
            (0xffff, 0),
            "next does not carry out of its half"
        );
        assert!(lock.is_locked());
        drop(held);
        assert_eq!(
            (lock.state().owner, lock.state().next),
            (0, 0),
            "owner does not carry into next"
        );
        assert!(!lock.is_locked());
    }

    /// The same with a waiter across the wrap, and all the way round once.
    #[test]
    fn a_waiter_across_the_wrap_is_served() {
        let (cpu, lock) = (Watched::default(), TicketLock::with_tickets(0xfffe));
        for turn in 0..4_u16 {
            let held = Cell::new(Some(lock.lock(&cpu)));
            let release = || drop(held.take());
            let waiter = Watched {
                id: 1,
                on_relax: Some(&release),
                ..Watched::default()
            };
            drop(lock.lock(&waiter));
            let expected = 0xfffe_u16.wrapping_add(2 * (turn + 1));
            assert_eq!(
                (lock.state().owner, lock.state().next),
                (expected, expected)
            );
        }
        for _ in 0..=u16::MAX {
            drop(lock.lock(&cpu));
        }
        assert_eq!((lock.state().owner, lock.state().next), (6, 6));
    }

    #[test]
    fn the_layout_is_the_one_debuggers_read() {
        use core::mem::{align_of, offset_of, size_of};
        assert_eq!((size_of::<TicketLock>(), align_of::<TicketLock>()), (16, 8));
        assert_eq!(offset_of!(TicketLock, tickets), 0);
        assert_eq!(offset_of!(TicketLock, holder), 4);
        assert_eq!(offset_of!(TicketLock, taker), 8);
        // `owner` is the half at the lower address.
        let lock = TicketLock::new();
        let cpu = Watched::default();
        let _held = lock.lock(&cpu);
        assert_eq!(
            lock.tickets.load(Ordering::Relaxed).to_le_bytes(),
            [0, 0, 1, 0]
        );
    }
}
