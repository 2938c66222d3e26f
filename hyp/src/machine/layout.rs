//! Where everything is in the simulated machine: memory map, sections, functions, and hyp's static.
//!
//! The map is the image's: RAM from 0x4000_0000, hyp at 0x4020_0000, the host at 0x4100_0000. Where the
//! library's objects live in this process says nothing to a debugger, so what it would read in the
//! image's `HYP` is laid out here as plain members and kept up to date in simulated RAM.

use crate::addr::{Pa, PageRange, RangeError};
use crate::debug::{Lock, Pool, Region, Symbol};
use crate::init::{Section, SectionKind};
use crate::pgtable::Geometry;
use std::prelude::rust_2024::*;

/// All RAM.
pub const RAM: Region = Region {
    base: 0x4000_0000,
    size: 128 << 20,
};
/// VA − PA of hyp's linear map.
pub const LINEAR_OFFSET: u64 = 0x40_0000_0000;
/// PA − VA of hyp's linear map, modulo 2^64.
pub const PHYSVIRT_OFFSET: u64 = LINEAR_OFFSET.wrapping_neg();
/// Most CPUs the machine may have.
pub const MAX_CPUS: usize = 8;

const TEXT: Region = region(0x4020_0000, 0x4000);
const RODATA: Region = region(0x4020_4000, 0x2000);
const DATA: Region = region(0x4020_6000, 0x2000);
const BSS: Region = region(0x4020_8000, 0x2000);
const STACKS: Region = region(0x4020_a000, STACK * MAX_CPUS as u64);
const POOLS: Region = region(0x4022_0000, 0x10_0000);
/// Bytes of an EL2 stack.
const STACK: u64 = 0x2000;

const HOST_TEXT: Region = region(0x4100_0000, 0x4000);
/// The host's constants, which hyp maps read-only and shares back.
pub(super) const HOST_RODATA: Region = region(0x4100_4000, 0x3000);
/// The host's zeroed variables, likewise.
pub(super) const HOST_BSS: Region = region(0x4100_8000, 0x4000);
/// Where the host's CPUs have their stacks, one page each.
const HOST_STACKS: u64 = 0x4101_0000;

const fn region(base: u64, size: u64) -> Region {
    Region { base, size }
}

/// hyp's memory by kind, in order of address.
pub(super) const SECTIONS: [(SectionKind, Region); 8] = [
    (SectionKind::Text, TEXT),
    (SectionKind::Rodata, RODATA),
    (SectionKind::Data, DATA),
    (SectionKind::Bss, BSS),
    (SectionKind::Stacks, STACKS),
    (SectionKind::Pools, POOLS),
    (SectionKind::HostRodata, HOST_RODATA),
    (SectionKind::HostBss, HOST_BSS),
];

/// Table pages beyond what RAM needs, for the host's devices.
const DEVICE_TABLES: u64 = 8;

/// Where the pools are: records of both in the first page of [`POOLS`], then the host's pages, then hyp's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pools {
    pub(super) host: PageRange<Pa>,
    pub(super) host_records: u64,
    pub(super) hyp: PageRange<Pa>,
    pub(super) hyp_records: u64,
}

/// Bytes of one page record.
pub const RECORD_SIZE: u64 = 2;

/// The pools, sized as [`crate::init::Config`] asks.
pub(super) fn pools(ram: &[PageRange<Pa>]) -> Result<Pools, RangeError> {
    let page = crate::addr::PAGE_SIZE;
    let host = (Geometry::HOST_STAGE2.pages_needed(ram) + DEVICE_TABLES) * page;
    let hyp = Geometry::HYP_STAGE1.pages_needed(ram) * page;
    // Two concatenated roots want to be aligned to their size.
    let base = POOLS.base + 2 * page;
    Ok(Pools {
        host: PageRange::new(Pa::new(base), host)?,
        host_records: POOLS.base,
        hyp: PageRange::new(Pa::new(base + host), hyp)?,
        hyp_records: POOLS.base + host / page * RECORD_SIZE,
    })
}

/// The sections as hyp is told of them.
pub(super) fn sections() -> Result<Vec<Section>, RangeError> {
    SECTIONS
        .iter()
        .map(|&(kind, region)| {
            Ok(Section {
                kind,
                range: page_range(region)?,
            })
        })
        .collect()
}

pub(super) fn page_range(region: Region) -> Result<PageRange<Pa>, RangeError> {
    PageRange::new(Pa::new(region.base), region.size)
}

/// A function of hyp or of the host, in whose text a simulated CPU's pc can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is the function of its name in `NAMES`")]
#[repr(usize)]
pub enum Function {
    HostVectors,
    HostMain,
    HostTouch,
    HostCall,
    HypVectors,
    HandleTrap,
    HandleHostHcall,
    HandleHostMemAbort,
    HostStage2Idmap,
    PkvmHostShareHyp,
    GetLeaf,
    SetLeaf,
    SetPage,
    InvalidateIpa,
    InvalidateVmid,
    Alloc,
    Lock,
    HypPanic,
}

/// Name, place and size of every function, in the order of [`Function`]: first the host's, whose virtual
/// addresses are physical, then hyp's.
const FUNCTIONS: [(&str, u64, u64); 18] = [
    ("host_vectors", HOST_TEXT.base, 0x800),
    ("host_main", HOST_TEXT.base + 0x800, 0x80),
    ("host_touch", HOST_TEXT.base + 0x880, 0x40),
    ("host_call", HOST_TEXT.base + 0x8c0, 0x40),
    ("hyp_vectors", hyp_text(0), 0x800),
    ("handle_trap", hyp_text(0x800), 0x80),
    ("handle_host_hcall", hyp_text(0x880), 0x80),
    ("handle_host_mem_abort", hyp_text(0x900), 0x100),
    ("host_stage2_idmap", hyp_text(0xa00), 0x100),
    ("pkvm_host_share_hyp", hyp_text(0xb00), 0x100),
    ("get_leaf", hyp_text(0xc00), 0x80),
    ("set_leaf", hyp_text(0xc80), 0x100),
    ("set_page", hyp_text(0xd80), 0x80),
    ("invalidate_ipa", hyp_text(0xe00), 0x20),
    ("invalidate_vmid", hyp_text(0xe20), 0x20),
    ("alloc", hyp_text(0xe40), 0x80),
    ("lock", hyp_text(0xec0), 0x40),
    ("hyp_panic", hyp_text(0xf00), 0x40),
];

const fn hyp_text(offset: u64) -> u64 {
    TEXT.base + LINEAR_OFFSET + offset
}

impl Function {
    /// Its first virtual address.
    pub fn address(self) -> u64 {
        FUNCTIONS[self as usize].1
    }

    /// Its size in bytes.
    pub fn size(self) -> u64 {
        FUNCTIONS[self as usize].2
    }

    /// Whether it runs at EL2.
    pub fn is_hyp(self) -> bool {
        self as usize >= Self::HypVectors as usize
    }
}

/// Functions and hyp's static, in order of virtual address.
pub fn symbols() -> Vec<Symbol<'static>> {
    let function = |&(name, address, size)| Symbol {
        name,
        address,
        size,
    };
    let hyp = Symbol {
        name: "HYP",
        address: HYP + LINEAR_OFFSET,
        size: HYP_SIZE,
    };
    FUNCTIONS.iter().map(function).chain([hyp]).collect()
}

/// Physical address of hyp's static, `HYP`.
pub const HYP: u64 = DATA.base;
/// Its size in bytes.
pub const HYP_SIZE: u64 = 0x100;
/// Physical address of the RAM regions that `HYP.regions` points to.
pub(super) const REGIONS: u64 = RODATA.base;
/// Physical address of the sections that `HYP.sections` points to.
pub(super) const SECTION_LIST: u64 = RODATA.base + 0x100;
/// Physical address of the text that `HYP.release` points to.
pub(super) const RELEASE: u64 = RODATA.base + 0x400;
/// Bytes of one section: kind as u8, 7 unused, base and size as u64.
pub const SECTION_SIZE: u64 = 24;

/// The type of a member of `HYP`; all are little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberType {
    /// Ticket lock: u16 owner, u16 next, u32 holder, u64 taker.
    Lock,
    /// u64.
    U64,
    /// u32.
    U32,
    /// u8.
    U8,
    /// Virtual address of u16 reference counts, then how many as u64.
    Records,
    /// Virtual address of regions (u64 base, u64 size), then how many as u64.
    Regions,
    /// Virtual address of sections ([`SECTION_SIZE`] bytes each), then how many as u64.
    Sections,
    /// Virtual address of text, then how many bytes as u64.
    Text,
}

impl MemberType {
    /// Bytes in memory.
    pub fn size(self) -> u64 {
        match self {
            Self::Lock | Self::Records | Self::Regions | Self::Sections | Self::Text => 16,
            Self::U64 => 8,
            Self::U32 => 4,
            Self::U8 => 1,
        }
    }
}

/// A member of `HYP` that a debugger reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its path from the static on (`HYP.host.lock`).
    pub path: &'static str,
    /// Its type.
    pub kind: MemberType,
    /// Bytes from the start of `HYP`.
    pub offset: u64,
}

impl Member {
    /// Physical address.
    pub fn pa(&self) -> u64 {
        HYP + self.offset
    }
}

const fn member(path: &'static str, kind: MemberType, offset: u64) -> Member {
    Member { path, kind, offset }
}

/// Every member of `HYP` a debugger reads, in order of address.
pub const MEMBERS: [Member; 19] = [
    member("HYP.host.lock", MemberType::Lock, 0x00),
    member("HYP.host.pgt.root", MemberType::U64, 0x10),
    member("HYP.host.pool.lock", MemberType::Lock, 0x18),
    member("HYP.host.pool.base", MemberType::U64, 0x28),
    member("HYP.host.pool.pages", MemberType::U64, 0x30),
    member("HYP.host.pool.records", MemberType::Records, 0x38),
    member("HYP.hyp.lock", MemberType::Lock, 0x48),
    member("HYP.hyp.pgt.root", MemberType::U64, 0x58),
    member("HYP.hyp.pool.lock", MemberType::Lock, 0x60),
    member("HYP.hyp.pool.base", MemberType::U64, 0x70),
    member("HYP.hyp.pool.pages", MemberType::U64, 0x78),
    member("HYP.hyp.pool.records", MemberType::Records, 0x80),
    member("HYP.physvirt_offset", MemberType::U64, 0x90),
    member("HYP.regions", MemberType::Regions, 0x98),
    member("HYP.sections", MemberType::Sections, 0xa8),
    member("HYP.profile", MemberType::U8, 0xb8),
    member("HYP.finalised", MemberType::U8, 0xb9),
    member("HYP.cpus", MemberType::U32, 0xbc),
    member("HYP.release", MemberType::Text, 0xc0),
];

/// The locks by their names in documents.
pub(super) const LOCKS: [Lock<'static>; 4] = [
    lock("host", "HYP.host.lock", 0x00),
    lock("hyp", "HYP.hyp.lock", 0x48),
    lock("host-pool", "HYP.host.pool.lock", 0x18),
    lock("hyp-pool", "HYP.hyp.pool.lock", 0x60),
];

const fn lock(name: &'static str, symbol: &'static str, offset: u64) -> Lock<'static> {
    Lock {
        name,
        symbol,
        pa: HYP + offset,
    }
}

/// The pools as a debugger is told of them.
pub(super) fn pool_facts(pools: &Pools) -> [Pool<'static>; 2] {
    let pool = |name, range: PageRange<Pa>, records| Pool {
        name,
        base: range.base().get(),
        pages: range.size() / crate::addr::PAGE_SIZE,
        records,
        record_size: RECORD_SIZE,
    };
    [
        pool("host-pool", pools.host, pools.host_records),
        pool("hyp-pool", pools.hyp, pools.hyp_records),
    ]
}

/// Virtual address of the lowest byte of a CPU's EL2 stack.
pub(super) fn hyp_stack(cpu: usize) -> u64 {
    STACKS.base + LINEAR_OFFSET + cpu as u64 * STACK
}

/// The stack pointer of a CPU at an exception level, some way down its stack.
pub(super) fn stack_pointer(cpu: usize, at_hyp: bool) -> u64 {
    if at_hyp {
        hyp_stack(cpu) + STACK - 0x100
    } else {
        HOST_STACKS + (cpu as u64 + 1) * crate::addr::PAGE_SIZE - 0x40
    }
}

/// Physical text that holds code: filled with `NOP`.
pub(super) const CODE: [Region; 2] = [TEXT, HOST_TEXT];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_follow_each_other_without_overlap() {
        for pair in MEMBERS.windows(2) {
            assert!(
                pair[0].offset + pair[0].kind.size() <= pair[1].offset,
                "{pair:?}"
            );
        }
        let last = MEMBERS[MEMBERS.len() - 1];
        assert!(last.offset + last.kind.size() <= HYP_SIZE);
        for lock in LOCKS {
            let member = MEMBERS.iter().find(|member| member.path == lock.symbol);
            assert_eq!(member.map(Member::pa), Some(lock.pa), "{}", lock.symbol);
        }
    }

    #[test]
    fn sections_and_functions_are_in_order_and_apart() {
        for pair in SECTIONS.windows(2) {
            assert!(pair[0].1.end() <= pair[1].1.base, "{pair:?}");
        }
        let symbols = symbols();
        for pair in symbols.windows(2) {
            assert!(
                pair[0].address + pair[0].size <= pair[1].address,
                "{pair:?}"
            );
        }
        let hyp_panic = Function::HypPanic;
        assert_eq!(FUNCTIONS[hyp_panic as usize].0, "hyp_panic");
        assert!(Function::HypVectors.is_hyp() && !Function::HostCall.is_hyp());
    }

    #[test]
    fn the_pools_fit_their_section() {
        let pools = pools(&[page_range(RAM).unwrap()]).unwrap();
        assert!(pools.hyp.end().get() <= POOLS.end());
        let records = pools.hyp_records + pools.hyp.size() / 4096 * RECORD_SIZE;
        assert!(records <= pools.host.base().get());
    }
}
