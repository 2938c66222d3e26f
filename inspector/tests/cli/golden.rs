//! What every command prints of the embedded machine, which is the same at every start.
//! `SNAPSHOTS=overwrite` writes the files anew.

use crate::run::{Ran, inspector, succeed};
use snapbox::{Data, assert_data_eq};
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn golden(name: &str, line: &str) {
    compare(name, succeed(line.split_whitespace()));
}

pub(crate) fn compare(name: &str, ran: Ran) {
    let path = [env!("CARGO_MANIFEST_DIR"), "tests/cli/golden", name]
        .iter()
        .collect::<PathBuf>();
    // Raw: brackets are brackets, not patterns.
    assert_data_eq!(ran.stdout, Data::read_from(&path, None).raw());
}

#[test]
fn every_command_in_text() {
    for (name, line) in [
        ("info.txt", "info"),
        ("list.txt", "list"),
        (
            "list-shared.txt",
            "list demo --state shared-owned --regime host-s2",
        ),
        (
            "list-pa.txt",
            "list demo --pa 0x42000000..0x42002000 --no-merge",
        ),
        ("owners.txt", "owners"),
        (
            "owners-hyp.txt",
            "owners --owner hyp --pa 0x40000000..0x40300000",
        ),
        ("walk.txt", "walk demo host-s2 0x42000000"),
        ("walk-hole.txt", "walk demo hyp-s1 0x4043000000"),
        ("page-shared.txt", "page demo 0x42000000"),
        ("page-table.txt", "page demo 0x40222000"),
        ("page-lock.txt", "page demo 0x40206010"),
        ("page-device.txt", "page demo 0x09000000"),
        ("locks.txt", "locks"),
        ("cpus.txt", "cpus"),
    ] {
        golden(name, line);
    }
}

#[test]
fn every_command_in_json() {
    for (name, line) in [
        ("info.json", "info --json"),
        ("list.json", "list --json"),
        ("list.jsonl", "list --format jsonl"),
        ("owners.json", "owners --json"),
        ("walk.json", "--json walk demo host-s2 0x42000000"),
        ("page.json", "page demo 0x40222000 --json"),
        ("locks.json", "locks --json"),
        ("cpus.json", "cpus --json"),
        ("vms.json", "vms --json"),
    ] {
        golden(name, line);
    }
}

/// A page and a block that are mapped, a refusal, and pages that are shared: for the first time, again, and not at all.
#[test]
fn aborts_are_followed_to_their_ends() {
    for (name, line) in [
        ("abort.txt", "abort demo --count 2"),
        (
            "abort-refused.txt",
            "abort --ipa 0x40200000..0x40300000 --until refused",
        ),
        ("abort.json", "abort demo --count 2 --json"),
        ("abort.jsonl", "abort demo --until refused --format jsonl"),
        ("abort-share.txt", "abort demo --call share --count 6"),
        ("abort-share.json", "abort demo --call share --json"),
        (
            "abort-share.jsonl",
            "abort demo --call share --count 2 --format jsonl",
        ),
        ("abort-cpu.txt", "abort demo --cpu 3 --steps"),
    ] {
        golden(name, line);
    }
}

/// It is no failure, and the document has it in a field.
#[test]
fn why_there_are_no_vms_is_said_beside_the_table() {
    let ran = inspector(["vms"]);
    assert_eq!(
        (ran.status, ran.stderr.as_str()),
        (0, "inspector: hyp keeps no VMs yet\n")
    );
    compare("vms.txt", ran);
}

#[test]
fn help_and_its_kin_are_printed() {
    for (line, words) in [
        ("--help", "Usage: inspector"),
        ("list --help", "--no-merge"),
        ("--version", "inspector 0.1.0"),
        ("completions bash", "_inspector"),
        ("completions zsh", "#compdef inspector"),
        ("man", ".TH inspector"),
    ] {
        let ran = succeed(line.split_whitespace());
        assert!(ran.stdout.contains(words), "{line}: {}", ran.stdout);
    }
}

#[test]
fn wrong_usage_is_status_2() {
    for line in [
        "walk demo",
        "list --kind nothing",
        "frobnicate",
        "page demo x",
    ] {
        let ran = inspector(line.split_whitespace());
        assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{line}");
        assert!(ran.stderr.starts_with("error: "), "{line}: {}", ran.stderr);
    }
}

/// `inspector list | head -0`
#[test]
fn a_reader_that_left_is_no_failure() {
    for command in ["list", "man", "cpus"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_inspector"))
            .arg(command)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(
            (output.status.code(), output.stderr),
            (Some(0), Vec::new()),
            "{command}"
        );
    }
}
