//! The host that is built into the image: a small kernel at EL1 that does, on every CPU and for ever, what there is
//! to watch: it touches RAM and devices, shares pages, asks for what must be refused, and lets CPUs contend.
//!
//! It has its own text and never calls hyp's: all it knows of hyp is what a guest can know.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod devices;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod rounds;
#[cfg(target_os = "none")]
#[path = "../smc.rs"]
mod smc;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this host runs under hyp, not here: build it with `cargo fixtures image`");
    std::process::exit(2);
}
