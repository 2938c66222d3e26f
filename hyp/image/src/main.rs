//! hyp as a bare-metal image for QEMU's `virt` machine; `cargo fixtures image` builds it.
//!
//! All of hyp's unsafe code and assembly is in this package. In the order in which CPU 0 runs it:
//! `boot.s`, `el2` with `dtb`, `layout` and `memory`, then `vectors`, `psci` and
//! `cpu` for as long as the machine runs, and `panic` at its end. `debugger` is hyp's own, and `emulate` what the
//! host sees of the devices that it has taken.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(any(target_os = "none", test))]
mod dtb;
#[cfg(any(all(target_os = "none", feature = "channel"), test))]
mod emulate;

#[cfg(target_os = "none")]
mod arch;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(all(target_os = "none", feature = "channel"))]
mod debugger;
#[cfg(target_os = "none")]
mod el2;
#[cfg(target_os = "none")]
mod layout;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod panic;
#[cfg(target_os = "none")]
mod psci;
#[cfg(target_os = "none")]
mod smc;
#[cfg(target_os = "none")]
mod uart;
#[cfg(target_os = "none")]
mod vectors;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("hyp runs at EL2, not here: build it with `cargo fixtures image`");
    std::process::exit(2);
}
