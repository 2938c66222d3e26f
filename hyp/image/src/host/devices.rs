//! Devices, interrupts and debug registers. A debugger in hyp may have taken a part of each; the host must not notice.

use core::arch::asm;
use core::hint;

use crate::machine::{read, read_byte, write, write_byte};

/// Devices of QEMU's `virt`: PL011 UART, PL031 clock, the last page of virtio-mmio transports.
pub(crate) const UART: u64 = 0x0900_0000;
const CLOCK: u64 = 0x0901_0000;
const TRANSPORTS: u64 = 0x0a00_3000;
/// What a transport's register MagicValue reads as.
const MAGIC: u32 = 0x7472_6976;

/// The GICv3: distributor, and each CPU's redistributor: a page of control, then 64 KiB on one of private interrupts.
const DISTRIBUTOR: u64 = 0x0800_0000;
const REDISTRIBUTORS: u64 = 0x080a_0000;
const REDISTRIBUTOR_SIZE: u64 = 0x2_0000;
const PRIVATE: u64 = 0x1_0000;

/// GICD_CTLR: ARE (4), EnableGrp1 (1), EnableGrp0 (0).
const CTLR: u64 = 0x000;
const ENABLE: u32 = 1 << 4 | 1 << 1;
const ENABLE_GROUPS: u32 = 1 << 1 | 1 << 0;
/// GICD_TYPER.
const TYPER: u64 = 0x004;
/// GICR_WAKER.
const WAKER: u64 = 0x014;
/// Registers of the same offsets for shared (GICD) and private interrupts (GICR): group, enable and disable, pending
/// and not, priority.
const IGROUPR: u64 = 0x080;
const ISENABLER: u64 = 0x100;
const ICENABLER: u64 = 0x180;
const ISPENDR: u64 = 0x200;
const ICPENDR: u64 = 0x280;
const IPRIORITYR: u64 = 0x400;

/// The virtual timer's interrupt.
const TIMER: u32 = 27;
/// A software-generated interrupt, which is never enabled.
const SGI: u32 = 1;
/// Shared interrupts that no device has, one for each CPU.
const SHARED: u32 = 96;

/// Reads a system register by its name in the Arm ARM, or by its encoding.
macro_rules! read_register {
    ($name:ident) => {{
        let value: u64;
        // SAFETY: reading these registers changes nothing.
        unsafe {
            asm!(concat!("mrs {}, ", stringify!($name)), out(reg) value, options(nomem, nostack, preserves_flags));
        }
        value
    }};
}

/// Writes a system register and sees to it that it holds for what follows.
macro_rules! write_register {
    ($name:ident, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: interrupts stay masked and breakpoints off, whatever these registers say.
        unsafe {
            asm!(concat!("msr ", stringify!($name), ", {}"), "isb", in(reg) value, options(nostack, preserves_flags));
        }
    }};
}

fn private(cpu: u64) -> u64 {
    REDISTRIBUTORS + cpu * REDISTRIBUTOR_SIZE + PRIVATE
}

/// Lets this CPU's virtual timer wake it: its interrupt is enabled, but masked, so that WFI ends and nothing else
/// happens. ICC_PMR_EL1 lets all priorities through, ICC_IGRPEN1_EL1 group 1.
pub(crate) fn enable_timer(cpu: u64) {
    write(DISTRIBUTOR + CTLR, ENABLE);
    write(private(cpu) - PRIVATE + WAKER, 0);
    write(private(cpu) + IGROUPR, u32::MAX);
    write(private(cpu) + ISENABLER, 1 << TIMER);
    write_register!(S3_0_C4_C6_0, 0xff);
    write_register!(S3_0_C12_C12_7, 1);
}

/// What all CPUs do at the same time: read UARTPeriphID0, RTCDR and GICD_TYPER, which changes nothing.
pub(crate) fn contend() {
    for register in [UART + 0xfe0, CLOCK, DISTRIBUTOR + TYPER] {
        read(register);
    }
}

/// Uses everything once, and finds what it left there.
pub(crate) fn check(cpu: u64, round: u64) {
    // With a debugger in hyp this page looks like nothing.
    let magic = read(TRANSPORTS);
    assert!(magic == MAGIC || magic == 0, "virtio transport: {magic:#x}");
    // Five bits of eight are there at least, also in ICC_PMR_EL1: it lets through what is below 0xf8, the timer too.
    let priority = (round % 30 + 1) as u8 * 8;
    shared_interrupt(SHARED + cpu as u32, priority);
    private_interrupts(private(cpu), priority);
    software_interrupt(cpu);
    cpu_registers();
}

#[track_caller]
fn expect(what: &str, found: u32, expected: u32) {
    assert!(found == expected, "{what}: {found:#x}, not {expected:#x}");
}

/// Each CPU has an interrupt and a byte of its own; the register of enable bits is for all of them.
fn shared_interrupt(interrupt: u32, priority: u8) {
    expect(
        "GICD_CTLR",
        read(DISTRIBUTOR + CTLR) & ENABLE_GROUPS,
        1 << 1,
    );
    let byte = DISTRIBUTOR + IPRIORITYR + u64::from(interrupt);
    write_byte(byte, priority);
    expect("GICD_IPRIORITYR", read_byte(byte), priority.into());
    let word = u64::from(interrupt / 32 * 4);
    let bit = 1 << (interrupt % 32);
    write(DISTRIBUTOR + IGROUPR + word, u32::MAX);
    expect("GICD_IGROUPR", read(DISTRIBUTOR + IGROUPR + word), u32::MAX);
    for (register, value) in [
        (ISENABLER, bit),
        (ICENABLER, 0),
        (ISPENDR, bit),
        (ICPENDR, 0),
    ] {
        write(DISTRIBUTOR + register + word, bit);
        let found = read(DISTRIBUTOR + register + word) & bit;
        expect("GICD enable or pending", found, value);
    }
}

fn private_interrupts(page: u64, priority: u8) {
    let byte = page + IPRIORITYR + u64::from(TIMER);
    write_byte(byte, priority);
    expect("GICR_IPRIORITYR", read_byte(byte), priority.into());
    // Interrupts 16 to 19, all in one.
    let word = u32::from_ne_bytes([priority; 4]);
    write(page + IPRIORITYR + 16, word);
    expect("GICR_IPRIORITYR", read(page + IPRIORITYR + 16), word);
    expect("GICR_IGROUPR0", read(page + IGROUPR), u32::MAX);
    expect("GICR_ISENABLER0", read(page + ISENABLER), 1 << TIMER);
}

/// Sends this CPU an interrupt, sees it pending, and takes it back.
fn software_interrupt(cpu: u64) {
    let (pending, clear) = (private(cpu) + ISPENDR, private(cpu) + ICPENDR);
    // ICC_SGI1R_EL1: INTID, and the target list, whose bits are numbers as the firmware knows CPUs by.
    write_register!(S3_0_C12_C11_5, u64::from(SGI) << 24 | 1 << cpu);
    while read(pending) & 1 << SGI == 0 {
        hint::spin_loop();
    }
    write(clear, 1 << SGI);
    expect("GICR_ISPENDR0", read(pending) & 1 << SGI, 0);
}

fn cpu_registers() {
    // ICC_PMR_EL1: five bits of eight at least.
    let mask = read_register!(S3_0_C4_C6_0);
    assert!(mask & 0xf8 == 0xf8, "ICC_PMR_EL1: {mask:#x}");
    // ICC_RPR_EL1: idle.
    let running = read_register!(S3_0_C12_C11_3);
    assert!(running == 0xff, "ICC_RPR_EL1: {running:#x}");
    // OSLAR_EL1, then OSLSR_EL1.OSLK.
    write_register!(oslar_el1, 0);
    assert!(read_register!(oslsr_el1) & 1 << 1 == 0, "the OS lock");
    // MDSCR_EL1.TDCC.
    for value in [1 << 12, 0] {
        write_register!(mdscr_el1, value);
        let found = read_register!(mdscr_el1);
        assert!(found == value, "MDSCR_EL1: {found:#x}, not {value:#x}");
    }
}
