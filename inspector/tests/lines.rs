//! Source lines and inlined functions of hyp and of Debian's kernels.

use fixtures::kernels::Kernel;
use fixtures::{Variant, build_image};
use inspector::image::{Images, Symbol};
use std::process::Command;

/// How many functions of hyp are held against gdb.
const COMPARED: usize = 200;

/// What gdb says of addresses: file and line, where it knows one.
fn gdb(file: &std::path::Path, addresses: &[u64]) -> Vec<Option<(String, u32)>> {
    let mut command = Command::new("gdb-multiarch");
    command.args(["-nx", "-batch"]);
    for address in addresses {
        command.args(["-ex", &format!("info line *{address:#x}")]);
    }
    let output = command
        .arg(file)
        .output()
        .expect("gdb-multiarch is missing: install it (`cargo fixtures setup` does)");
    let text = String::from_utf8_lossy(&output.stdout);
    // `Line 65 of "hyp/image/src/vectors.rs" starts at address …`, also `is at address … but contains no code`.
    let known = |line: &str| {
        let (line, rest) = line.strip_prefix("Line ")?.split_once(" of \"")?;
        Some((rest.split_once('"')?.0.to_owned(), line.parse().ok()?))
    };
    let lines = text.lines().filter(|line| line.contains("address"));
    lines.map(known).collect()
}

#[test]
fn qemu_hyp_has_the_lines_that_gdb_finds() {
    let image = build_image(Variant::Channel).expect("the image builds");
    let mut images = Images::open(std::slice::from_ref(&image.hyp)).expect("it is read");
    let symbols = images.symbols();
    let code = |symbol: &&Symbol| symbol.size > 64 && !is_data(symbol);
    let addresses: Vec<_> = symbols
        .iter()
        .filter(code)
        .map(|symbol| symbol.address + 16)
        .collect();
    let step = (addresses.len() / COMPARED).max(1);
    let addresses: Vec<_> = addresses.into_iter().step_by(step).collect();
    let theirs = gdb(&image.hyp, &addresses);
    assert_eq!(theirs.len(), addresses.len());
    let mut compared = 0;
    for (address, theirs) in addresses.into_iter().zip(theirs) {
        let ours = images
            .functions(address)
            .first()
            .and_then(|function| function.source.clone());
        if let (Some((file, line)), Some(ours)) = (theirs, ours) {
            assert_eq!(ours.line, line, "{address:#x}: {ours} | {file}");
            // gdb names a crate's files without the crate.
            let same = file.ends_with(&ours.file) || ours.file.ends_with(&file);
            assert!(same, "{address:#x}: {ours} | {file}");
            compared += 1;
        }
    }
    assert!(compared >= COMPARED / 2, "{compared}");
}

/// Variables have no lines; their names are in capitals.
fn is_data(symbol: &Symbol) -> bool {
    !symbol
        .name
        .chars()
        .any(|letter| letter.is_ascii_lowercase())
}

#[test]
fn qemu_linux_names_the_functions_of_el2() {
    for kernel in Kernel::ALL {
        let vmlinux = kernel.files().expect("the kernel is there").vmlinux;
        let mut images = Images::open(&[vmlinux]).expect("it is a kernel");
        let symbols = images.symbols();
        let text = |name: &str| {
            let symbol = symbols.iter().find(|symbol| symbol.name == name);
            symbol.expect(name).address
        };
        let text = text("__hyp_text_start")..text("__hyp_text_end");
        let functions = symbols.iter().filter_map(|symbol| {
            let name = symbol.name.strip_prefix("__kvm_nvhe_")?;
            (text.contains(&symbol.address) && symbol.size > 16).then_some((name, symbol.address))
        });
        let (mut all, mut named, mut inlined) = (0, 0, 0);
        for (name, address) in functions {
            all += 1;
            let found = images.functions(address + 12);
            inlined += usize::from(found.len() > 1);
            let Some(last) = found.last() else { continue };
            let source = last.source.as_ref().expect("a function has a line");
            assert!(
                source.file.starts_with("arch/arm64/") || source.file.starts_with("lib/"),
                "{name}: {source}"
            );
            // The compiler splits functions (`x.constprop.0`), and assembly may name several at one place.
            let plain = name.split('.').next();
            named += usize::from(last.name.as_deref() == plain);
        }
        assert!(named * 10 > all * 8, "{}: {named} of {all}", kernel.name());
        assert!(inlined * 20 > all, "{}: {inlined} of {all}", kernel.name());
    }
}
