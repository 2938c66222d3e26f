//! A machine on QEMU is left as it was found, however the inspector ends; what is left where it is killed, the next one
//! puts in order and tells of.

use client::Client;
use fixtures::LIMIT;
use fixtures::qemu::{Boot, Machine};
use fixtures::terminal::{Look, Terminal};
use fixtures::{Cpu, Finally, Kernel};
use inspector::target::rsp::from_hex;
use proxy::{Proxy, Session};
use run::{Ran, inspector};
use std::path::Path;
use std::process::{Child, Command, Stdio};

mod abort_pane;
#[path = "../support/client.rs"]
mod client;
mod proxy;
#[path = "../support/rounds.rs"]
mod rounds;
#[path = "../support/run.rs"]
#[expect(dead_code, reason = "shared with tests that ask for more")]
mod run;

const CPUS: usize = 2;
const INSPECTOR: &str = env!("CARGO_BIN_EXE_inspector");
/// The breakpoints by which an inspector tells that it is there: the machine ran before, or it stood.
const MARKS: [&str; 2] = ["1,696e737065637452,4", "1,696e737065637453,4"];

/// A machine, and what its sessions are told besides its address.
struct Subject {
    machine: Machine,
    options: Vec<String>,
}

impl Subject {
    fn arguments(&self, address: &str) -> Vec<String> {
        let words = ["list", address].map(str::to_owned);
        words.into_iter().chain(self.options.clone()).collect()
    }

    fn list(&self) -> Ran {
        inspector(self.arguments(self.machine.gdb()))
    }
}

/// A machine whose init keeps one CPU busy.
fn boot(kernel: Kernel) -> Machine {
    let boot = Boot::linux(kernel).expect("a kernel");
    let boot = boot.cpus(CPUS as u32).finally(Finally::Spin);
    let mut machine = boot.start().expect("QEMU starts");
    machine.wait_for("init: spins", LIMIT).expect("init runs");
    machine
}

/// As a client finds a machine, which stands from then on.
fn look(machine: &Machine) -> (Client, bool) {
    let mut client = Client::connect(machine.gdb());
    // Only a machine that ran says that it stops, before it answers anything.
    client.send("qqemu.PhyMemMode");
    let first = client.packet();
    let runs = first.starts_with(b"T02");
    let mode = if runs { client.packet() } else { first };
    assert_eq!(mode, b"0", "physical memory mode");
    for mark in MARKS {
        assert_eq!(client.ask(&format!("z{mark}")), b"E22", "a mark");
    }
    (client, runs)
}

/// Lets it run or has it stand.
fn set(machine: &Machine, runs: bool) {
    let (mut client, _) = look(machine);
    if runs {
        client.order("D;1");
    }
}

/// Nothing is left in it, and it runs or stands.
fn assert_left(machine: &Machine, runs: bool, by: &str) {
    let (mut client, ran) = look(machine);
    assert_eq!(ran, runs, "runs after {by}");
    if runs {
        client.order("D;1");
    }
}

fn send_signal(name: &str, process: u32) {
    let status = Command::new("kill")
        .args([name, &process.to_string()])
        .status();
    assert!(status.expect("kill runs").success());
}

/// One session of the command line through a proxy, which after `moment` requests sends it a signal.
fn session(subject: &Subject, moment: usize, signal: &str) -> (Session, Child) {
    let proxy = Proxy::new(subject.machine.gdb());
    let child = Command::new(INSPECTOR)
        .args(subject.arguments(proxy.address()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let disturb = || send_signal(signal, child.id());
    let session = proxy.serve(moment, disturb, signal == "-KILL");
    (session, child)
}

/// The moments of a session at which to disturb it: every request of attaching and leaving that is not one of many like
/// it, and some of those between: the rest of a session is the same few requests again and again.
fn moments(requests: &[String]) -> Vec<usize> {
    /// How many of those between.
    const BETWEEN: usize = 8;
    let plain = |request: &String| {
        request.starts_with(['m', 'p', 'g', 'H']) || request.starts_with("qXfer")
    };
    let attaching = requests.iter().position(|request| request == "?");
    let always = attaching.map_or(0, |last| last + 3);
    let end = requests.len();
    let (edges, between): (Vec<usize>, Vec<usize>) = (1..=end)
        .filter(|&moment| {
            let mut around = requests[moment - 1..].iter().take(2);
            around.any(|request| !plain(request)) || moment % 101 == 0
        })
        .partition(|moment| *moment <= always || *moment + 3 > end);
    let step = between.len().div_ceil(BETWEEN).max(1);
    // An odd step meets the mode switched on as well as off.
    let between = between.into_iter().step_by(step | 1);
    edges.into_iter().chain(between).collect()
}

fn linux(kernel: Kernel) -> Subject {
    let machine = boot(kernel);
    // Without it, each session would read the names out of RAM, which are megabytes.
    let vmlinux = machine.kernel().vmlinux.display().to_string();
    Subject {
        machine,
        options: vec!["--image".to_owned(), vmlinux],
    }
}

/// What happens to a session at one of its moments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    Signal,
    Kill,
}

/// Sessions that end by themselves, and ones that are disturbed: at each of their moments in each of the ways that are
/// told by the moment's place among them, on a machine that runs or on one that stands.
fn command_line(subject: &Subject, runs: bool, ways: impl Fn(usize) -> &'static [Disturbance]) {
    let machine = &subject.machine;
    set(machine, runs);
    let (whole, mut child) = session(subject, usize::MAX, "");
    child.wait().expect("it ends");
    assert_left(machine, runs, "its end");
    let moments = moments(&whole.requests);
    assert!(moments.len() > 10, "{:?}", whole.requests);
    for (index, &moment) in moments.iter().enumerate() {
        for way in ways(index + usize::from(runs)) {
            match way {
                Disturbance::Signal => signalled(subject, runs, index, moment),
                Disturbance::Kill => killed(subject, runs, moment),
            }
        }
    }
    let said = subject.list().stderr;
    assert!(!said.contains("was killed"), "{said}");
}

/// Sends a session one of the signals that end it.
fn signalled(subject: &Subject, runs: bool, index: usize, moment: usize) {
    set(&subject.machine, runs);
    let signal = ["-INT", "-TERM", "-HUP"][index % 3];
    let (_, mut child) = session(subject, moment, signal);
    child.wait().expect("it ends");
    assert_left(&subject.machine, runs, &format!("{signal} after {moment}"));
}

/// Kills a session, and sees what the next one says and leaves.
fn killed(subject: &Subject, runs: bool, moment: usize) {
    set(&subject.machine, runs);
    let (left, mut child) = session(subject, moment, "-KILL");
    child.wait().expect("it ends");
    let by = format!("-KILL after {moment}: {:?}", left.requests.last());
    let said = subject.list().stderr;
    let told = said.contains("was killed");
    assert_eq!(told, left.physical || left.marked, "{by}: {said}");
    let mode = said.contains("physical memory mode was still on");
    assert_eq!(mode, left.physical, "{by}: {said}");
    let stands_since = said.contains("ran before that inspector came");
    assert_eq!(stands_since, runs && left.marked, "{by}: {said}");
    // A machine that ran was stopped by connecting, and stands unless the last thing it was told is to run. That neither
    // mark nor mode is left is seen, too, so the one after has nothing to say.
    assert_left(&subject.machine, left.detached, &by);
}

/// A session on Linux reads a kernel's file first, which is nearly all that it costs. What surrounds it is the same on each,
/// so each moment is disturbed in one way on 6.1, and in the other on 7.x.
fn by_turns(index: usize) -> &'static [Disturbance] {
    match index % 2 {
        0 => &[Disturbance::Signal],
        _ => &[Disturbance::Kill],
    }
}

#[test]
fn qemu_linux_6_1_that_runs_is_left_as_found_by_the_command_line() {
    command_line(&linux(Kernel::Linux61), true, by_turns);
}

#[test]
fn qemu_linux_6_1_that_stands_is_left_as_found_by_the_command_line() {
    command_line(&linux(Kernel::Linux61), false, by_turns);
}

#[test]
fn qemu_linux_7_that_runs_is_left_as_found_by_the_command_line() {
    command_line(&linux(Kernel::Linux7), true, |index| by_turns(index + 1));
}

#[test]
fn qemu_linux_7_that_stands_is_left_as_found_by_the_command_line() {
    command_line(&linux(Kernel::Linux7), false, |index| by_turns(index + 1));
}

#[test]
fn qemu_hyp_is_left_as_found_by_the_command_line() {
    let boot = Boot::hyp().expect("the image builds").cpus(2);
    let mut machine = boot.start().expect("QEMU starts");
    machine.wait_for("round 3 done", LIMIT).expect("it runs");
    let image = machine.image().hyp.display().to_string();
    let subject = Subject {
        machine,
        options: vec!["--image".to_owned(), image],
    };
    for runs in [true, false] {
        command_line(&subject, runs, |_| {
            &[Disturbance::Signal, Disturbance::Kill]
        });
    }
}

fn tui(subject: &Subject) -> Terminal {
    let mut arguments = vec!["tui", subject.machine.gdb(), "--background", "dark"];
    arguments.extend(subject.options.iter().map(String::as_str));
    let look = Look::dark(120, 40);
    Terminal::start(Path::new(INSPECTOR), &arguments, Path::new("/"), look).expect("it starts")
}

/// By keys, or from outside.
fn end(terminal: &mut Terminal, how: &str) {
    if how.starts_with('-') {
        let process = terminal.foreground().expect("it runs");
        send_signal(how, process.try_into().expect("a process"));
    } else {
        terminal.send(how).expect("it reads");
    }
    terminal.wait_end().expect("it ends");
}

fn screen(kernel: Kernel) {
    let subject = &linux(kernel);
    let machine = &subject.machine;
    for runs in [true, false] {
        set(machine, runs);
        for how in ["q", "\x03", "-TERM", "-INT", "-HUP"] {
            let mut terminal = tui(subject);
            terminal.wait_for("capture 1,").expect("a capture");
            end(&mut terminal, how);
            assert_left(machine, runs, how);
            let mut terminal = tui(subject);
            terminal.wait_for("capture 1,").expect("a capture");
            terminal.send("c").expect("it reads");
            terminal.wait_for("running").expect("it runs");
            end(&mut terminal, how);
            assert_left(machine, runs, &format!("c and {how}"));
        }
    }
    // Killed, it leaves a machine that stands; what continues it then, lets it run.
    set(machine, true);
    for (how, runs) in [("q", false), ("cq", true)] {
        set(machine, true);
        let mut terminal = tui(subject);
        terminal.wait_for("capture 1,").expect("a capture");
        end(&mut terminal, "-KILL");
        let mut terminal = tui(subject);
        terminal
            .wait_for("inspector was killed")
            .expect("it says so");
        terminal.wait_for("capture 1,").expect("a capture");
        end(&mut terminal, how);
        assert_left(machine, runs, how);
    }
}

#[test]
fn qemu_linux_6_1_is_left_as_found_by_the_tui() {
    screen(Kernel::Linux61);
}

#[test]
fn qemu_linux_7_is_left_as_found_by_the_tui() {
    screen(Kernel::Linux7);
}

/// The PC of the CPU in user space, where only init's loop is. It may just have been interrupted: then the machine runs on.
fn in_user_space(client: &mut Client) -> u64 {
    loop {
        for cpu in 0..CPUS {
            client.order(&format!("Hg{:x}", cpu + 1));
            // 33 registers of eight bytes, the last of which is PC, and four bytes of PSTATE.
            let general = from_hex(&client.ask("g")).expect("all are known");
            let pc = u64::from_le_bytes(*general[32 * 8..].first_chunk().expect("PC"));
            if general[33 * 8] & 0xf == 0 {
                return pc;
            }
        }
        client.send("vCont;c");
        client.interrupt();
        client.stop();
    }
}

#[test]
fn qemu_breakpoints_of_another_client_are_cleared() {
    for kernel in Kernel::ALL {
        let machine = boot(kernel);
        let mut client = Client::connect(machine.gdb());
        client.ask("qSupported");
        let at = in_user_space(&mut client);
        client.order(&format!("Z0,{at:x},4"));
        // Init's loop comes there again, on whichever CPU Linux then has it.
        client.send("vCont;c");
        let stop = client.stop();
        let thread = stop.strip_prefix("T05thread:").expect("a breakpoint");
        let number = thread.trim_end_matches(';').parse::<usize>();
        let cpu = number.expect("a thread") - 1;
        drop(client);
        let ran = inspector(["list", machine.gdb()]);
        let says =
            format!("CPU {cpu} stands at a breakpoint that an earlier client left, at {at:#x}");
        assert!(ran.stderr.contains(&says), "{}", ran.stderr);
        let (mut client, runs) = look(&machine);
        assert!(!runs);
        assert_eq!(client.ask(&format!("z0,{at:x},4")), b"E22");
        drop(client);
        let ran = inspector(["list", machine.gdb()]);
        assert!(!ran.stderr.contains("breakpoint"), "{}", ran.stderr);
    }
}
