//! hyp as a bare-metal image; `cargo fixtures image` builds it.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("hyp runs at EL2, not here: build it with `cargo fixtures image`");
    std::process::exit(2);
}
