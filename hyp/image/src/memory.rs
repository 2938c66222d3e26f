//! What hyp takes of RAM, and how it describes it to its library.

use hyp::Hyp;
use hyp::addr::{PAGE_SIZE, Pa, PageRange, Va};
use hyp::init::{Config, InitError, PoolMemory, Section, SectionKind};
use hyp::pgtable::Geometry;
use hyp::pool::PageRecord;

use crate::cpu::ThisCpu;
use crate::dtb::{MAX_CPUS, Machine};
use crate::layout::{
    BOOT_RAM_END, HOST, HOST_END, OFFSET, idmap, image_sections, stack, stack_memory, va,
};

/// Table pages for devices in the host's stage 2. When they are used up, hyp unmaps all devices and starts over.
const DEVICE_TABLES: u64 = 64;
/// Table pages for what EL2 maps outside RAM's fixed-offset range: two levels each for the UART, the stacks and
/// the idmap, and one each for the GIC and the console's transport.
const PRIVATE_TABLES: u64 = 8;

/// The pages of devices that the host may not reach.
fn own_devices() -> impl Iterator<Item = PageRange<Pa>> {
    #[cfg(feature = "channel")]
    return crate::debugger::pages();
    #[cfg(not(feature = "channel"))]
    core::iter::empty()
}

/// hyp's own sections, the pools, what it has of the host, and devices: the console's page, the distributor's, and one
/// of each CPU's redistributor.
pub(crate) const MAX_SECTIONS: usize = 9 + 2 + MAX_CPUS;

/// The head of the built-in host's image, as `host/start.s` lays it out.
#[repr(C)]
struct HostHead {
    branch: [u32; 2],
    magic: [u8; 8],
    entry: u64,
    rodata: [u64; 2],
    bss: [u64; 2],
}

const HOST_MAGIC: [u8; 8] = *b"hyp-host";

#[repr(C, align(4096))]
struct HostImage<const N: usize>([u8; N]);

/// The built-in host, which QEMU loads with hyp.
#[unsafe(link_section = ".host")]
#[used]
static HOST_IMAGE: HostImage<{ include_bytes!(env!("HYP_HOST_BINARY")).len() }> =
    HostImage(*include_bytes!(env!("HYP_HOST_BINARY")));

/// What hyp takes of RAM, kept for as long as hyp runs.
pub(crate) struct Memory {
    sections: [Section; MAX_SECTIONS],
    section_count: usize,
    host_pool: PoolMemory<'static>,
    hyp_pool: PoolMemory<'static>,
    host_entry: u64,
}

impl Memory {
    /// Places the pools at the end of the RAM that is mapped from boot on, big enough for all of `regions` page by page,
    /// and finds the host's parts.
    pub(crate) fn plan(regions: &[PageRange<Pa>]) -> Self {
        let host_pages = Geometry::HOST_STAGE2.pages_needed(regions) + DEVICE_TABLES;
        let hyp_pages = Geometry::HYP_STAGE1.pages_needed(regions) + PRIVATE_TABLES;
        let region = regions.iter().find(|region| region.contains(HOST));
        let mut free = region.map_or(HOST, |region| region.end()).min(BOOT_RAM_END);
        let mut take = |bytes: u64| {
            let base = Pa::new(free.get().saturating_sub(bytes)).page();
            assert!(
                base >= HOST_END,
                "hyp's pools for this much RAM do not fit between {HOST_END}, where the built-in host ends, and \
                 {BOOT_RAM_END} or the end of RAM: start with 64 MiB to 128 GiB"
            );
            let taken = between([base.get(), free.get()]);
            free = base;
            taken
        };
        // The host's root is two pages, aligned to their size.
        let host_tables = take((host_pages + 1) * PAGE_SIZE);
        let hyp_tables = take(hyp_pages * PAGE_SIZE);
        let host_records = take(records_size(host_tables));
        let hyp_records = take(records_size(hyp_tables));
        let all = between([hyp_records.base().get(), host_tables.end().get()]);
        let head = host_head();
        let [text, rodata, data, bss, stacks, device] = image_sections();
        let mut sections = [text; MAX_SECTIONS];
        let known = [
            text,
            rodata,
            data,
            bss,
            stacks,
            Section {
                kind: SectionKind::Pools,
                range: all,
            },
            Section {
                kind: SectionKind::HostRodata,
                range: between(head.rodata),
            },
            Section {
                kind: SectionKind::HostBss,
                range: between(head.bss),
            },
            device,
        ];
        sections[..known.len()].copy_from_slice(&known);
        let mut section_count = known.len();
        for range in own_devices() {
            sections[section_count] = Section {
                kind: SectionKind::OwnDevice,
                range,
            };
            section_count += 1;
        }
        Self {
            sections,
            section_count,
            host_pool: PoolMemory {
                pages: host_tables,
                records: records(host_records, host_tables),
            },
            hyp_pool: PoolMemory {
                pages: hyp_tables,
                records: records(hyp_records, hyp_tables),
            },
            host_entry: head.entry,
        }
    }

    /// The description hyp starts from.
    pub(crate) fn config(&'static self, machine: &'static Machine) -> Config<'static> {
        Config {
            regions: machine.regions(),
            sections: &self.sections[..self.section_count],
            physvirt_offset: OFFSET.wrapping_neg(),
            cpus: machine.mpidrs().len() as u32,
            host_pool: self.host_pool,
            hyp_pool: self.hyp_pool,
            host_geometry: Geometry::HOST_STAGE2,
            lock_checks: true,
        }
    }

    /// Where the built-in host starts.
    pub(crate) fn host_entry(&self) -> u64 {
        self.host_entry
    }
}

/// Maps, besides what is at the fixed offset, the stacks between their guards and the idmap.
pub(crate) fn map_aliases(hyp: &Hyp<'_>) -> Result<(), InitError> {
    let text = Section {
        kind: SectionKind::Text,
        range: idmap(),
    };
    hyp.create_private_mapping(&ThisCpu, Va::new(idmap().base().get()), text)?;
    (0..MAX_CPUS).try_for_each(|cpu| {
        let memory = Section {
            kind: SectionKind::Stacks,
            range: stack_memory(cpu),
        };
        hyp.create_private_mapping(&ThisCpu, stack(cpu).base(), memory)
    })
}

fn host_head() -> &'static HostHead {
    let head = va(HOST).get() as *const HostHead;
    // SAFETY: the image's own section `.host` lies there, mapped, aligned, and not written before the host runs;
    // any bytes are a head.
    let head = unsafe { &*head };
    assert!(
        head.magic == HOST_MAGIC,
        "there is no built-in host at {HOST}"
    );
    head
}

fn records_size(tables: PageRange<Pa>) -> u64 {
    tables.size() / PAGE_SIZE * size_of::<PageRecord>() as u64
}

/// The records about `tables`, in the memory at `at`.
fn records(at: PageRange<Pa>, tables: PageRange<Pa>) -> &'static [PageRecord] {
    let first = va(at.base()).get() as *const PageRecord;
    let count = (tables.size() / PAGE_SIZE) as usize;
    // SAFETY: `at` has room for them, is RAM of hyp's that nothing else uses, is mapped at the fixed offset from
    // boot on, and any bytes are records.
    unsafe { core::slice::from_raw_parts(first, count) }
}

/// The pages from one address to another.
fn between([start, end]: [u64; 2]) -> PageRange<Pa> {
    match PageRange::new(Pa::new(start), end.wrapping_sub(start)) {
        Ok(range) => range,
        Err(error) => panic!("hyp's memory: {error}"),
    }
}
