//! Passes the linker scripts, which only the bare-metal target has.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=hyp.ld");
    println!("cargo::rerun-if-changed=host.ld");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        let package = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        for (binary, script) in [("hyp-image", "hyp.ld"), ("hyp-host", "host.ld")] {
            println!("cargo::rustc-link-arg-bin={binary}=-T{package}/{script}");
            // Sections stand at pages anyway, and the file need not be padded to 64 KiB.
            println!("cargo::rustc-link-arg-bin={binary}=-zmax-page-size=4096");
        }
        // hyp.ld has it loaded. The built-in host is part of what it is made from.
        println!("cargo::rustc-link-arg-bin=hyp-image=--build-id=sha1");
    }
}
