//! One machine by different roads: self-description, symbols, snapshots. The documents are the same
//! but for the target's name.

use crate::demo_elf::program;
use crate::run::succeed;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const COMMANDS: [&str; 4] = ["list", "owners", "locks", "cpus"];

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// The documents of all four commands.
fn documents(target: &str, image: Option<&Path>) -> Vec<String> {
    let image: Vec<&str> = image
        .map(|path| ["--image", text(path)])
        .into_iter()
        .flatten()
        .collect();
    COMMANDS
        .iter()
        .flat_map(|command| ["json", "jsonl", "text"].map(|format| (command, format)))
        .map(|(command, format)| {
            let line = [&[*command, target, "--format", format], &*image].concat();
            let ran = succeed(line);
            // In jsonl the name stands in the first line, among the rest.
            match format {
                "jsonl" => ran
                    .stdout
                    .replacen(&format!("\"target\":{target:?}"), "", 1),
                _ => ran.without_target(),
            }
        })
        .collect()
}

#[test]
fn symbols_and_self_description_and_their_snapshots_agree() {
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("hyp.elf"), program().elf()).expect("a file");

    let described = documents("demo", None);
    assert!(described[0].contains("\"shared-borrowed\"") && described[6].contains("\"recorded\""));
    assert_eq!(documents("demo", Some(&path("hyp.elf"))), described);
    let info = succeed(["info", "demo", "--image", text(&path("hyp.elf"))]).stdout;
    assert!(
        info.contains("HYP in hyp.elf") && !info.contains("self-description"),
        "{info}"
    );

    succeed(["save", "demo", text(&path("described"))]);
    assert_eq!(documents(text(&path("described")), None), described);

    succeed([
        "save",
        "demo",
        text(&path("by-symbols")),
        "--image",
        text(&path("hyp.elf")),
    ]);
    fs::remove_file(path("hyp.elf")).expect("it was there");
    assert_eq!(documents(text(&path("by-symbols")), None), described);
    let info = succeed(["info", text(&path("by-symbols"))]).stdout;
    assert!(info.contains("HYP in hyp.elf"), "{info}");

    // A snapshot of a snapshot, over a file that is already there.
    succeed(["save", text(&path("by-symbols")), text(&path("described"))]);
    assert_eq!(documents(text(&path("described")), None), described);
}

#[test]
fn a_snapshot_answers_more_than_was_asked() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("snapshot");
    succeed(["save", "demo", text(&file)]);
    for line in [
        &["page", "demo", "0x42000000", "--json"][..],
        &["page", "demo", "0x40222000", "--json"],
        &["walk", "demo", "hyp-s1", "0x4042000000", "--json"],
        &["info", "demo", "--json"],
    ] {
        let live = succeed(line);
        let mut line = line.to_vec();
        line[1] = text(&file);
        assert_eq!(succeed(line).without_target(), live.without_target());
    }
}
