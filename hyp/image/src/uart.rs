//! The log: a PL011 UART, which the host may use too. QEMU's needs no setting up.

use core::fmt::{self, Write};
use core::ptr::{read_volatile, write_volatile};

use hyp::lock::TicketLock;

use crate::cpu::ThisCpu;
use crate::layout::{UART, va};

/// UARTDR, the data register.
const DATA: u64 = 0x00;
/// UARTFR, the flag register.
const FLAGS: u64 = 0x18;
/// UARTFR.TXFF: the transmit FIFO is full.
const TRANSMIT_FULL: u32 = 1 << 5;

/// Keeps one CPU's line from another's. Debuggers find it by this name.
#[unsafe(no_mangle)]
pub(crate) static CONSOLE: TicketLock = TicketLock::new();

/// Prints a line under the console's lock.
macro_rules! println {
    ($($argument:tt)*) => {
        $crate::uart::print(format_args!($($argument)*))
    };
}
pub(crate) use println;

/// Prints `line`, waiting for others to finish theirs.
pub(crate) fn print(line: fmt::Arguments<'_>) {
    let _console = CONSOLE.lock(&ThisCpu);
    print_unlocked(line);
}

/// Prints `line` at once: for a panic, when whoever holds the lock may never release it.
pub(crate) fn print_unlocked(line: fmt::Arguments<'_>) {
    // Writing to the UART cannot fail, so only a value's own `Display` could; then its line is short.
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
    let register = |offset| va(UART.wrapping_add(offset)).get() as *mut u32;
    // SAFETY: EL2 maps the UART's page as device memory at the fixed offset from boot on, and these are its
    // registers; writing one character is all they can do here.
    unsafe {
        while read_volatile(register(FLAGS)) & TRANSMIT_FULL != 0 {}
        write_volatile(register(DATA), byte.into());
    }
}
