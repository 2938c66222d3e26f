//! One host abort explained: by the inspector, and by gdb that follows the same path.
//!
//! `cargo bench -p inspector --bench abort`
//!
//! The machine has one CPU and stands between two tries. All contenders are asked one after the other, again and again:
//! for the time over the server's own socket, then once more over one that counts requests. Both are taken from when the CPU
//! stands at the entry of EL2 until all is known.

mod gdb;
mod tap;

#[path = "../../tests/support/client.rs"]
#[expect(dead_code, reason = "shared with tests that ask for more")]
mod client;

use client::Client;
use fixtures::{Boot, Kernel, Machine};
use inspector::abort::{self, Outcome, Story};
use inspector::addr::Span;
use inspector::image::Images;
use inspector::session::{Opener, Session};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tap::Tap;

const TRIES: usize = 5;
/// Much more than anything here takes.
const LIMIT: Duration = Duration::from_secs(120);
/// All RAM of these machines.
const RAM: Span = Span {
    start: 0x4000_0000,
    size: 512 << 20,
};
/// What hyp's built-in host touches page after page.
const COMMON: Span = Span {
    start: 0x4300_0000,
    size: 0x20_0000,
};

/// Which aborts count.
pub(crate) struct Wanted {
    ipa: Span,
    images: Vec<PathBuf>,
}

/// Where an abort leads through EL2, as a story said.
pub(crate) struct Path {
    entry: u64,
    functions: Vec<u64>,
    exit: u64,
}

/// What following one took.
pub(crate) struct Taken {
    /// From the start until the machine ran.
    ready: Duration,
    /// From the entry to the end.
    abort: Duration,
    /// Instructions that were stepped, or places where the CPU was stopped.
    stops: u64,
}

#[derive(Clone, Copy)]
enum Contender {
    Inspector,
    InspectorSteps,
    GdbFunctions,
    GdbSteps,
}

impl Contender {
    const ALL: [Self; 4] = [
        Self::Inspector,
        Self::InspectorSteps,
        Self::GdbFunctions,
        Self::GdbSteps,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Inspector => "inspector",
            Self::InspectorSteps => "inspector --steps",
            Self::GdbFunctions => "gdb, by the same functions",
            Self::GdbSteps => "gdb, by stepi",
        }
    }

    /// Follows an abort; says also how many requests that took, if the server is behind a tap.
    fn follow(
        self,
        server: &str,
        wanted: &Wanted,
        path: &Path,
        tap: Option<&Tap>,
    ) -> (Taken, usize) {
        let address = tap.map_or(server, Tap::address);
        let way = match self {
            Self::Inspector => return inspect(address, wanted, false, tap).1,
            Self::InspectorSteps => return inspect(address, wanted, true, tap).1,
            Self::GdbFunctions => gdb::FUNCTIONS,
            Self::GdbSteps => gdb::STEPS,
        };
        let taken = gdb::follow(address, wanted, path, way);
        (taken, tap.map_or(0, Tap::between_marks))
    }
}

fn opener(address: &str, wanted: &Wanted) -> Opener {
    Opener {
        target: address.to_owned(),
        images: wanted.images.clone(),
        timeout: LIMIT,
    }
}

/// The inspector, in this process.
fn inspect(
    address: &str,
    wanted: &Wanted,
    steps: bool,
    tap: Option<&Tap>,
) -> (Story, (Taken, usize)) {
    let requests = || tap.map_or(0, Tap::requests);
    let start = Instant::now();
    let mut session = opener(address, wanted).open().expect("the server answers");
    let aborts = abort::Wanted {
        ipa: Some(wanted.ipa),
        steps,
        ..abort::Wanted::default()
    };
    let mut follower = session.follow(aborts).expect("there is a hypervisor");
    let ready = start.elapsed();
    let (target, images) = session.parts();
    let mut begun = None;
    let mut stops = 0;
    loop {
        let control = target.run_control().expect("it is a machine");
        control.resume().expect("the link holds");
        control.wait(LIMIT).expect("the host goes on");
        let now = (Instant::now(), requests());
        let stories = follower.stopped(target, images).expect("the link holds");
        let is_on_its_way = follower.in_progress().next().is_some();
        if begun.is_none() && (is_on_its_way || !stories.is_empty()) {
            begun = Some(now);
        }
        stops += u64::from(begun.is_some());
        let (Some(story), Some((entered, before))) = (stories.into_iter().next(), begun) else {
            continue;
        };
        let taken = Taken {
            ready,
            abort: entered.elapsed(),
            stops: story.instructions.unwrap_or(stops),
        };
        return (story, (taken, requests() - before));
    }
}

/// The figures of one contender.
struct Row {
    contender: Contender,
    taken: Vec<Taken>,
    requests: Vec<usize>,
}

fn rows() -> Vec<Row> {
    let row = |contender| Row {
        contender,
        taken: Vec::new(),
        requests: Vec::new(),
    };
    Contender::ALL.map(row).into()
}

/// One try of each, another one first each time.
fn try_all(rows: &mut [Row], turn: usize, server: &str, wanted: &Wanted) {
    let (story, _) = inspect(server, wanted, false, None);
    assert!(
        matches!(story.outcome, Outcome::Mapped { .. }),
        "{:?}",
        story.outcome
    );
    let place = |place: Option<&abort::Place>| place.expect("both ends were seen").pc;
    let path = Path {
        entry: place(story.road.entry.as_ref()),
        functions: story.road.functions.iter().map(|place| place.pc).collect(),
        exit: place(story.road.exit.as_ref()),
    };
    let count = rows.len();
    for at in 0..count {
        let row = &mut rows[(turn + at) % count];
        let (taken, _) = row.contender.follow(server, wanted, &path, None);
        row.taken.push(taken);
        let tap = Tap::new(server);
        let (_, requests) = row.contender.follow(server, wanted, &path, Some(&tap));
        row.requests.push(requests);
    }
}

fn median<T: Ord + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values[values.len() / 2]
}

fn print(machine: &str, rows: &[Row]) {
    let figures = |row: &Row| {
        let ms =
            |time: fn(&Taken) -> Duration| median(row.taken.iter().map(time)).as_secs_f64() * 1e3;
        (
            ms(|taken| taken.ready),
            ms(|taken| taken.abort),
            median(row.requests.iter().copied()),
            median(row.taken.iter().map(|taken| taken.stops)),
        )
    };
    let (_, first_time, first_requests, _) = figures(&rows[0]);
    for row in rows {
        let (ready, time, requests, stops) = figures(row);
        let ratios = (
            time / first_time,
            requests as f64 / first_requests.max(1) as f64,
        );
        println!(
            "{machine:<22}{:<28}{stops:>6}{time:>10.1}{:>7.1}{requests:>10}{:>7.1}{ready:>10.0}",
            row.contender.name(),
            ratios.0,
            ratios.1,
        );
    }
}

/// hyp's host at work. From here on the machine stands between two clients.
fn hyp(channel: bool) -> (Machine, String) {
    let boot = Boot::hyp().expect("`cargo fixtures setup` says what is missing");
    let boot = if channel { boot.channel() } else { boot };
    let mut machine = boot.start().expect("QEMU starts");
    machine
        .wait_for("round 2 done", LIMIT)
        .expect("the host runs");
    let server = if channel {
        machine.channel()
    } else {
        machine.gdb()
    };
    let server = server.to_owned();
    let mut client = Client::connect(&server);
    if !channel {
        never_sleep(&machine, &mut client);
    }
    client.ask("qC");
    (machine, server)
}

/// Takes the pauses out of the host's rounds: after single steps by gdb, a CPU of QEMU's may sleep through its timer.
fn never_sleep(machine: &Machine, client: &mut Client) {
    let images = Images::open(std::slice::from_ref(&machine.image().host));
    let pace = images.expect("an ELF file").place("HOST.pace");
    let pace = pace.expect("the host has it").address;
    client.order("Qqemu.PhyMemMode:1");
    client.order(&format!("M{pace:x},8:{:016}", 0));
    client.order("Qqemu.PhyMemMode:0");
}

fn bench_hyp(channel: bool) {
    let (machine, server) = hyp(channel);
    let image = machine.image();
    let wanted = Wanted {
        ipa: COMMON,
        images: vec![image.hyp.clone(), image.host.clone()],
    };
    let mut rows = rows();
    for turn in 0..TRIES {
        try_all(&mut rows, turn, &server, &wanted);
    }
    let name = if channel {
        "hyp, its own channel"
    } else {
        "hyp, QEMU's server"
    };
    print(name, &rows);
}

/// A kernel has few first touches of RAM in a boot, so that each try gets one of its own.
fn bench_linux(kernel: Kernel) {
    let mut rows = rows();
    for turn in 0..TRIES {
        let boot = Boot::linux(kernel).expect("`cargo fixtures setup` says what is missing");
        let machine = boot.paused().start().expect("QEMU starts");
        let wanted = Wanted {
            ipa: RAM,
            images: vec![machine.kernel().vmlinux.clone()],
        };
        let session = opener(machine.gdb(), &wanted).open();
        wait_for_pkvm(&mut session.expect("the server answers"));
        try_all(&mut rows, turn, machine.gdb(), &wanted);
    }
    print(kernel.name(), &rows);
}

fn wait_for_pkvm(session: &mut Session) {
    let moment = Duration::from_millis(5);
    session.wait_for_el2(moment).expect("the link holds");
}

fn main() {
    println!(
        "{:<22}{:<28}{:>6}{:>10}{:>7}{:>10}{:>7}{:>10}",
        "machine", "who", "stops", "time, ms", "ratio", "requests", "ratio", "ready, ms"
    );
    bench_hyp(false);
    bench_hyp(true);
    for kernel in Kernel::ALL {
        bench_linux(kernel);
    }
}
