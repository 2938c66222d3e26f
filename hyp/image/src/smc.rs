//! Calls to the firmware. hyp and the built-in host are two programs: each compiles a copy of its own.

use core::arch::asm;

/// The SMC function with this id and arguments: what it returns in x0, if it returns.
pub(crate) fn smc(function: u64, arguments: [u64; 3]) -> u64 {
    let result;
    // SAFETY: the calls made here return to the next instruction, or never; SMCCC lets the firmware change
    // x0 to x17 and no memory of ours. A CPU it starts has a stack of its own.
    unsafe {
        asm!(
            "smc #0",
            inout("x0") function => result,
            inout("x1") arguments[0] => _,
            inout("x2") arguments[1] => _,
            inout("x3") arguments[2] => _,
            out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _,
            out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _,
            options(nostack)
        );
    }
    result
}
