//! Following aborts where something is missing: symbols, room for breakpoints, answers, the link. The story is right all the
//! same, or there is one clear sentence.

use crate::bad_input::fail;
use crate::demo_elf::program;
use crate::run::succeed;
use ::inspector::demo::{self, Demo};
use ::inspector::target::rsp::{self, Decoder, Event};
use serde_json::Value;
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use tempfile::TempDir;

/// What becomes of a request on its way to the embedded machine.
enum Fate {
    Goes,
    /// The server is not asked.
    Answered(&'static str),
    /// Nothing is answered any more.
    Silent,
    /// Both ends find the link closed.
    Cut,
}

/// A way to the embedded machine, for one client, on which `fate` is asked about each request.
struct Wire {
    address: String,
    carrier: thread::JoinHandle<()>,
    _demo: Demo,
}

impl Wire {
    fn new(fate: impl FnMut(&str) -> Fate + Send + 'static) -> Self {
        let demo = demo::start().expect("a demo");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let server = TcpStream::connect(demo.address()).expect("the demo listens");
        let carrier = thread::spawn(move || {
            let (client, _) = listener.accept().expect("a client");
            carry(&client, &server, fate);
            for stream in [&client, &server] {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
        Self {
            address,
            carrier,
            _demo: demo,
        }
    }

    fn end(self) {
        self.carrier.join().expect("it ends");
    }
}

/// What no server knows: the answer is empty.
const UNKNOWN: &[u8] = b"vUnknown";

/// Until either end is gone.
fn carry(mut client: &TcpStream, mut server: &TcpStream, mut fate: impl FnMut(&str) -> Fate) {
    let [replies, out] = [server, client].map(|stream| stream.try_clone().expect("a clone"));
    let (own, owned) = mpsc::channel();
    thread::spawn(move || {
        carry_back(&replies, &out, &owned);
        let _ = out.shutdown(Shutdown::Both);
    });
    for stream in [client, server] {
        stream.set_nodelay(true).expect("a socket");
    }
    let mut decoder = Decoder::new(1 << 16);
    let mut buffer = [0; 4096];
    let mut silent = false;
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        let mut events = VecDeque::new();
        decoder.feed(&buffer[..count], &mut events);
        for event in events {
            let mut bytes = Vec::new();
            match event {
                Event::Packet(body) => match fate(&String::from_utf8_lossy(&body)) {
                    Fate::Goes => rsp::encode(&body, &mut bytes),
                    Fate::Answered(answer) => {
                        own.send(answer).expect("it listens");
                        rsp::encode(UNKNOWN, &mut bytes);
                    }
                    Fate::Silent => silent = true,
                    Fate::Cut => return,
                },
                Event::Ack => bytes.push(b'+'),
                Event::Interrupt => bytes.push(rsp::INTERRUPT),
                _ => {}
            }
            if !silent && server.write_all(&bytes).is_err() {
                return;
            }
        }
    }
}

/// What comes from the server, with our own answers in their turn: in place of the server's to [`UNKNOWN`].
fn carry_back(mut server: &TcpStream, mut client: &TcpStream, own: &mpsc::Receiver<&'static str>) {
    let mut decoder = Decoder::new(1 << 20);
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        let mut events = VecDeque::new();
        decoder.feed(&buffer[..count], &mut events);
        for event in events {
            let mut bytes = Vec::new();
            match event {
                Event::Packet(body) if body.is_empty() => {
                    rsp::encode(own.try_recv().unwrap_or_default().as_bytes(), &mut bytes);
                }
                Event::Packet(body) => rsp::encode(&body, &mut bytes),
                Event::Ack => bytes.push(b'+'),
                _ => {}
            }
            if client.write_all(&bytes).is_err() {
                return;
            }
        }
    }
}

/// The stories of as many aborts.
fn stories(target: &str, rest: &[&str]) -> Vec<Value> {
    let line = [&["abort", target, "--json"], rest].concat();
    let document = succeed(line).json();
    document["aborts"].as_array().expect("an array").clone()
}

/// It tells of the same abort as `whole`, which was followed without a hindrance; where the tables were not seen under the
/// lock, other CPUs' words may be among those that it tells of.
fn assert_same(story: &Value, whole: &Value) {
    for name in [
        "cpu", "ipa", "memory", "page", "walk", "outcome", "result", "after",
    ] {
        let pc = |value: &Value| value.get("pc").unwrap_or(value).clone();
        assert_eq!(pc(&story[name]), pc(&whole[name]), "{name}");
    }
    assert_eq!(whole["road"]["writes_by"], "under-lock");
    if story["road"]["writes_by"] == "under-lock" {
        assert_eq!(story["writes"], whole["writes"]);
    }
    let words = |story: &Value| story["writes"].as_array().expect("an array").clone();
    let told = words(story);
    assert!(
        words(whole).iter().all(|word| told.contains(word)),
        "{told:?}"
    );
}

/// Functions without a stop, each with why.
fn missing(story: &Value) -> Vec<(&str, &str)> {
    let missing = story["road"]["missing"].as_array().expect("an array");
    let texts = missing
        .iter()
        .map(|stop| (stop["function"].as_str(), stop["reason"].as_str()));
    texts
        .map(|(function, reason)| function.zip(reason).expect("text"))
        .collect()
}

const REFUSED: [&str; 4] = ["--ipa", "0x40200000..0x40300000", "--until", "refused"];

#[test]
fn a_program_without_the_symbols_of_its_functions_is_followed_by_its_vectors() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("hyp.elf");
    let mut stripped = program();
    let kept = ["HYP", "hyp_vectors", "host_touch"];
    let gone = |name: &str| !kept.contains(&name);
    stripped.symbols.retain(|(name, ..)| !gone(name));
    fs::write(&path, stripped.elf()).expect("a file");
    let image = ["--image", path.to_str().expect("a plain path")];
    for question in [&["--count", "2"][..], &REFUSED] {
        let whole = stories("demo", question);
        let nameless = stories("demo", &[question, &image].concat());
        assert_eq!(nameless.len(), whole.len());
        for (story, whole) in nameless.iter().zip(&whole) {
            assert_same(story, whole);
            let road = &story["road"];
            assert_eq!(road["entry"]["symbol"], "hyp_vectors+0x400", "{road}");
            assert_eq!(
                (&road["functions"], &road["writes_by"]),
                (&Value::Array(Vec::new()), &"entry-to-end".into()),
                "{road}"
            );
            for name in ["handle_host_mem_abort", "get_leaf", "set_leaf"] {
                let mut missing = missing(story).into_iter();
                let (_, why) = missing.find(|(function, _)| *function == name).expect(name);
                assert!(why.starts_with("no such symbol"), "{name}: {why}");
            }
        }
    }
}

/// Room for the entry alone, for some functions more, and for all.
#[test]
fn a_server_without_room_for_all_breakpoints_is_followed_by_those_that_it_takes() {
    const NO_ROOM: &str = "the server has no room for another";
    let whole = stories("demo", &[]).remove(0);
    let mut refused_before = usize::MAX;
    for room in [1, 3, 5, 64] {
        let mut set = BTreeSet::new();
        let wire = Wire::new(move |request| {
            match request.split_at(request.len().min(1)) {
                ("Z", place) if !set.contains(place) && set.len() == room => {
                    return Fate::Answered("E1c");
                }
                ("Z", place) => drop(set.insert(place.to_owned())),
                ("z", place) => drop(set.remove(place)),
                _ => {}
            }
            Fate::Goes
        });
        let story = stories(&wire.address, &[]).remove(0);
        wire.end();
        assert_same(&story, &whole);
        let missing = missing(&story).into_iter();
        let refused = missing.filter(|(_, why)| *why == NO_ROOM).count();
        assert!(refused < refused_before, "room for {room}: {refused}");
        refused_before = refused;
    }
    assert_eq!(refused_before, 0);
}

#[test]
fn a_server_that_takes_no_breakpoint_at_the_entry_is_one_sentence() {
    let wire = Wire::new(|request| match request.starts_with('Z') {
        true => Fate::Answered("E1c"),
        false => Fate::Goes,
    });
    let ran = fail(["abort", &wire.address], "no breakpoint at the entry 0x");
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("no room for another"), "{}", ran.stderr);
    wire.end();
}

#[test]
fn a_link_that_falls_silent_or_is_cut_in_the_middle_of_a_story_is_one_sentence() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    let armed = Arc::new(AtomicUsize::new(0));
    let first = Arc::clone(&armed);
    let wire = Wire::new(move |request| {
        let number = counter.fetch_add(1, Ordering::Relaxed);
        if request.starts_with('Z') {
            let _ = first.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
        }
        Fate::Goes
    });
    stories(&wire.address, &[]);
    wire.end();
    let [armed, requests] = [armed, requests].map(|number| number.load(Ordering::Relaxed));
    for part in 0..8 {
        let moment = armed + part * (requests - armed) / 8;
        for (then, timeout, words) in [
            (Fate::Silent, "0.5", "within 0.5 s"),
            // Until it is cut, it may be as slow as the computer is busy.
            (Fate::Cut, "60", "link lost"),
        ] {
            let mut sent = 0;
            let mut then = Some(then);
            let wire = Wire::new(move |_| {
                sent += 1;
                (sent > moment)
                    .then(|| then.take())
                    .flatten()
                    .unwrap_or(Fate::Goes)
            });
            let ran = fail(["abort", &wire.address, "--timeout", timeout], words);
            assert_eq!(ran.stdout, "", "at {moment}");
            wire.end();
        }
    }
}
