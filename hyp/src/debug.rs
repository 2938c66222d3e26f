//! What a debugger may ask of a machine that runs this hypervisor.
//!
//! A machine implements [`Inferior`]; [`stub::Stub`] puts it behind the gdb remote protocol. CPUs are
//! threads (thread `n` is CPU `n − 1`), EL2's registers stand in the target description, bulk data is
//! in virtual files, and `monitor help` lists what can be asked in words.
//!
//! Nothing here allocates, and nothing a client sends makes it panic.
//!
//! | module | holds |
//! |---|---|
//! | [`registers`] | the registers a debugger sees, and their target description |
//! | [`window`] | writers that keep only what is asked for |
//! | [`walk`] | looking an address up in the tables, whatever somebody wrote into them |
//! | [`host`] | the host's own virtual addresses |
//! | [`instructions`] | instructions that are not like others to step over |
//! | [`owners`] | the joint state of a physical page |
//! | [`symbols`] | the names that an image carries |
//! | [`description`] | the self-description |
//! | [`files`] | virtual files |
//! | [`monitor`] | monitor commands |
//! | [`stub`] | the gdb remote protocol |
//! | [`server`] | serving one client after the other |

pub mod description;
pub mod files;
pub mod host;
pub mod instructions;
pub mod monitor;
pub mod owners;
pub mod registers;
pub mod server;
pub mod stub;
pub mod symbols;
pub mod walk;
pub mod window;

#[cfg(test)]
mod fake;

use registers::Register;

pub use gdbstub::target::ext::breakpoints::WatchKind;

/// Why the machine refused what a client asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// No such CPU or register.
    Missing,
    /// It exists and may not be changed.
    ReadOnly,
    /// Nothing that may be touched is at this address: no RAM, or no mapping.
    Unmapped,
    /// There is no room for another.
    Full,
}

/// How CPUs run on after a stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume {
    /// CPUs that run: bit `n` for CPU `n`. Others stand still.
    pub run: u64,
    /// A CPU that takes one step, after which all stop.
    pub step: Option<usize>,
}

/// What makes CPUs stop. Addresses are virtual, in whichever regime a CPU runs in when it gets there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Breakpoint {
    /// An instruction in memory is replaced while CPUs run; memory that is read never shows that.
    Software {
        /// Where the instruction is.
        va: u64,
    },
    /// A register of each CPU compares the address of each instruction.
    Hardware {
        /// Where the instruction is.
        va: u64,
    },
    /// A register of each CPU compares the address of each access.
    Watch {
        /// The first byte.
        va: u64,
        /// How many bytes.
        size: u64,
        /// Which accesses.
        kind: WatchKind,
    },
}

/// Why CPUs stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// A CPU is at a [`Breakpoint::Software`].
    Breakpoint {
        /// The CPU.
        cpu: usize,
    },
    /// A CPU is at a [`Breakpoint::Hardware`].
    HardwareBreakpoint {
        /// The CPU.
        cpu: usize,
    },
    /// A CPU is about to make an access that a [`Breakpoint::Watch`] is for.
    Watch {
        /// The CPU.
        cpu: usize,
        /// What the watchpoint is for.
        kind: WatchKind,
        /// An address of the watchpoint's.
        va: u64,
    },
    /// A CPU took the one step it was asked for.
    Step {
        /// The CPU.
        cpu: usize,
    },
    /// hyp panicked on a CPU.
    Panic {
        /// The CPU.
        cpu: usize,
    },
}

/// A machine under a debugger. All methods but [`Inferior::run`] are called only while its CPUs stand still.
pub trait Inferior {
    /// What it says of itself.
    fn facts(&self) -> Facts<'_>;

    /// The value of a register, or `None` where that CPU has none, or is off, or could not be stopped.
    fn register(&self, cpu: usize, register: Register) -> Option<u64>;

    /// Changes a register.
    ///
    /// # Errors
    /// There is no such register, or it may not be changed.
    fn set_register(&mut self, cpu: usize, register: Register, value: u64) -> Result<(), Refused>;

    /// Fills `bytes` from physical memory at `pa` and returns how many could be read: fewer than asked
    /// where RAM ends. Never touches device memory.
    fn read_phys(&self, pa: u64, bytes: &mut [u8]) -> usize;

    /// Writes to physical memory, all or nothing.
    ///
    /// # Errors
    /// Not all of it is RAM, or it may not be changed.
    fn write_phys(&mut self, pa: u64, bytes: &[u8]) -> Result<(), Refused>;

    /// The physical address behind a virtual one in the regime that `cpu` now runs in, or where nothing is mapped there,
    /// in the other of the host's and hyp's.
    fn translate(&self, cpu: usize, va: u64) -> Option<u64>;

    /// Says how CPUs run from now on; they start when [`Inferior::run`] is called.
    fn resume(&mut self, resume: Resume);

    /// Lets CPUs run, as [`Inferior::resume`] said last, until one has reason to stop, or, with `None`, the
    /// client may have said something. When it returns, they stand still.
    fn run(&mut self) -> Option<Stop>;

    /// The CPU on which hyp panicked, if that is why CPUs stand, whatever else has stopped them.
    fn panicked(&self) -> Option<usize> {
        None
    }

    /// Adds a breakpoint. One that is there already stays, and is still one.
    ///
    /// # Errors
    /// Nothing is mapped there, it is where the debugger itself would stop, or there is no room for another.
    fn insert(&mut self, breakpoint: Breakpoint) -> Result<(), Refused>;

    /// Takes a breakpoint away. False when there was none like it.
    fn remove(&mut self, breakpoint: Breakpoint) -> bool;

    /// Forgets what a client left: takes every breakpoint away and lets every CPU run with the others. Returns how
    /// many breakpoints there were.
    fn let_go(&mut self) -> usize;

    /// Counters by name.
    fn stats(&self, visit: &mut dyn FnMut(&str, u64));
}

/// What a machine says of itself: the facts of the self-description. Addresses are physical unless
/// they are said to be virtual; sizes are in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Number of CPUs, 1 to 64.
    pub cpus: usize,
    /// PA − VA for hyp's linear map, modulo 2^64.
    pub physvirt_offset: u64,
    /// The host's stage 2.
    pub host_s2: HostStage2,
    /// Hyp's stage 1.
    pub hyp_s1: HypStage1,
    /// RAM in order of address.
    pub ram: &'a [Region],
    /// Hyp's own memory, the host's read-only data and bss that it maps, and devices.
    pub sections: &'a [Section<'a>],
    /// Every lock.
    pub locks: &'a [Lock<'a>],
    /// Every pool of table pages.
    pub pools: &'a [Pool<'a>],
    /// The EL2 stack of each CPU: its lowest virtual address.
    pub stacks: &'a [u64],
    /// Functions, objects and labels by virtual address, in order of address.
    pub symbols: &'a [Symbol<'a>],
}

/// The host's stage 2.
#[derive(Clone, Copy, Debug)]
pub struct HostStage2 {
    /// First of its root tables.
    pub root: u64,
    /// VTCR_EL2.
    pub vtcr: u64,
}

/// Hyp's stage 1.
#[derive(Clone, Copy, Debug)]
pub struct HypStage1 {
    /// Its root table.
    pub root: u64,
    /// TCR_EL2.
    pub tcr: u64,
    /// MAIR_EL2.
    pub mair: u64,
}

/// A range of physical memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// First address.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
}

impl Region {
    /// All of physical memory but its last byte.
    pub const ALL: Self = Self {
        base: 0,
        size: u64::MAX,
    };

    /// Whether `pa` lies inside.
    pub fn contains(self, pa: u64) -> bool {
        pa.checked_sub(self.base)
            .is_some_and(|offset| offset < self.size)
    }

    /// The first address behind, or 2^64 − 1 where that does not exist.
    pub fn end(self) -> u64 {
        self.base.saturating_add(self.size)
    }
}

/// A named part of physical memory.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// `text`, `rodata`, `data`, `bss`, `stacks`, `pools`, `host-rodata`, `host-bss`, `device`, `own-device`.
    pub name: &'a str,
    /// Where it is.
    pub region: Region,
}

/// A ticket lock in memory.
#[derive(Clone, Copy, Debug)]
pub struct Lock<'a> {
    /// `host`, `hyp`, `host-pool`, `hyp-pool`.
    pub name: &'a str,
    /// Its path in the program (`HYP.host.lock`).
    pub symbol: &'a str,
    /// Where its 16 bytes are.
    pub pa: u64,
}

/// A pool of table pages with a reference count each.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a> {
    /// `host-pool`, `hyp-pool`.
    pub name: &'a str,
    /// First page it hands out.
    pub base: u64,
    /// How many pages.
    pub pages: u64,
    /// Where its records are, one a page.
    pub records: u64,
    /// Bytes from one record to the next; the first two are the reference count.
    pub record_size: u64,
}

impl Pool<'_> {
    /// What it hands out.
    pub fn region(&self) -> Region {
        Region {
            base: self.base,
            size: self.pages.saturating_mul(PAGE),
        }
    }
}

/// A named virtual address.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Symbol<'a> {
    /// Its name, demangled, with its path (`hyp_image::uart::print_unlocked`).
    pub name: &'a str,
    /// Where it starts.
    pub address: u64,
    /// Its size in bytes; 0 for a label.
    pub size: u64,
}

impl<'a> Facts<'a> {
    /// Whether a page is in RAM.
    pub fn is_ram(&self, pa: u64) -> bool {
        self.ram.iter().any(|region| region.contains(pa))
    }

    /// The symbol that a virtual address belongs to: a label without size if that comes right before it, at most a page
    /// away, else the innermost function or object that holds it.
    pub fn symbol_at(&self, va: u64) -> Option<Symbol<'a>> {
        /// How many symbols that begin later, but end before the address, are passed over.
        const INNER: usize = 16;
        let next = self.symbols.partition_point(|symbol| symbol.address <= va);
        let before = self.symbols[..next].iter().rev().take(INNER);
        let found = before.enumerate().find(|(back, symbol)| {
            let offset = va - symbol.address;
            offset < symbol.size || symbol.size == 0 && *back == 0 && offset < PAGE
        });
        found.map(|(_, symbol)| *symbol)
    }

    /// Hyp's linear virtual address of a physical one.
    pub fn hyp_va(&self, pa: u64) -> u64 {
        pa.wrapping_sub(self.physvirt_offset)
    }
}

/// The granule.
const PAGE: u64 = 4096;

/// Reads a descriptor or another 64-bit word.
fn read_u64(inferior: &impl Inferior, pa: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    (inferior.read_phys(pa, &mut bytes) == bytes.len()).then(|| u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::fake::{Fake, OFFSET, RAM};
    use super::*;

    #[test]
    fn regions_end_where_the_address_space_does() {
        let last = Region {
            base: u64::MAX - 0xfff,
            size: 0x1000,
        };
        assert!(last.contains(u64::MAX) && last.contains(last.base));
        assert!(!last.contains(last.base - 1));
        assert_eq!(last.end(), u64::MAX);
        assert!(Region::ALL.contains(0) && !Region { base: 5, size: 0 }.contains(5));
    }

    #[test]
    fn addresses_are_named_by_the_symbol_that_holds_them() {
        let symbol = |name, address, size| Symbol {
            name,
            address,
            size,
        };
        let symbols = [
            symbol("first", 0x100, 0x10),
            symbol("second", 0x140, 0x20),
            symbol("inner", 0x148, 0x8),
            symbol("label", 0x200, 0),
            symbol("function", 0x200, 0x10),
            symbol("last", 0x300, 0),
        ];
        let fake = Fake::new();
        let facts = Facts {
            symbols: &symbols,
            ..fake.facts()
        };
        for (va, name) in [
            (0xff, None),
            (0x100, Some("first")),
            (0x10f, Some("first")),
            (0x110, None),
            (0x13f, None),
            (0x147, Some("second")),
            (0x14f, Some("inner")),
            (0x150, Some("second")),
            (0x15f, Some("second")),
            (0x160, None),
            (0x200, Some("function")),
            (0x210, None),
            (0x300, Some("last")),
            (0x12ff, Some("last")),
            (0x1300, None),
            (u64::MAX, None),
        ] {
            assert_eq!(
                facts.symbol_at(va).map(|symbol| symbol.name),
                name,
                "{va:#x}"
            );
        }
    }

    #[test]
    fn facts_place_addresses() {
        let fake = Fake::new();
        let facts = fake.facts();
        assert!(facts.is_ram(RAM.base) && facts.is_ram(RAM.end() - 1));
        assert!(!facts.is_ram(RAM.base - 1) && !facts.is_ram(RAM.end()));
        assert_eq!(facts.hyp_va(RAM.base).wrapping_add(OFFSET), RAM.base);
        let pool = facts.pools[0].region();
        assert_eq!((pool.base, pool.size), (facts.pools[0].base, 8 * PAGE));
    }

    #[test]
    fn a_word_is_read_whole_or_not_at_all() {
        let mut fake = Fake::new();
        fake.words.insert(RAM.end() - 8, 7);
        assert_eq!(read_u64(&fake, RAM.end() - 8), Some(7));
        assert_eq!(read_u64(&fake, RAM.end() - 7), None);
        assert_eq!(read_u64(&fake, u64::MAX), None);
    }
}
