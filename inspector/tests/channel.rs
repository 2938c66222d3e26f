//! hyp on QEMU with four CPUs, stopped by its own debugger: every road to it shows the same.

use client::Client;
use fixtures::LIMIT;
use fixtures::qemu::{Boot, Cpu, Machine};
use inspector::image::Images;
use run::{Ran, succeed};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

#[path = "support/client.rs"]
mod client;
#[path = "support/run.rs"]
mod run;

const COMMANDS: [&str; 4] = ["list", "owners", "locks", "cpus"];
const CPUS: u32 = 4;

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A machine whose host has done some rounds; it runs.
fn running_machine(cpu: Cpu) -> Machine {
    let boot = Boot::hyp().expect("the image builds");
    let boot = boot.cpu(cpu).cpus(CPUS).channel();
    let mut machine = boot.start().expect("QEMU starts");
    wait_for_round(&mut machine, 2);
    machine
}

/// Waits until the host has done so many rounds: it runs.
fn wait_for_round(machine: &mut Machine, round: u32) {
    let done = format!("round {round} done");
    machine.wait_for(&done, LIMIT).expect("the host runs");
}

/// A session over hyp's channel; from now on the machine stands still.
fn greet(machine: &Machine) -> Client {
    let mut client = Client::connect(machine.channel());
    let features = client.ask("qSupported:swbreak+;hwbreak+");
    assert!(features.starts_with(b"PacketSize="), "{features:?}");
    client
}

/// `--image` for both programs, or for none.
fn images(machine: &Machine, given: bool) -> Vec<&str> {
    let image = machine.image();
    let both = ["--image", text(&image.hyp), "--image", text(&image.host)];
    both.into_iter().filter(|_| given).collect()
}

/// What the commands say of a target.
fn documents(target: &str, images: &[&str]) -> [Ran; 4] {
    COMMANDS.map(|command| succeed([&[command, target, "--json"], images].concat()))
}

/// Takes every road to the machine, which stands still; returns what all of them show.
fn every_road(machine: &Machine) -> [Ran; 4] {
    let folder = TempDir::new().expect("a folder");
    let with = images(machine, true);
    let shown = documents(machine.gdb(), &with);
    for (road, target, known) in [
        ("QEMU's gdb server", machine.gdb(), true),
        ("hyp's channel", machine.channel(), true),
        ("hyp's channel without a file", machine.channel(), false),
    ] {
        let images = images(machine, known);
        assert_same(&documents(target, &images), &shown, known, road);
        let file = folder.path().join("snapshot");
        succeed([&["save", target, text(&file)], &*images].concat());
        for given in [true, false] {
            let images = self::images(machine, given);
            let road = format!("a snapshot from {road}, with {images:?}");
            let found = documents(text(&file), &images);
            assert_same(&found, &shown, known || given, &road);
        }
    }
    shown
}

/// Where no file was ever given, all but source lines and calls is the same.
fn assert_same(found: &[Ran; 4], shown: &[Ran; 4], lines: bool, road: &str) {
    let plain = |ran: &Ran| match lines {
        true => ran.without_target(),
        false => without_lines(ran).to_string(),
    };
    for ((found, shown), command) in found.iter().zip(shown).zip(COMMANDS) {
        let [found, shown] = [found, shown].map(plain);
        assert!(
            found == shown,
            "{command} by {road}:\n{found}\nby QEMU's gdb server:\n{shown}"
        );
    }
}

/// A document without its target, and without what only a file says of where CPUs are.
fn without_lines(document: &Ran) -> Value {
    let mut document = document.json();
    document["target"] = Value::Null;
    let cpus = document.get_mut("cpus").and_then(Value::as_array_mut);
    for cpu in cpus.into_iter().flatten() {
        cpu["source"] = Value::Null;
        cpu["inlines"] = json!([]);
        // By frame records alone a function's caller may be missing, so where each began is all that is the same.
        let calls = cpu["calls"].as_array_mut().expect("an array");
        calls.drain(..calls.len().saturating_sub(1));
        for call in calls {
            call["source"] = Value::Null;
        }
    }
    document
}

/// What a document lists.
fn list(document: &Ran, name: &str) -> Vec<Value> {
    let list = document.json()[name].as_array().cloned();
    list.expect("a list")
}

/// Stops the machine before each of these rounds of its host: by a greeting, then by Ctrl-C.
fn several_stops(cpu: Cpu, rounds: &[u32]) {
    let mut machine = running_machine(cpu);
    let mut before = String::new();
    for round in rounds {
        let mut client = greet(&machine);
        if !before.is_empty() {
            client.send("vCont;c");
            client.interrupt();
            client.stop();
        }
        // It goes away without a word: the machine stays stopped.
        drop(client);
        let shown = every_road(&machine);
        assert_eq!(list(&shown[2], "locks").len(), 5);
        assert_eq!(list(&shown[3], "cpus").len(), CPUS as usize);
        for document in &shown {
            assert_eq!(document.json()["complete"], json!(true));
        }
        let locks = shown[2].without_target();
        assert_ne!(locks, before, "it ran in between");
        before = locks;
        greet(&machine).order("D");
        wait_for_round(&mut machine, *round);
    }
}

#[test]
fn qemu_every_road_shows_the_same() {
    several_stops(Cpu::CortexA57, &[4, 6, 8]);
}

/// It has VHE, so registers that others lack.
#[test]
fn qemu_every_road_shows_the_same_of_a_newer_cpu() {
    several_stops(Cpu::Max, &[4, 6]);
}

/// Where a function begins whose name ends so.
fn function(machine: &Machine, name: &str) -> u64 {
    let mut images = Images::open(&[machine.image().hyp.clone()]).expect("an ELF");
    let symbols = images.symbols();
    let symbol = symbols.iter().find(|symbol| symbol.name.ends_with(name));
    symbol.expect("it is in the image").address
}

/// The CPU that a stop reply names: `T05thread:02;…`.
fn cpu_of(stop: &str) -> u64 {
    let thread = stop
        .split_once("thread:")
        .and_then(|(_, rest)| rest.split(';').next());
    let number = thread.and_then(|id| u64::from_str_radix(id, 16).ok());
    number.expect("a thread") - 1
}

#[test]
fn qemu_every_road_shows_who_holds_a_lock() {
    let machine = running_machine(Cpu::CortexA57);
    let name = "PageTable<hyp::addr::Ipa>>::map";
    // Called under the host's lock.
    let address = function(&machine, name);
    for kind in [0, 1] {
        let mut client = greet(&machine);
        client.order(&format!("Z{kind},{address:x},4"));
        client.send("vCont;c");
        let stop = client.stop();
        drop(client);
        let cpu = cpu_of(&stop);

        let shown = every_road(&machine);
        let host = &list(&shown[2], "locks")[0];
        assert_eq!(host["name"], json!("host"));
        assert_eq!(host["held"], json!(true));
        assert_eq!(host["holder"]["cpu"], json!(cpu), "{host}");
        let cpu = &list(&shown[3], "cpus")[cpu as usize];
        assert_eq!(cpu["el"], json!(2));
        assert_eq!(cpu["pc"], json!(format!("{address:#x}")));
        let symbol = cpu["symbol"].as_str().expect("a name");
        assert!(symbol.ends_with(name), "{symbol}");
        assert_calls(cpu);
    }
}

/// The calls of a CPU that works for the host: EL2's, then where the host was and the host's, to its first function.
fn assert_calls(cpu: &Value) {
    let calls = cpu["calls"].as_array().expect("an array");
    let place = |name: &str| {
        let is_named = |call: &Value| call["symbol"].as_str().is_some_and(|it| it.contains(name));
        let place = calls.iter().position(is_named);
        place.unwrap_or_else(|| panic!("no {name} in {cpu}"))
    };
    let elr = &cpu["registers"]["ELR_EL2"];
    let host = calls.iter().position(|call| call["pc"] == *elr);
    let order = [
        place("handle_trap"),
        place("host_sync+"),
        host.expect("where the host was"),
        place("host_start+"),
    ];
    assert!(order.is_sorted() && order[3] == calls.len() - 1, "{cpu}");
}

/// Over a console nobody sees a client go: what it left under way is the next one's first answers, and half a packet
/// the beginning of its first question.
#[test]
fn qemu_a_client_that_vanishes_is_no_trouble_to_the_next() {
    let mut machine = running_machine(Cpu::CortexA57);
    for round in [4, 12, 20] {
        let mut client = greet(&machine);
        for _ in 0..8 {
            client.send("m40200000,2000");
        }
        client.send_raw(b"$m402");
        // QEMU loses what it has not passed on when a client goes; from the first answer on there are seven under way.
        client.packet();
        drop(client);
        let [first, second] = [(), ()].map(|()| succeed(["cpus", machine.channel(), "--json"]));
        assert_eq!(first.stdout, second.stdout, "it stands still");

        let mut client = greet(&machine);
        client.send("vCont;c");
        wait_for_round(&mut machine, round);
        client.send_raw(b"$m402");
        drop(client);
        succeed(["locks", machine.channel()]);
        // More than it has done before it was stopped.
        wait_for_round(&mut machine, round + 5);
    }
}
