//! hyp on QEMU with four CPUs, through QEMU's gdb server.

use client::Client;
use fixtures::LIMIT;
use fixtures::qemu::{Boot, Machine};
use inspector::target::rsp;
use run::{inspector, succeed};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tempfile::TempDir;

#[path = "support/client.rs"]
#[expect(dead_code, reason = "shared with tests that ask for more")]
mod client;
#[path = "support/run.rs"]
mod run;

const COMMANDS: [&str; 4] = ["list", "owners", "locks", "cpus"];

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Sends packets to QEMU's gdb server and hangs up. A machine that ran stands still afterwards.
fn packets(machine: &Machine, packets: &[String]) {
    let mut client = Client::connect(machine.gdb());
    for packet in packets {
        client.order(packet);
    }
}

/// Writes a word of physical memory.
fn poke(machine: &Machine, pa: u64, word: u64) {
    let data = rsp::to_hex(&word.to_le_bytes());
    packets(
        machine,
        &[
            "Qqemu.PhyMemMode:1".to_owned(),
            format!("M{pa:x},8:{data}"),
            "Qqemu.PhyMemMode:0".to_owned(),
        ],
    );
}

/// A machine that has done some rounds of its host, and stands still.
fn stopped_machine() -> Machine {
    let boot = Boot::hyp().expect("the image builds").cpus(4);
    let mut machine = boot.start().expect("QEMU starts");
    machine
        .wait_for("round 3 done", LIMIT)
        .expect("the host runs");
    packets(&machine, &["Qqemu.PhyMemMode:0".to_owned()]);
    machine
}

fn arguments<'a>(machine: &'a Machine, command: &'a str) -> Vec<&'a str> {
    let image = machine.image();
    vec![
        command,
        machine.gdb(),
        "--image",
        text(&image.hyp),
        "--image",
        text(&image.host),
        "--json",
    ]
}

#[test]
fn qemu_snapshots_show_what_the_machine_showed() {
    let machine = stopped_machine();
    let live = COMMANDS.map(|command| succeed(arguments(&machine, command)));
    let again = COMMANDS.map(|command| succeed(arguments(&machine, command)));
    for (first, second) in live.iter().zip(&again) {
        assert_eq!(first.stdout, second.stdout, "the machine stands still");
    }

    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("snapshot");
    let mut save = arguments(&machine, "save");
    save.insert(2, text(&file));
    succeed(save);
    drop(machine);
    for (command, live) in COMMANDS.iter().zip(&live) {
        let saved = succeed([*command, text(&file), "--json"]);
        assert_eq!(saved.without_target(), live.without_target(), "{command}");
    }

    let list = live[0].json();
    assert_eq!(list["complete"], json!(true));
    assert_eq!(
        list["hypervisor"]["release"],
        json!(env!("CARGO_PKG_VERSION"))
    );
    let entries = list["entries"].as_array().expect("an array");
    for (regime, state) in [
        ("host-s2", "shared-owned"),
        ("host-s2", "shared-borrowed"),
        ("host-s2", "no-page"),
        ("hyp-s1", "owned"),
        ("hyp-s1", "shared-owned"),
        ("hyp-s1", "shared-borrowed"),
    ] {
        assert!(
            entries
                .iter()
                .any(|entry| entry["regime"] == regime && entry["state"] == state),
            "{regime} {state}: {list}"
        );
    }
    let owners = live[1].json();
    let ranges = owners["ranges"].as_array().expect("an array");
    let size: u64 = ranges
        .iter()
        .filter_map(|range| range["size"].as_u64())
        .sum();
    assert_eq!(size, 512 << 20, "all RAM has an owner");
    assert!(
        live[2].json()["locks"]
            .as_array()
            .is_some_and(|locks| locks.len() == 5 && locks[4]["symbol"] == "CONSOLE")
    );
    assert!(
        live[3].json()["cpus"]
            .as_array()
            .is_some_and(|cpus| cpus.len() == 4)
    );
}

/// Entries of the host's stage 2, each descriptor by itself.
fn entries(machine: &Machine) -> (i32, Vec<Value>) {
    let mut line = arguments(machine, "list");
    line.extend(["--no-merge", "--regime", "host-s2"]);
    let ran = inspector(line);
    let entries = ran.json()["entries"].as_array().expect("an array").clone();
    (ran.status, entries)
}

fn word(address: &Value) -> u64 {
    let digits = address.as_str().and_then(|text| text.strip_prefix("0x"));
    u64::from_str_radix(digits.expect("an address"), 16).expect("an address")
}

/// The pages that something with a size covers, from its address called `name`.
fn pages(of: &Value, name: &str) -> impl Iterator<Item = u64> + use<> {
    let start = word(&of[name]);
    let size = of["size"].as_u64().expect("a size");
    (start..start + size).step_by(4096)
}

/// What can be written at any of its addresses at EL2 can be executed at none, and the host can
/// reach nothing of hyp's.
#[test]
fn qemu_hyp_protects_itself() {
    let machine = stopped_machine();
    let mut line = arguments(&machine, "list");
    line.push("--no-merge");
    let list = succeed(line).json();
    let entries = list["entries"].as_array().expect("an array");
    let of = |regime: &'static str| {
        entries
            .iter()
            .filter(move |entry| entry["regime"] == regime)
    };

    let mut rights: BTreeMap<u64, (bool, bool)> = BTreeMap::new();
    for entry in of("hyp-s1") {
        for pa in pages(entry, "oa") {
            let (write, execute) = rights.entry(pa).or_default();
            *write |= entry["write"] == true;
            *execute |= entry["execute"] == true;
        }
    }
    assert!(rights.values().any(|(write, _)| *write));
    assert!(rights.values().any(|(_, execute)| *execute));
    for (pa, rights) in &rights {
        assert_ne!(
            *rights,
            (true, true),
            "{pa:#x} is writable and executable at EL2"
        );
    }

    let annotated: BTreeSet<u64> = of("host-s2")
        .filter(|entry| entry["kind"] == "annotation" && entry["owner"] == "hyp")
        .flat_map(|entry| pages(entry, "ia"))
        .collect();
    let info = succeed(arguments(&machine, "info")).json();
    let ram = info["ram"].as_array().expect("an array").iter();
    let ram: BTreeSet<u64> = ram.flat_map(|region| pages(region, "base")).collect();
    let mut names = BTreeSet::new();
    for section in info["sections"].as_array().expect("an array") {
        let name = section["name"].as_str().expect("a name");
        let shared = name.starts_with("host-");
        for pa in pages(section, "base") {
            if ram.contains(&pa) {
                assert_eq!(annotated.contains(&pa), !shared, "{name} {pa:#x}");
                names.insert(name);
            }
        }
    }
    let expected = [
        "bss",
        "data",
        "host-bss",
        "host-rodata",
        "pools",
        "rodata",
        "stacks",
        "text",
    ];
    assert!(names.iter().eq(&expected), "{names:?}");
}

/// The table walked at each level for an address: physical address of the word, of its table.
fn step(machine: &Machine, ia: u64, level: u64) -> (u64, u64) {
    let address = format!("{ia:#x}");
    let mut line = arguments(machine, "walk");
    line.splice(2..2, ["host-s2", &address]);
    let walk = succeed(line).json();
    let steps = walk["steps"].as_array().expect("an array").clone();
    let step = steps
        .iter()
        .find(|step| step["level"] == level)
        .expect("the walk gets there");
    (word(&step["at"]), word(&step["table"]))
}

#[test]
fn qemu_corrupt_descriptors_are_marked_and_the_rest_is_shown() {
    let machine = stopped_machine();
    let (status, sound) = entries(&machine);
    assert_eq!(status, 0);
    // The host never touches this block, nor the last page of the one it shares from.
    let (hole, page) = (0x4e00_0000, 0x421f_f000);
    let (at_hole, table) = step(&machine, hole, 2);
    let (at_page, _) = step(&machine, page, 3);
    for (at, ia, word, kind) in [
        (at_page, page, 0x4200_0001, "reserved"),
        (at_hole, hole, table | 3, "loop"),
        (at_hole, hole, 0x7_0000_0003, "unreadable"),
    ] {
        poke(&machine, at, word);
        let (status, damaged) = entries(&machine);
        assert_eq!(status, 3, "{kind}");
        let ia = format!("{ia:#x}");
        let (marked, others): (Vec<_>, Vec<_>) =
            damaged.into_iter().partition(|entry| entry["ia"] == ia);
        assert_eq!(others, sound, "{kind}");
        assert_eq!(marked.len(), 1, "{kind}");
        assert_eq!(marked[0]["kind"], json!(kind));
        assert!(marked[0]["problem"].is_string());
        poke(&machine, at, 0);
    }
    assert_eq!(entries(&machine), (0, sound));
}

#[test]
fn qemu_before_hyp_started() {
    let boot = Boot::hyp().expect("the image builds").cpus(2).paused();
    let machine = boot.start().expect("QEMU starts");
    let ran = inspector(arguments(&machine, "cpus"));
    assert_eq!(ran.status, 3);
    assert!(
        ran.stderr.contains("hyp has not started yet"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.json()["cpus"].as_array().map(Vec::len), Some(2));
}
