//! Where everything is: the fixed numbers, and what the linker script decided.

use core::mem::offset_of;

use hyp::addr::{Pa, PageRange, Va};
use hyp::init::{Section, SectionKind};

use crate::dtb::MAX_CPUS;
use crate::vectors::Frame;

/// VA − PA of everything hyp maps but its stacks and the idmap; `hyp.ld` has the same number.
pub(crate) const OFFSET: u64 = 0x40_0000_0000;
/// Where QEMU puts the device tree of an ELF image.
pub(crate) const DEVICE_TREE: Pa = Pa::new(0x4000_0000);
/// Where the built-in host is loaded and runs; `hyp.ld` and `host.ld` have the same number.
pub(crate) const HOST: Pa = Pa::new(0x4100_0000);
/// The built-in host uses no RAM from here on.
pub(crate) const HOST_END: Pa = Pa::new(0x4340_0000);
/// The boot table maps RAM up to here.
pub(crate) const BOOT_RAM_END: Pa = Pa::new(0x8000_0000);
/// QEMU's `virt` has its first PL011 here.
pub(crate) const UART: Pa = Pa::new(0x0900_0000);

/// log2 of [`STACK_SIZE`]: this bit of an address tells a stack from a guard.
const STACK_BIT: u32 = 14;
/// Bytes of one CPU's stack.
pub(crate) const STACK_SIZE: u64 = 1 << STACK_BIT;
/// Where stacks are mapped: each after an unmapped guard of its own size, so that running out of stack faults.
const STACKS_VA: Va = Va::new(0x30_0000_0000);

/// The physical address of a symbol of the linker script or of `boot.s`.
macro_rules! linker_symbol {
    ($name:ident) => {{
        unsafe extern "C" {
            static $name: u8;
        }
        // Only the address is taken.
        Pa::new((&raw const $name as u64).wrapping_sub(OFFSET))
    }};
}

/// Where EL2 maps the byte at `pa`, at the fixed offset.
#[inline(always)]
pub(crate) fn va(pa: Pa) -> Va {
    Va::new(pa.get().wrapping_add(OFFSET))
}

fn range(start: Pa, end: Pa) -> PageRange<Pa> {
    match PageRange::new(start, end.get().wrapping_sub(start.get())) {
        Ok(range) => range,
        Err(error) => panic!("the linker script: {error}"),
    }
}

/// hyp's own sections, but for the pools.
pub(crate) fn image_sections() -> [Section; 6] {
    let section = |kind, start, end| Section {
        kind,
        range: range(start, end),
    };
    [
        section(
            SectionKind::Text,
            linker_symbol!(__text_start),
            linker_symbol!(__text_end),
        ),
        section(
            SectionKind::Rodata,
            linker_symbol!(__rodata_start),
            linker_symbol!(__rodata_end),
        ),
        section(
            SectionKind::Data,
            linker_symbol!(__data_start),
            linker_symbol!(__data_end),
        ),
        section(
            SectionKind::Bss,
            linker_symbol!(__bss_start),
            linker_symbol!(__bss_end),
        ),
        section(
            SectionKind::Stacks,
            linker_symbol!(__stacks_start),
            linker_symbol!(__stacks_end),
        ),
        section(SectionKind::Device, UART, UART.wrapping_add(0x1000)),
    ]
}

/// The code that runs at VA = PA.
pub(crate) fn idmap() -> PageRange<Pa> {
    range(linker_symbol!(__text_start), linker_symbol!(__idmap_end))
}

/// Where PSCI starts the other CPUs.
pub(crate) fn secondary_entry() -> Pa {
    linker_symbol!(secondary_entry)
}

/// The memory of a CPU's stack.
pub(crate) fn stack_memory(cpu: usize) -> PageRange<Pa> {
    let start = linker_symbol!(__stacks_start).wrapping_add(cpu as u64 * STACK_SIZE);
    range(start, start.wrapping_add(STACK_SIZE))
}

/// The code that no breakpoint may be in: it runs with the MMU off, or while the debugger stops CPUs.
#[cfg(feature = "channel")]
pub(crate) fn unbroken() -> PageRange<Pa> {
    range(linker_symbol!(__text_start), linker_symbol!(__unbroken_end))
}

/// Whether an instruction of EL2's is in that code.
#[cfg(feature = "channel")]
#[inline(always)]
pub(crate) fn is_unbroken(va: u64) -> bool {
    let pa = va.wrapping_sub(OFFSET);
    linker_symbol!(__text_start).get() <= pa && pa < linker_symbol!(__unbroken_end).get()
}

/// What the debugger itself runs on.
#[cfg(feature = "channel")]
pub(crate) fn debugger_memory() -> PageRange<Pa> {
    range(
        linker_symbol!(__debugger_start),
        linker_symbol!(__debugger_end),
    )
}

/// The top of a CPU's stack: where its frame of the host's exception ends.
#[cfg(feature = "channel")]
#[inline(always)]
pub(crate) fn stack_top(cpu: usize) -> u64 {
    STACKS_VA
        .get()
        .wrapping_add((2 * cpu as u64 + 2).wrapping_mul(STACK_SIZE))
}

/// Where a CPU's stack is mapped beside the fixed offset.
pub(crate) fn stack(cpu: usize) -> PageRange<Va> {
    let start = STACKS_VA.wrapping_add((2 * cpu as u64 + 1) * STACK_SIZE);
    match PageRange::new(start, STACK_SIZE) {
        Ok(range) => range,
        Err(error) => panic!("stack {cpu}: {error}"),
    }
}

#[repr(C, align(4096))]
struct Stacks([u8; MAX_CPUS * STACK_SIZE as usize]);

/// One stack a CPU.
#[unsafe(link_section = ".stacks")]
#[used]
static mut STACKS: Stacks = Stacks([0; MAX_CPUS * STACK_SIZE as usize]);

const OVERFLOW_STACK_SIZE: usize = 0x2000;

#[repr(C, align(16))]
struct OverflowStack([u8; OVERFLOW_STACK_SIZE]);

/// What a CPU reports on that has used up its own stack.
#[unsafe(no_mangle)]
static mut OVERFLOW_STACK: OverflowStack = OverflowStack([0; OVERFLOW_STACK_SIZE]);

/// EL2's first table: 1 GiB blocks, until hyp has made its own. Entries 1 and 257 map the first GiB of RAM at
/// VA = PA and at the fixed offset, entry 256 the devices below it.
#[repr(C, align(4096))]
struct BootTable([u64; 512]);

#[unsafe(no_mangle)]
static BOOT_TABLE: BootTable = BootTable(boot_table());

const fn boot_table() -> [u64; 512] {
    // Block; AP RW; SH inner; AF. Attribute 0 is Normal, 1 Device, as boot.s sets MAIR_EL2.
    const NORMAL: u64 = 1 | 1 << 6 | 3 << 8 | 1 << 10;
    const DEVICE: u64 = 1 | 1 << 2 | 1 << 6 | 1 << 10 | 1 << 54;
    const GIB: u64 = 1 << 30;
    let mut table = [0; 512];
    table[1] = GIB | NORMAL;
    table[256] = DEVICE;
    table[257] = GIB | NORMAL;
    table
}

core::arch::global_asm!(
    include_str!("boot.s"),
    STACK_SIZE = const STACK_SIZE,
    STACK_SHIFT = const STACK_BIT + 1,
    STACKS_VA = const STACKS_VA.get(),
    FRAME_SIZE = const size_of::<Frame>(),
    FRAME_ELR = const offset_of!(Frame, elr),
    FRAME_SAVED = const offset_of!(Frame, saved),
);
core::arch::global_asm!(
    include_str!("vectors.s"),
    STACK_BIT = const STACK_BIT,
    OFFSET_BIT = const OFFSET.trailing_zeros(),
    CHANNEL = const cfg!(feature = "channel") as u32,
    OVERFLOW_STACK_SIZE = const OVERFLOW_STACK_SIZE,
);
