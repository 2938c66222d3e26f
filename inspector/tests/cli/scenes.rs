//! What the embedded machine does not come to by itself, told of machines that do: the same library, other hosts.

use crate::golden::compare;
use crate::run::{Ran, inspector};
use hyp::debug::Inferior;
use hyp::debug::registers::Register;
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
///
/// No CPU is at EL2 when it is damaged, where it would panic unseen.
fn damaged() -> Machine {
    let mut machine = Machine::start(4).expect("it starts");
    let at_el2 = |machine: &Machine| {
        let mut levels = (0..4).map(|cpu| {
            machine
                .register(cpu, Register::Cpsr)
                .map(|cpsr| cpsr >> 2 & 3)
        });
        levels.any(|level| level == Some(2))
    };
    while at_el2(&machine) {
        assert_eq!(machine.run_steps(1), None);
    }
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

/// Whoever waits for something else would wait for ever, and so would the next one.
#[test]
fn nothing_is_waited_for_after_a_panic() {
    for (rest, last) in [
        (&["--call", "share", "--until", "refused"][..], "panic"),
        (&["--call", "share", "--count", "1000"], "panic"),
        // Calls that are not followed.
        (&["--until", "refused"], ""),
        (&["--call", "donate"], ""),
    ] {
        let server = Server::start(damaged()).expect("it listens");
        let address = server.address().to_string();
        let line = [&["abort", &address, "--json"], rest].concat();
        let told = |last: &str| {
            let ran = inspector(&line);
            let sentence = format!(
                "{address}: the machine has panicked, and no trap is followed after that: start it anew"
            );
            assert_eq!(
                (ran.status, ran.stderr.lines().count()),
                (3, 1),
                "{}",
                ran.stderr
            );
            assert!(ran.stderr.contains(&sentence), "{}", ran.stderr);
            let document: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
            let stories = document["calls"].as_array();
            let stories = stories.or(document["aborts"].as_array()).expect("stories");
            let outcome = stories.last().and_then(|story| story["outcome"].as_str());
            assert_eq!(outcome.unwrap_or_default(), last, "{rest:?}");
            assert_eq!(document["complete"], false);
        };
        told(last);
        told("");
    }
}
