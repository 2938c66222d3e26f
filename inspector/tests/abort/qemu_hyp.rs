//! hyp with its built-in host, whose rounds touch RAM, devices and hyp's memory on all CPUs at once.

use crate::client::Client;
use crate::qemu_orders::{open, place};
use crate::run::{inspector, succeed};
use crate::tables::{Root, check, number};
pub(crate) use fixtures::LIMIT;
use fixtures::qemu::{Boot, Machine};
use hyp::stats::Event;
use inspector::target::rsp;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A machine whose host works.
pub(crate) fn working(boot: &Boot) -> Machine {
    let mut machine = boot.start().expect("QEMU starts");
    machine
        .wait_for("round 2 done", LIMIT)
        .expect("the host runs");
    machine
}

/// The arguments of `abort` there.
pub(crate) fn arguments<'a>(
    machine: &'a Machine,
    target: &'a str,
    rest: &[&'a str],
) -> Vec<&'a str> {
    let image = machine.image();
    let path = |path: &'a Path| path.to_str().expect("a plain path");
    let mut line = vec![
        rest[0],
        target,
        "--image",
        path(&image.hyp),
        "--image",
        path(&image.host),
        "--json",
    ];
    line.extend(&rest[1..]);
    line
}

pub(crate) fn ask(machine: &Machine, rest: &[&str]) -> Value {
    succeed(arguments(machine, machine.gdb(), rest)).json()
}

pub(crate) fn read(client: &mut Client, at: u64) -> u64 {
    let digits = client.ask(&format!("m{at:x},8"));
    let bytes = rsp::from_hex(&digits).expect("hex");
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

/// A branch's line of hyp's source.
fn line_of(branch: &Value) -> String {
    let source = branch["source"].as_str().expect("its source");
    let (file, line) = source.rsplit_once(':').expect("file:line");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join(file)).expect("it is in this repository");
    let line: usize = line.parse().expect("a number");
    text.lines().nth(line - 1).expect("a line").to_owned()
}

/// Memory that all CPUs touch at once, hyp's code, and the page of GICD_CTLR, which hyp emulates.
pub(crate) const COMMON: &str = "0x43000000..0x43200000";
const HYP: &str = "0x40200000..0x40201000";
const EMULATED: &str = "0x08000000..0x08001000";

/// The last abort of each question is checked while the machine stands as it left it.
#[test]
fn every_outcome_on_hyp() {
    // hyp emulates for the sake of its channel only.
    let machine = working(&Boot::hyp().expect("the image builds").cpus(2).channel());
    // From here on it stands between two questions.
    Client::connect(machine.gdb()).order("Qqemu.PhyMemMode:0");
    let root = Root::of(&ask(&machine, &["info"]));
    let all = ["already-mapped", "emulated", "mapped", "refused"];
    let all: BTreeSet<_> = all.map(str::to_owned).into();
    let mut seen = BTreeSet::new();
    let questions = [(COMMON, "1"), (HYP, "1"), (EMULATED, "1")];
    // The other CPU may touch the page only when it is mapped, and then does not abort.
    for (range, count) in questions.into_iter().chain([(COMMON, "4"); 8]) {
        if seen == all {
            break;
        }
        let document = ask(&machine, &["abort", "--ipa", range, "--count", count]);
        assert_eq!(document["complete"], true);
        let stories = document["aborts"].as_array().expect("an array");
        let story = stories.last().expect("a story");
        let entry = story["road"]["entry"]["symbol"].as_str();
        assert!(entry.is_some_and(|entry| entry.ends_with("handle_host_mem_abort")));
        let trap = &story["steps"][0];
        assert_eq!(trap["symbol"], "el2_vectors+0x400", "{trap}");
        let mut client = Client::connect(machine.gdb());
        client.order("Qqemu.PhyMemMode:1");
        check(story, &root, &mut |at| read(&mut client, at));
        client.order("Qqemu.PhyMemMode:0");
        let outcomes = stories.iter().filter_map(|story| story["outcome"].as_str());
        seen.extend(outcomes.map(str::to_owned));
        if range == HYP {
            assert_eq!(story["outcome"], "refused");
            assert_eq!(
                (&story["memory"]["owner"], &story["memory"]["section"]),
                (&"hyp".into(), &"text".into())
            );
            assert_eq!(
                (&story["page"]["host"], &story["page"]["hyp"]),
                (&"no-page".into(), &"owned".into())
            );
            assert_eq!(
                story["result"]["what"]
                    .as_str()
                    .map(|what| what.starts_with("data abort from this level: external abort")),
                Some(true),
                "{story}"
            );
            let line = line_of(&story["result"]["branch"]);
            assert!(line.contains("Desc::ZERO"), "{line}: {story}");
        }
    }
    assert_eq!(seen, all);
}

/// All CPUs touch the same new page at once: one maps it, and the others' stories name that one.
#[test]
fn cpus_that_race_for_one_page() {
    let machine = working(&Boot::hyp().expect("the image builds").cpus(4));
    let document = ask(&machine, &["abort", "--count", "8", "--ipa", COMMON]);
    let stories = document["aborts"].as_array().expect("an array");
    let mapped: Vec<_> = stories
        .iter()
        .filter(|story| story["outcome"] == "mapped")
        .collect();
    let late = stories
        .iter()
        .filter(|story| story["outcome"] == "already-mapped");
    let late: Vec<_> = late
        .filter(|story| !story["result"]["by"].is_null())
        .collect();
    assert!(!mapped.is_empty() && !late.is_empty(), "{document}");
    for story in late {
        let first = mapped
            .iter()
            .find(|first| first["result"]["ia"] == story["result"]["ia"]);
        let first = first.unwrap_or_else(|| panic!("nobody mapped it: {story}"));
        assert_eq!(story["result"]["by"], first["cpu"], "{story}");
        assert_ne!(story["cpu"], first["cpu"], "{story}");
        assert_eq!(story["writes"], Value::Array(Vec::new()), "{story}");
    }
    for first in mapped {
        let twice = stories
            .iter()
            .filter(|other| other["outcome"] == "mapped" && other["result"] == first["result"]);
        assert_eq!(twice.count(), 1, "{document}");
    }
}

/// A machine that has not executed anything: hyp has counted this abort alone when its story is over.
#[test]
fn the_first_abort_of_all_is_followed() {
    let boot = Boot::hyp().expect("the image builds").cpus(2).paused();
    let machine = boot.start().expect("QEMU starts");
    let ran = inspector(arguments(&machine, machine.gdb(), &["abort"]));
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("waiting until one does"),
        "{}",
        ran.stderr
    );
    let story = &ran.json()["aborts"][0];
    // The host's first instruction.
    assert_eq!(story["symbol"], "host_start", "{story}");
    assert_eq!(
        (&story["pc"], &story["ipa"]),
        (&story["far"], &story["far"])
    );
    let mut images = open(&machine);
    let counts = place(&mut images, "HYP.stats.counts");
    let mut client = Client::connect(machine.gdb());
    client.order("Qqemu.PhyMemMode:1");
    let mut count = |event: Event| read(&mut client, counts + 8 * event as u64);
    let aborts = [
        Event::AbortMapped,
        Event::AbortAlreadyMapped,
        Event::AbortRefused,
    ];
    assert_eq!(aborts.map(&mut count), [1, 0, 0]);
}

/// What must be the same on both ways: all but where the entry and the end are seen, and what depends on the moment.
pub(crate) fn essence(story: &Value) -> Value {
    let mut story = story.clone();
    for name in [
        "cpu",
        "changes",
        "road",
        "instructions",
        "problems",
        "after",
    ] {
        story[name] = Value::Null;
    }
    let steps = story["steps"].as_array_mut().expect("an array");
    steps.retain(|step| {
        !matches!(
            step["stage"].as_str(),
            Some("trap" | "lock" | "unlock" | "return")
        )
    });
    // QEMU's server knows EL1's registers, hyp's channel does not.
    for name in ["esr", "what", "far", "elr"] {
        if !story["result"].is_null() {
            story["result"][name] = Value::Null;
        }
    }
    story
}

#[test]
fn the_story_is_the_same_through_hyps_channel() {
    let machine = working(&Boot::hyp().expect("the image builds").cpus(2).channel());
    let rest = [
        "abort",
        "--until",
        "refused",
        "--ipa",
        "0x40200000..0x40201000",
    ];
    let [one, other] = [machine.gdb(), machine.channel()].map(|target| {
        let document = succeed(arguments(&machine, target, &rest)).json();
        let stories = document["aborts"].as_array().expect("an array");
        stories.last().expect("a story").clone()
    });
    // Each CPU reads hyp's memory, and then writes to it.
    assert_eq!(
        (number(&one["ipa"]), number(&other["ipa"])),
        (0x4020_0000, 0x4020_0000)
    );
    assert_eq!(one["result"]["vector"], "0x200");
    let different = |story: &Value| story["esr"].clone();
    if different(&one) == different(&other) {
        assert_eq!(essence(&one), essence(&other));
    } else {
        for name in ["memory", "page", "walk", "outcome", "writes"] {
            assert_eq!(one[name], other[name], "{name}");
        }
    }
}

/// A share of one of the host's pages, with both sides before and after.
#[test]
fn a_share_is_followed() {
    let machine = working(&Boot::hyp().expect("the image builds").cpus(2));
    let document = ask(&machine, &["abort", "--call", "share", "--count", "12"]);
    let calls = document["calls"].as_array().expect("an array");
    let states = |call: &Value, side: &str| {
        let page = &call["pages"][0][side];
        (page["host"].clone(), page["hyp"].clone())
    };
    let shared = calls
        .iter()
        .find(|call| call["return"] == 0 && states(call, "before").0 == "owned");
    let shared = shared.unwrap_or_else(|| panic!("no share: {document}"));
    assert_eq!(shared["name"], "__pkvm_host_share_hyp");
    assert_eq!(
        states(shared, "after"),
        ("shared-owned".into(), "shared-borrowed".into())
    );
    let page = number(&shared["arguments"][0]) << 12;
    assert_eq!(number(&shared["pages"][0]["pa"]), page);
    assert!(
        !shared["writes"].as_array().expect("an array").is_empty(),
        "{shared}"
    );
}
