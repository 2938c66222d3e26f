//! What the first answer about a Linux costs: waits and time on the link, time and memory of the program, and what gdb
//! takes before it answers anything.
//!
//! `cargo bench -p inspector --bench linux`

#[path = "../tests/support/counted.rs"]
mod counted;

use counted::Counted;
use fixtures::{Boot, Kernel};
use inspector::arch::walk::walk_together;
use inspector::hypervisor;
use inspector::image::Images;
use inspector::model::System;
use inspector::target::{self, Target};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const TRIES: usize = 5;

/// The shortest time of several tries, and the waits of one.
fn least(counted: &mut Counted, mut work: impl FnMut(&mut Counted)) -> (usize, Duration) {
    let tries = (0..TRIES).map(|_| {
        let (start, before) = (Instant::now(), counted.waits);
        work(counted);
        (counted.waits - before, start.elapsed())
    });
    tries.min_by_key(|(_, time)| *time).expect("some tries")
}

/// Reads the registers and walks the tables of a machine whose regimes are known.
fn tables(target: &mut dyn Target, system: &System) {
    target.all_registers().expect("the link holds");
    let regimes: Vec<_> = system.regimes.iter().map(|known| &known.regime).collect();
    let walks = walk_together(&regimes, &mut |spans| target.read_phys(spans));
    for (regime, walk) in system.regimes.iter().zip(walks.expect("the link holds")) {
        let name = &regime.name;
        assert_eq!(walk.tables, regime.tables, "{name} stands still");
    }
}

/// What a program took.
struct Cost {
    time: Duration,
    /// KiB, pages of files among them.
    peak: u64,
    /// KiB without them.
    anonymous: u64,
    /// Whether it could answer everything.
    complete: bool,
}

fn row(what: &str, cost: &Cost) {
    let mib = |kib: u64| kib as f64 / 1024.0;
    let time = cost.time.as_secs_f64();
    println!(
        "{what:<44}{time:>8.2} s{:>8.0} MiB{:>8.0} MiB{}",
        mib(cost.peak),
        mib(cost.anonymous),
        if cost.complete { "" } else { "  incomplete" }
    );
}

/// A number of KiB in `/proc/PID/status`; none once the process has ended.
fn status(child: &Child, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn cost(mut command: Command) -> Cost {
    let start = Instant::now();
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the program is there");
    let (mut peak, mut anonymous) = (0, 0);
    let ended = loop {
        if let Some(ended) = child.try_wait().expect("it is our child") {
            break ended;
        }
        peak = status(&child, "VmHWM").max(peak);
        anonymous = status(&child, "RssAnon").max(anonymous);
        thread::sleep(Duration::from_millis(1));
    };
    Cost {
        time: start.elapsed(),
        peak,
        anonymous,
        complete: ended.success(),
    }
}

/// The quickest of several.
fn quickest(command: impl Fn() -> Command) -> Cost {
    let costs = (0..TRIES).map(|_| cost(command()));
    costs.min_by_key(|cost| cost.time).expect("some tries")
}

fn inspector(command: &str, server: &str, image: Option<&Path>) -> Cost {
    quickest(|| {
        let mut inspector = Command::new(env!("CARGO_BIN_EXE_inspector"));
        inspector.args([command, server]);
        if let Some(image) = image {
            inspector.arg("--image").arg(image);
        }
        inspector
    })
}

fn gdb(server: &str, vmlinux: &Path) -> Cost {
    let server = server.trim_start_matches("unix:");
    quickest(|| {
        let mut gdb = Command::new("gdb-multiarch");
        gdb.args(["-nx", "-batch", "-ex"]);
        gdb.arg(format!("file {}", vmlinux.display()));
        gdb.args(["-ex", &format!("target remote {server}")]);
        gdb.args(["-ex", "info registers VTTBR_EL2 VTCR_EL2 TTBR0_EL2"]);
        gdb
    })
}

fn main() {
    let boot = Boot::linux(Kernel::Linux7).expect("`cargo fixtures setup` says what is missing");
    let mut machine = boot.cpus(2).start().expect("QEMU starts");
    machine
        .wait_for("init: idle", Duration::from_secs(120))
        .expect("Linux comes up");
    let server = machine.gdb().to_owned();
    let vmlinux = machine.kernel().vmlinux.clone();

    let target = target::open(&server, Duration::from_secs(30)).expect("the server answers");
    let mut counted = Counted { target, waits: 0 };
    let mut images = Images::open(std::slice::from_ref(&vmlinux)).expect("it is a kernel");
    let mut capture =
        |target: &mut dyn Target| hypervisor::capture(target, &mut images).expect("the link holds");
    let system = capture(&mut counted);
    assert!(system.complete, "{:?}", system.problems);
    let (waits, time) = least(&mut counted, |target| tables(target, &system));
    println!("{:<44}{:>8}{:>10}", "on the link", "waits", "time");
    let link = |what: &str, waits: usize, time: Duration| {
        let ms = time.as_secs_f64() * 1e3;
        println!("{what:<44}{waits:>8}{ms:>7.1} ms");
    };
    link("registers, host stage 2 and hyp stage 1", waits, time);
    let (waits, time) = least(&mut counted, |target| drop(capture(target)));
    link("everything that the views show", waits, time);
    drop(counted);

    println!();
    println!(
        "{:<44}{:>10}{:>12}{:>12}",
        "the first answer", "time", "memory", "no files"
    );
    row(
        "inspector list, with vmlinux",
        &inspector("list", &server, Some(&vmlinux)),
    );
    row(
        "inspector owners, with vmlinux",
        &inspector("owners", &server, Some(&vmlinux)),
    );
    row(
        "inspector list, without a file",
        &inspector("list", &server, None),
    );
    row(
        "gdb, with vmlinux: three registers",
        &gdb(&server, &vmlinux),
    );
}
