//! hyp's own gdb channel beside QEMU's gdb server: the same machine, the same client, one after the other.
//!
//! `cargo bench -p inspector --bench channel`

use client::Client;
use fixtures::{Boot, Machine};
use inspector::addr::Span;
use inspector::hypervisor;
use inspector::image::Images;
use inspector::target::{self, rsp};
use std::time::{Duration, Instant};

#[path = "../tests/support/client.rs"]
mod client;

/// How long each thing is done again and again.
const SPAN: Duration = Duration::from_secs(2);
const STOPS: u32 = 40;
/// Where hyp keeps RAM that nothing changes: its own image.
const TEXT: u64 = 0x4020_0000;
const MIB: f64 = 1024.0 * 1024.0;

/// What one server does.
struct Figures {
    /// Bytes a second of `m`, one after the other, each as long as the server allows.
    memory: f64,
    /// Bytes a second of a virtual file, where there are such.
    file: Option<f64>,
    /// Bytes a second of physical memory as the inspector reads it: `m` one after the other without waiting, or a file.
    inspector: f64,
    /// `qC` and its answer, a second.
    trips: f64,
    /// From Ctrl-C to the stop reply: median and longest.
    stop: [Duration; 2],
    /// Everything that the views show, read once more.
    capture: Duration,
}

fn main() {
    let boot = Boot::hyp().expect("hyp builds: `cargo fixtures setup` says what is missing");
    let mut machine = boot.cpus(4).channel().start().expect("QEMU starts");
    machine
        .wait_for("round 2 done", Duration::from_secs(60))
        .expect("the host runs");
    let qemu = figures(&machine, machine.gdb(), |client| {
        client.order("Qqemu.PhyMemMode:1");
        let speed = memory(client, TEXT, 0x800);
        client.order("Qqemu.PhyMemMode:0");
        (speed, None)
    });
    let channel = figures(&machine, machine.channel(), |client| {
        // The code that a CPU runs is mapped; of 64 KiB a packet, hexadecimal digits leave half.
        let here = client.ask("p20");
        let here = rsp::from_hex(&here).and_then(|bytes| bytes.first_chunk().copied());
        let here = u64::from_le_bytes(here.expect("a program counter")) & !0xfff;
        (memory(client, here, 0x7000), Some(file(client)))
    });
    print(&qemu, &channel);
}

/// Measures a server; `reads` says how memory is read through it, and through a file.
fn figures(
    machine: &Machine,
    address: &str,
    reads: impl FnOnce(&mut Client) -> (f64, Option<f64>),
) -> Figures {
    let mut client = Client::connect(address);
    client.ask("qSupported");
    let (memory, file) = reads(&mut client);
    let trips = again(|| client.ask("qC").len().min(1));
    let mut stops: Vec<_> = (0..STOPS).map(|n| stop(&mut client, n)).collect();
    stops.sort();
    client.order("D");
    drop(client);
    let (inspector, capture) = inspect(machine, address);
    Figures {
        memory,
        file,
        inspector,
        trips,
        stop: [stops[stops.len() / 2], stops[stops.len() - 1]],
        capture,
    }
}

/// How much of it a second: does something, which says how much it did, until the time is over.
fn again(mut act: impl FnMut() -> usize) -> f64 {
    let start = Instant::now();
    let mut sum = 0;
    while start.elapsed() < SPAN {
        sum += act();
    }
    sum as f64 / start.elapsed().as_secs_f64()
}

fn memory(client: &mut Client, at: u64, size: usize) -> f64 {
    let request = format!("m{at:x},{size:x}");
    again(|| {
        let bytes = rsp::from_hex(&client.ask(&request));
        bytes.expect("memory").len()
    })
}

fn file(client: &mut Client) -> f64 {
    let name = rsp::to_hex(b"hyp/physmem");
    let answer = client.ask(&format!("vFile:open:{name},0,0"));
    let handle = answer.strip_prefix(b"F").expect("it is there");
    let handle = String::from_utf8_lossy(handle).into_owned();
    let request = format!("vFile:pread:{handle},7000,{TEXT:x}");
    again(|| {
        let answer = client.ask(&request);
        let head = answer.iter().position(|byte| *byte == b';');
        answer.len() - head.expect("content") - 1
    })
}

/// Lets the machine run for a moment, and stops it.
fn stop(client: &mut Client, n: u32) -> Duration {
    client.send("vCont;c");
    // Not in step with any clock of the machine's.
    std::thread::sleep(Duration::from_micros(20_000 + u64::from(n) * 731));
    let start = Instant::now();
    client.interrupt();
    client.stop();
    start.elapsed()
}

/// How fast the inspector reads physical memory, and how long a capture takes.
fn inspect(machine: &Machine, address: &str) -> (f64, Duration) {
    let image = machine.image();
    let images = Images::open(&[image.hyp.clone(), image.host.clone()]);
    let mut images = images.expect("hyp builds");
    let mut target = target::open(address, Duration::from_secs(30)).expect("the server answers");
    let speed = again(|| {
        let bytes = target.read_phys(&[Span::new(TEXT, 1 << 20)]);
        let bytes = bytes.expect("the link holds").pop().expect("an answer");
        bytes.expect("it is RAM").len()
    });
    let captures = again(|| {
        let system = hypervisor::capture(target.as_mut(), &mut images);
        let system = system.expect("the link holds");
        assert!(system.complete, "{:?}", system.problems);
        1
    });
    (speed, Duration::from_secs_f64(1.0 / captures))
}

fn print(qemu: &Figures, channel: &Figures) {
    let row = |what: &str, [qemu, channel]: [f64; 2]| {
        let ratio = channel / qemu;
        println!("{what:<32}{qemu:>10.1}{channel:>10.1}{ratio:>8.2}");
    };
    let both = |figure: fn(&Figures) -> f64| [qemu, channel].map(figure);
    println!("{:<32}{:>10}{:>10}{:>8}", "", "QEMU's", "hyp's", "ratio");
    row("m, MiB/s", both(|figures| figures.memory / MIB));
    if let Some(file) = channel.file {
        println!(
            "{:<32}{:>10}{:>10.1}",
            "vFile:pread, MiB/s",
            "none",
            file / MIB
        );
    }
    row(
        "the inspector's reads, MiB/s",
        both(|figures| figures.inspector / MIB),
    );
    row("round trips, /s", both(|figures| figures.trips));
    row(
        "stop, median, ms",
        both(|figures| figures.stop[0].as_secs_f64() * 1e3),
    );
    row(
        "stop, longest, ms",
        both(|figures| figures.stop[1].as_secs_f64() * 1e3),
    );
    row(
        "capture, ms",
        both(|figures| figures.capture.as_secs_f64() * 1e3),
    );
}
