//! The text of hyp and of Debian's kernels at EL2, disassembled by gdb and by us.

use fixtures::kernels::Kernel;
use fixtures::{Variant, build_image};
use inspector::arch::disassembly::disassemble;
use object::{Object, ObjectSection, ObjectSymbol};
use std::path::Path;
use std::process::Command;

/// Instruction words at their addresses.
fn words(file: &Path, range: impl Fn(&object::File<'_>) -> (u64, u64)) -> Vec<(u64, u32)> {
    let bytes = std::fs::read(file).expect("it is there");
    let elf = object::File::parse(&*bytes).expect("it is an ELF file");
    let (start, end) = range(&elf);
    let data = elf
        .sections()
        .find_map(|section| section.data_range(start, end - start).ok()?)
        .expect("a section holds the range");
    let words = data.as_chunks::<4>().0.iter();
    let words = words.map(|word| u32::from_le_bytes(*word));
    (start..).step_by(4).zip(words).collect()
}

fn gdb(file: &Path, words: &[(u64, u32)]) -> Vec<String> {
    let output = Command::new("gdb-multiarch")
        .args(["-nx", "-batch", "-ex"])
        .arg(format!("x/{}i {:#x}", words.len(), words[0].0))
        .arg(file)
        .output()
        .expect("gdb-multiarch is missing: install it (`cargo fixtures setup` does)");
    let text = String::from_utf8_lossy(&output.stdout);
    let instruction = |line: &str| Some(line.split_once(":\t")?.1.to_owned());
    text.lines().filter_map(instruction).collect()
}

/// A text without what may be written one way or another: space, names, comments, the base of numbers.
fn plain(text: &str) -> Vec<String> {
    let text = text.split(['<', ';']).next().unwrap_or_default();
    let text = text.split("//").next().unwrap_or_default();
    let parts = text.split([' ', '\t', ',', '#', '[', ']', '{', '}']);
    let parts = parts.filter(|part| !part.is_empty());
    let plain = |part: &str| {
        let (sign, digits) = part.strip_prefix('-').map_or((1, part), |rest| (-1, rest));
        let number = match digits.strip_prefix("0x") {
            Some(hex) => i128::from_str_radix(hex, 16),
            None => digits.parse(),
        };
        match (number, part) {
            // Immediates are signed or not.
            (Ok(number), _) => ((sign * number) as u64).to_string(),
            // Two names for one condition.
            (_, "b.cs" | "cs") => part.replace("cs", "hs"),
            (_, "b.cc" | "cc") => part.replace("cc", "lo"),
            _ => part.to_owned(),
        }
    };
    // A shift by nothing.
    let mut parts: Vec<String> = parts.map(plain).collect();
    if parts.ends_with(&["sxtw".to_owned(), "0".to_owned()]) {
        parts.pop();
    }
    parts
}

fn compare(file: &Path, words: &[(u64, u32)]) {
    let theirs = gdb(file, words);
    assert_eq!(theirs.len(), words.len());
    let mut not_decoded = 0;
    let mut differences = Vec::new();
    for ((address, word), theirs) in words.iter().zip(theirs) {
        let ours = disassemble(*word, *address, false, |_| None).to_string();
        // SVE and memory copies (FEAT_MOPS), and data between functions, which gdb shows as either.
        if ours.starts_with(".inst") || theirs.starts_with(".inst") {
            not_decoded += 1;
            continue;
        }
        // gdb may be older than a register or an operation, and then shows its encoding.
        let encoded = |text: &str| text.contains("s3_") || text.starts_with("sys");
        let newer = encoded(&theirs) && !encoded(&ours);
        if !newer && plain(&ours) != plain(&theirs) {
            differences.push(format!("{address:#x}: {word:#010x}: {ours} | {theirs}"));
        }
    }
    assert_eq!(differences, Vec::<String>::new());
    assert!(
        not_decoded * 100 < words.len(),
        "{not_decoded} of {}",
        words.len()
    );
}

#[test]
fn qemu_hyp_reads_as_in_gdb() {
    let image = build_image(Variant::Channel).expect("the image builds");
    let words = words(&image.hyp, |elf| {
        let text = elf.section_by_name(".text").expect("it has text");
        (text.address(), text.address() + text.size() / 4 * 4)
    });
    compare(&image.hyp, &words);
}

#[test]
fn qemu_linux_reads_as_in_gdb() {
    for kernel in Kernel::ALL {
        let vmlinux = kernel.files().expect("the kernel is there").vmlinux;
        let words = words(&vmlinux, |elf| {
            let symbol = |name| {
                let found = elf.symbol_by_name(name).expect(name);
                found.address()
            };
            (symbol("__hyp_text_start"), symbol("__hyp_text_end"))
        });
        compare(&vmlinux, &words);
    }
}
