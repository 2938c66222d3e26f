//! A walker of single addresses: slow, plain, and written apart from the one it checks.
//!
//! Sizes are products and quotients in u128, output addresses are put together bit by bit, and
//! nothing of the inspector is used.

use crate::memory::Memory;

/// A regime in the words of this walker.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// 2, or 1.
    pub(crate) stage: u8,
    /// Stage 1 with two privilege levels.
    pub(crate) e2h: bool,
    /// Bytes of a page and of a table.
    pub(crate) page: u128,
    pub(crate) start: i32,
    pub(crate) ia_bits: u32,
    pub(crate) oa_bits: u32,
    pub(crate) ds: bool,
    pub(crate) root: u64,
}

/// Where an address ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Mapped {
        oa: u64,
        read: bool,
        write: bool,
        execute: bool,
        execute_el0: bool,
    },
    Hole,
    Invalid,
    Reserved,
    Unreadable,
    OutOfRange,
}

/// The way of an address.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// Physical addresses of the words looked at.
    pub(crate) words: Vec<u64>,
    /// The last word.
    pub(crate) raw: u64,
    /// Bytes that the last word covers.
    pub(crate) size: u128,
    pub(crate) outcome: Outcome,
}

impl Setup {
    fn entries(&self) -> u128 {
        self.page / 8
    }

    /// Bytes that a word of `level` covers.
    pub(crate) fn covers(&self, level: i32) -> u128 {
        (level..3).fold(self.page, |size, _| size * self.entries())
    }

    /// The bits of the word that hold bit `n` of an address whose low bits start at `low`.
    fn address_bit(&self, n: u32) -> Option<u32> {
        match n {
            0..=47 => Some(n),
            48 | 49 if self.ds => Some(n),
            50 if self.ds => Some(8),
            51 if self.ds => Some(9),
            48..=51 if self.page == 65536 && self.oa_bits == 52 => Some(n - 48 + 12),
            _ => None,
        }
    }

    /// The address in `word`, of what is aligned to `size`, and whether bits below it are clear.
    fn address(&self, word: u64, size: u128) -> (u64, bool) {
        let mut address = 0u64;
        let mut clear = true;
        for n in 12..52 {
            let Some(bit) = self.address_bit(n) else {
                continue;
            };
            if word & 1 << bit == 0 {
                continue;
            }
            if 1u128 << n >= size {
                address += 1 << n;
            } else if n != 16 && !(self.page == 65536 && self.oa_bits == 52 && n < 16) {
                clear = false;
            }
        }
        (address, clear)
    }

    fn block_allowed(&self, level: i32) -> bool {
        match self.page {
            4096 => [1, 2].contains(&level) || self.ds && level == 0,
            16384 => level == 2 || self.ds && level == 1,
            _ => level == 2 || self.oa_bits == 52 && level == 1,
        }
    }

    pub(crate) fn walk(&self, memory: &Memory, ia: u64) -> Way {
        let mut way = Way {
            words: Vec::new(),
            raw: 0,
            size: 0,
            outcome: Outcome::OutOfRange,
        };
        if u128::from(ia) >= 1u128 << self.ia_bits {
            return way;
        }
        let mut table = self.root;
        let mut above = Vec::new();
        for level in self.start..=3 {
            way.size = self.covers(level);
            let mut index = u128::from(ia) / way.size;
            if level != self.start {
                index %= self.entries();
            }
            let at = table + u64::try_from(index * 8).unwrap();
            way.words.push(at);
            let Some(raw) = memory.word(at) else {
                way.outcome = Outcome::Unreadable;
                return way;
            };
            way.raw = raw;
            way.outcome = match (raw % 4, level) {
                (0, _) if raw == 0 => Outcome::Hole,
                (0 | 2, _) => Outcome::Invalid,
                (1, level) if !self.block_allowed(level) => Outcome::Reserved,
                (3, ..3) => {
                    let (next, _) = self.address(raw, self.page);
                    if u128::from(next) < 1u128 << self.oa_bits {
                        above.push(raw);
                        table = next;
                        continue;
                    }
                    Outcome::Reserved
                }
                _ => self.leaf(raw, way.size, ia, &above),
            };
            return way;
        }
        unreachable!("level 3 has no tables")
    }

    fn leaf(&self, raw: u64, size: u128, ia: u64, above: &[u64]) -> Outcome {
        let (address, clear) = self.address(raw, size);
        if !clear || u128::from(address) >= 1u128 << self.oa_bits {
            return Outcome::Reserved;
        }
        let set = |n: u32| raw & 1 << n != 0;
        let any = |n: u32| above.iter().any(|word| word & 1 << n != 0);
        let [read, write, execute, execute_el0] = if self.stage == 2 {
            let (el1, el0) = match raw >> 53 & 3 {
                0 => (true, true),
                1 => (false, true),
                2 => (false, false),
                _ => (true, false),
            };
            [set(6), set(7), el1, el0]
        } else if self.e2h {
            let write = !(set(7) || any(62));
            // What EL0 may write, EL2 may not execute.
            let unsafe_for_el2 = write && set(6) && !any(61);
            [
                true,
                write,
                !(set(53) || any(59) || unsafe_for_el2),
                !(set(54) || any(60)),
            ]
        } else {
            let execute = !(set(54) || any(60));
            [true, !set(7) && !any(62), execute, execute]
        };
        let oa = address + u64::try_from(u128::from(ia) % size).unwrap();
        Outcome::Mapped {
            oa,
            read,
            write,
            execute,
            execute_el0,
        }
    }
}
