//! What the embedded machine does not come to by itself, told of machines that do: the same library, other hosts.

use crate::golden::compare;
use crate::run::{Ran, inspector};
use hyp::debug::Inferior;
use hyp::machine::server::Server;
use hyp::machine::{Machine, Scene};

fn start(scene: Scene) -> Machine {
    Machine::start_scene(4, scene).expect("it starts")
}

/// The last story that is told.
fn story(machine: Machine, rest: &[&str]) -> Ran {
    let server = Server::start(machine).expect("it listens");
    let address = server.address().to_string();
    let mut ran = inspector([&["abort", &address], rest].concat());
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    if let Some(last) = ran.stdout.rfind("\nCPU ") {
        ran.stdout.drain(..=last);
    }
    ran
}

/// The CPU waits for the lock, and finds mapped what it came for. Who was faster is not known where nobody else is followed.
#[test]
fn a_race_that_is_lost_is_told() {
    let line = ["--cpu", "2", "--until", "already-mapped"];
    compare("abort-race.txt", story(start(Scene::Race), &line));
}

/// The host's own code is mapped, hyp's is refused.
#[test]
fn fetches_of_instructions_are_told() {
    for (name, until) in [
        ("abort-fetch.txt", "mapped"),
        ("abort-fetch-refused.txt", "refused"),
    ] {
        let line = ["--cpu", "2", "--until", until];
        compare(name, story(start(Scene::Fetch), &line));
    }
}

/// hyp does not survive a table that is not there, which somebody has damaged. Accesses of the host fail before hyp's do, so
/// that it is a hypercall's end.
fn damaged() -> Machine {
    let mut machine = Machine::start(4).expect("it starts");
    // RAM's entry of the host's root.
    let root = machine.facts().host_s2.root;
    let nowhere = 0x9000_0003_u64.to_le_bytes();
    machine.write_phys(root + 8, &nowhere).expect("it is RAM");
    machine
}

#[test]
fn a_panic_is_told() {
    let line = ["--call", "share", "--until", "panic"];
    compare("abort-panic.txt", story(damaged(), &line));
}

/// Whoever waits for something else would wait for ever.
#[test]
fn nothing_is_waited_for_after_a_panic() {
    for rest in [["--until", "refused"], ["--count", "1000"]] {
        let server = Server::start(damaged()).expect("it listens");
        let address = server.address().to_string();
        let line = ["abort", &address, "--json", "--call", "share"];
        let ran = inspector([&line[..], &rest].concat());
        let sentence =
            format!("{address}: the hypervisor has panicked, and no trap is followed after that");
        assert_eq!(
            (ran.status, ran.stderr.lines().count()),
            (3, 1),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains(&sentence), "{}", ran.stderr);
        let document: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
        let last = document["calls"].as_array().and_then(|calls| calls.last());
        assert_eq!(last.expect("a story")["outcome"], "panic");
        assert_eq!(document["complete"], false);
    }
}
