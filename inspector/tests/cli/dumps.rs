//! Memory dumps: what is said when something is missing, and that the rest is shown. The embedded machine cannot be dumped,
//! but its snapshot without the notes that make it one is such a core: general registers and memory.

use crate::demo_elf::program;
use crate::run::{Ran, inspector, succeed};
use snapbox::{Data, assert_data_eq};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A core of the embedded machine.
fn core(folder: &Path) -> Vec<u8> {
    let path = folder.join("snapshot");
    succeed(["save", "demo", text(&path)]);
    let mut bytes = fs::read(&path).expect("it was saved");
    while let Some(at) = bytes.windows(9).position(|name| name == b"INSPECTOR") {
        bytes[at..at + 9].copy_from_slice(b"SOMEBODYS");
    }
    bytes
}

#[test]
fn what_is_wrong_with_a_dump_is_said_in_sentences() {
    let folder = TempDir::new().expect("a folder");
    let whole = core(folder.path());
    let image = folder.path().join("hyp.elf");
    fs::write(&image, program().elf()).expect("a file");
    let mut transcript = String::new();
    for (name, bytes) in [
        ("compressed", &b"makedumpfile\0\0\0\0"[..]),
        ("cut-in-notes", &whole[..1000]),
        ("cut-in-memory", &whole[..whole.len() - 4096]),
        ("whole", &whole),
    ] {
        let file = folder.path().join(name);
        fs::write(&file, bytes).expect("a file");
        let ran = inspector(["list", text(&file), "--image", text(&image)]);
        let Ran { status, stderr, .. } = &ran;
        let told = stderr.replace(&format!("{}/", folder.path().display()), "");
        let length = whole.len().to_string();
        let told = told.replace(&length, "WHOLE");
        let told = told.replace(&(whole.len() - 4096).to_string(), "THERE");
        transcript +=
            &format!("$ inspector list {name} --image hyp.elf\n{told}$ echo $?\n{status}\n");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/golden/dumps.txt");
    // Raw: brackets are brackets, not patterns.
    assert_data_eq!(transcript, Data::read_from(path.as_ref(), None).raw());
}

#[test]
fn what_a_dump_has_is_shown_whatever_is_missing() {
    let folder = TempDir::new().expect("a folder");
    let whole = core(folder.path());
    let image = folder.path().join("hyp.elf");
    fs::write(&image, program().elf()).expect("a file");
    let file = folder.path().join("dump");
    let locks = |target: &str| {
        let ran = inspector(["locks", target, "--image", text(&image), "--json"]);
        (ran.status, ran.json())
    };
    let (_, live) = locks("demo");
    for (cut, status) in [(0, 3), (4096, 3)] {
        fs::write(&file, &whole[..whole.len() - cut]).expect("a file");
        let (found, dumped) = locks(text(&file));
        assert_eq!(found, status);
        assert_eq!(dumped["complete"], false);
        assert_eq!(dumped["locks"], live["locks"]);
    }
}
