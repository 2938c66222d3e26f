//! The machine as the host sees it: memory, devices, hypercalls, PSCI, time, and the log.

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::ptr::{read_volatile, write_volatile};
use core::sync::atomic::{AtomicU64, Ordering};

use crate::devices::UART;
use crate::smc::smc;

/// The most CPUs there are stacks for.
pub(crate) const MAX_CPUS: usize = 8;
const STACK_SHIFT: u32 = 14;

global_asm!(
    include_str!("start.s"),
    STACK_SHIFT = const STACK_SHIFT,
    BREAK = const BREAK,
);

#[repr(C, align(4096))]
struct Stacks([u8; MAX_CPUS << STACK_SHIFT]);

#[unsafe(no_mangle)]
#[unsafe(link_section = ".stacks")]
static mut STACKS: Stacks = Stacks([0; MAX_CPUS << STACK_SHIFT]);

/// VA = PA in 1 GiB blocks: devices below RAM, then 4 GiB of RAM.
#[repr(C, align(4096))]
struct HostTable([AtomicU64; ENTRIES]);

#[unsafe(no_mangle)]
static HOST_TABLE: HostTable = HostTable(host_table());

const ENTRIES: usize = 512;
/// Of [`HOST_TABLE`], the entry that stands for a table while an order is about it: its last GiB.
const SPARE: usize = ENTRIES - 1;
/// An address that the fourth entry of that table is for.
const BEHIND_SPARE: u64 = (SPARE as u64) << 30 | 3 << 21 | 0x5040;

const fn host_table() -> [AtomicU64; ENTRIES] {
    // Block; SH inner; AF. Attribute 0 is Normal, 1 Device, as start.s sets MAIR_EL1.
    const NORMAL: u64 = 1 | 3 << 8 | 1 << 10;
    // UXN and PXN.
    const DEVICE: u64 = 1 | 1 << 2 | 1 << 10 | 3 << 53;
    let mut table = [const { AtomicU64::new(0) }; ENTRIES];
    table[0] = AtomicU64::new(DEVICE);
    let mut gib = 1;
    while gib <= 4 {
        table[gib] = AtomicU64::new((gib as u64) << 30 | NORMAL);
        gib += 1;
    }
    table
}

/// Accesses that hyp refused: each was answered by an abort, and survived.
#[unsafe(no_mangle)]
pub(crate) static ABORTS: AtomicU64 = AtomicU64::new(0);

/// Breakpoint instructions of this host's own that came to its vector.
#[unsafe(no_mangle)]
pub(crate) static BREAKS: AtomicU64 = AtomicU64::new(0);
/// Their immediate, by which the vector knows them.
const BREAK: u32 = 0x5a;

/// Reads 4 bytes of memory or of a device. If hyp refuses, the result means nothing and [`ABORTS`] goes up.
pub(crate) fn read(address: u64) -> u32 {
    let value;
    // SAFETY: the address is of RAM no Rust object is in, of a device register whose reading changes nothing, or
    // refused; one plain load is what a device needs, and what the vector steps over.
    unsafe {
        asm!("ldr {:w}, [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags));
    }
    value
}

/// Writes 4 bytes of memory or of a device. If hyp refuses, nothing is written and [`ABORTS`] goes up.
pub(crate) fn write(address: u64, value: u32) {
    // SAFETY: as for `read`; what devices are told lets nothing happen but that WFI ends.
    unsafe {
        asm!("str {:w}, [{}]", in(reg) value, in(reg) address, options(nostack, preserves_flags));
    }
}

/// Calls what is at an address. If hyp refuses, nothing was called and [`ABORTS`] goes up.
pub(crate) fn execute(address: u64) {
    // SAFETY: whoever orders it has written a RET there; or hyp refuses, and the vector returns in its place.
    unsafe {
        asm!("blr {}", in(reg) address, out("x30") _, options(nostack, preserves_flags));
    }
}

/// Reads what the fourth entry of the table at an address maps, as one of this CPU's walks of it finds it. If hyp refuses
/// the walk, [`ABORTS`] goes up.
pub(crate) fn walk(table: u64) {
    /// A table descriptor.
    const TABLE: u64 = 3;
    HOST_TABLE.0[SPARE].store(table | TABLE, Ordering::Relaxed);
    // SAFETY: the entry was not valid, so that no TLB has it; no Rust object is behind it.
    unsafe { asm!("dsb ishst", "isb", options(nostack, preserves_flags)) }
    read(BEHIND_SPARE);
    HOST_TABLE.0[SPARE].store(0, Ordering::Relaxed);
    // SAFETY: takes away only what the entry was for; the rest comes back by itself.
    unsafe {
        asm!(
            "dsb ishst",
            "tlbi vmalle1is",
            "dsb ish",
            "isb",
            options(nostack, preserves_flags)
        );
    }
}

/// Reads a byte of a device.
pub(crate) fn read_byte(address: u64) -> u32 {
    let value;
    // SAFETY: as for `read`.
    unsafe {
        asm!("ldrb {:w}, [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags));
    }
    value
}

/// Writes a byte of a device.
pub(crate) fn write_byte(address: u64, value: u8) {
    // SAFETY: as for `write`.
    unsafe {
        asm!("strb {:w}, [{}]", in(reg) u32::from(value), in(reg) address, options(nostack, preserves_flags));
    }
}

/// Executes a breakpoint instruction of this host's own: [`BREAKS`] goes up.
pub(crate) fn breakpoint() {
    // SAFETY: the vector goes on after it.
    unsafe { asm!("brk #{}", const BREAK, options(nostack, preserves_flags)) }
}

/// The hypercall with this id and argument: x0 and x1 afterwards.
pub(crate) fn hypercall(id: u64, argument: u64) -> (i64, i64) {
    let (status, result);
    // SAFETY: hyp changes x0 and x1 only, and no memory this host has not shared with it.
    unsafe {
        asm!(
            "hvc #0",
            inout("x0") 0xc600_0000 | id => status,
            inout("x1") argument => result,
            options(nostack)
        );
    }
    (status, result)
}

/// PSCI's CPU_ON: starts the CPU with these affinity fields at `host_start`, its number in x0. 0, or PSCI's error.
pub(crate) fn cpu_on(cpu: u64) -> i64 {
    unsafe extern "C" {
        static host_start: u8;
    }
    psci(0xc400_0003, [cpu, &raw const host_start as u64, cpu])
}

/// The PSCI function with this id and arguments: what it returns, if it returns.
pub(crate) fn psci(function: u64, arguments: [u64; 3]) -> i64 {
    smc(function, arguments).cast_signed()
}

/// Sleeps for a part of a second: 1/`part`.
pub(crate) fn sleep(part: u64) {
    // SAFETY: this CPU's virtual timer is the host's: CNTV_TVAL_EL0, then CNTV_CTL_EL0.ENABLE until it has fired
    // (ISTATUS, bit 2).
    unsafe {
        asm!(
            "mrs {ticks}, cntfrq_el0",
            "udiv {ticks}, {ticks}, {part}",
            "msr cntv_tval_el0, {ticks}",
            "mov {ticks}, #1",
            "msr cntv_ctl_el0, {ticks}",
            "2:",
            "isb",
            "wfi",
            "mrs {ticks}, cntv_ctl_el0",
            "tbz {ticks}, #2, 2b",
            "msr cntv_ctl_el0, xzr",
            ticks = out(reg) _,
            part = in(reg) part,
            options(nomem, nostack)
        );
    }
}

/// Waits a moment for another CPU.
pub(crate) fn relax() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nomem, nostack, preserves_flags)) }
}

/// Prints a line. Only one CPU at a time may.
pub(crate) fn print(line: fmt::Arguments<'_>) {
    // Writing to the UART cannot fail.
    let _ = writeln!(Uart, "{line}");
}

struct Uart;

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                put(b'\r');
            }
            put(byte);
        }
        Ok(())
    }
}

fn put(byte: u8) {
    // SAFETY: UARTFR.TXFF says when there is room, UARTDR takes a character.
    unsafe {
        while read_volatile((UART + 0x18) as *const u32) & 1 << 5 != 0 {}
        write_volatile(UART as *mut u32, byte.into());
    }
}

/// An exception that hyp should not have let happen.
#[unsafe(no_mangle)]
extern "C" fn host_unexpected(esr: u64, elr: u64, far: u64) -> ! {
    panic!("exception: ESR_EL1 {esr:#x} ELR_EL1 {elr:#x} FAR_EL1 {far:#x}")
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    print(format_args!("host: FAILED: {info}"));
    loop {
        // SAFETY: waiting has no effect.
        unsafe { asm!("wfi", options(nomem, nostack, preserves_flags)) }
    }
}
