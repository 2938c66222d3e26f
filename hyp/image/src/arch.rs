//! System registers and barriers, each instruction in one place.

/// Reads a system register by its name in the Arm ARM.
macro_rules! read_register {
    ($name:ident) => {{
        let value: u64;
        // SAFETY: reading this register changes nothing; EL2 may read all that are named in this package.
        #[allow(unused_unsafe, reason = "some use it inside of an unsafe block")]
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", stringify!($name)), out(reg) value, options(nomem, nostack, preserves_flags));
        }
        value
    }};
}

/// Writes a system register. Unsafe: the caller says why the new value keeps hyp running.
macro_rules! write_register {
    ($name:ident, $value:expr) => {{
        let value: u64 = $value;
        core::arch::asm!(concat!("msr ", stringify!($name), ", {}"), in(reg) value, options(nostack, preserves_flags));
    }};
}

pub(crate) use {read_register, write_register};

/// `ISB`: what was written to system registers before holds for all that follows.
pub(crate) fn isb() {
    // SAFETY: a barrier has no effect but on order.
    unsafe { core::arch::asm!("isb", options(nostack, preserves_flags)) }
}

/// Waits for ever, where a debugger finds the CPU.
pub(crate) fn park() -> ! {
    loop {
        // SAFETY: waiting has no effect; interrupts are masked at EL2.
        unsafe { core::arch::asm!("wfi", options(nomem, nostack, preserves_flags)) }
    }
}
