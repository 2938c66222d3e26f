//! The full screen in a terminal: the program itself, keys in, a screen out.

use fixtures::terminal::{Look, Terminal};
use inspector::demo::{self, Demo};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use vt100::{Color, MouseProtocolMode, Screen};

const INSPECTOR: &str = env!("CARGO_BIN_EXE_inspector");
const LOOK: Look = Look {
    width: 100,
    height: 30,
    light: false,
    no_color: false,
};

fn inspector(arguments: &[&str], look: Look) -> Terminal {
    Terminal::start(Path::new(INSPECTOR), arguments, Path::new("/"), look).expect("it starts")
}

/// A shell in a terminal that has job control; `$I` is the inspector.
fn shell(script: &str) -> Terminal {
    let script = format!("I={INSPECTOR}; set -m; {script}");
    Terminal::start(Path::new("/bin/sh"), &["-c", &script], Path::new("/"), LOOK).expect("a shell")
}

fn seen(terminal: &Terminal, text: &str) -> String {
    terminal.wait_for(text).expect("it is shown")
}

fn send(terminal: &Terminal, keys: &str) {
    terminal.send(keys).expect("it reads");
}

/// Nothing that was set is left set.
fn assert_given_back(screen: &Screen) {
    let contents = screen.contents();
    assert!(!screen.alternate_screen(), "{contents}");
    assert!(!screen.hide_cursor(), "{contents}");
    assert!(!screen.bracketed_paste(), "{contents}");
    assert_eq!(
        screen.mouse_protocol_mode(),
        MouseProtocolMode::None,
        "{contents}"
    );
    // `stty -a` lists what is off with a dash.
    assert!(
        contents.contains(" icanon") && contents.contains(" echo "),
        "{contents}"
    );
    assert!(
        !contents.contains("-icanon") && !contents.contains("-echo "),
        "{contents}"
    );
}

#[test]
fn terminal_shows_every_pane_and_is_given_back() {
    let terminal = shell("$I tui demo; echo \"status $?\"; stty -a; echo done; read end");
    seen(&terminal, "a cell");
    assert!(terminal.screen().alternate_screen());
    assert_ne!(
        terminal.screen().mouse_protocol_mode(),
        MouseProtocolMode::None
    );
    for (keys, words) in [
        ("2", "used"),
        ("3", "all regimes"),
        ("/borrowed\r", "filter: borrowed"),
        ("4", "pages of RAM"),
        ("\r", "in the tables"),
        ("6", "host-pool"),
        ("7", "registers of CPU 0"),
        ("8", "hyp keeps no VMs yet"),
        ("?", "any other key closes"),
        ("x1", "a row"),
        ("g", "go to (0x"),
        ("0x40200000\r", "physical at 0x402"),
    ] {
        send(&terminal, keys);
        seen(&terminal, words);
    }
    send(&terminal, "q");
    let screen = seen(&terminal, "done");
    assert!(screen.contains("status 0"), "{screen}");
    assert_given_back(&terminal.screen());
}

#[test]
fn terminal_is_given_back_while_suspended() {
    let script =
        "$I tui demo; echo suspended; stty -a; echo ready; read go; fg; echo ended; read end";
    let terminal = shell(script);
    seen(&terminal, "a cell");
    send(&terminal, "\x1a");
    seen(&terminal, "ready");
    assert_given_back(&terminal.screen());
    send(&terminal, "\n");
    terminal
        .wait("the screen again", |screen| {
            screen.alternate_screen().then_some(())
        })
        .expect("it comes back");
    seen(&terminal, "a cell");
    send(&terminal, "3");
    seen(&terminal, "all regimes");
    send(&terminal, "q");
    seen(&terminal, "ended");
}

/// Whoever asks for what never comes would take it for a hang.
#[test]
fn what_an_abort_waits_for_is_said_to_a_terminal() {
    let terminal = shell("$I abort --call no_such --cpu 1; echo ended $?; read end");
    seen(
        &terminal,
        "waiting for a hypercall (--cpu 1 --call no_such); Ctrl-C ends it",
    );
    send(&terminal, "\x03");
    seen(&terminal, "ended 3");
}

#[test]
fn terminal_is_given_back_when_stopped_from_outside() {
    let script = "$I tui demo; echo suspended; stty -a; echo ready; read go; fg; stty -a; echo ended; read end";
    let terminal = shell(script);
    seen(&terminal, "a cell");
    let signal = |name: &str| {
        let group = terminal.foreground().expect("something runs").to_string();
        let status = Command::new("kill").args([name, "--", &group]).status();
        assert!(status.expect("kill runs").success());
    };
    signal("-TSTP");
    seen(&terminal, "ready");
    assert_given_back(&terminal.screen());
    send(&terminal, "\n");
    seen(&terminal, "a cell");
    signal("-TERM");
    seen(&terminal, "ended");
    assert_given_back(&terminal.screen());
}

/// The cells of a screen, row by row.
fn cells(screen: &Screen) -> impl Iterator<Item = &vt100::Cell> {
    let (rows, columns) = screen.size();
    let rows = 0..rows.get();
    rows.flat_map(move |y| (0..columns.get()).filter_map(move |x| screen.cell(y, x)))
}

#[test]
fn terminal_without_colour_keeps_bold_and_reverse() {
    let terminal = inspector(
        &["tui"],
        Look {
            no_color: true,
            ..LOOK
        },
    );
    seen(&terminal, "a cell");
    let screen = terminal.screen();
    for cell in cells(&screen) {
        assert_eq!(
            (cell.fgcolor(), cell.bgcolor()),
            (Color::Default, Color::Default)
        );
    }
    assert!(cells(&screen).any(vt100::Cell::bold));
    assert!(cells(&screen).any(vt100::Cell::inverse));
}

#[test]
fn terminal_is_asked_for_its_ground() {
    let tinted = |light: bool| {
        let terminal = inspector(&["tui", "demo"], Look { light, ..LOOK });
        seen(&terminal, "a cell");
        let screen = terminal.screen();
        let (mut dark, mut bright) = (0, 0);
        for cell in cells(&screen) {
            match cell.bgcolor() {
                Color::Rgb(r, g, b) if u32::from(r) + u32::from(g) + u32::from(b) > 384 => {
                    bright += 1;
                }
                Color::Rgb(..) => dark += 1,
                _ => {}
            }
        }
        (dark, bright)
    };
    let (dark, bright) = tinted(true);
    assert!(bright > 10 * dark, "{dark} dark, {bright} bright");
    let (dark, bright) = tinted(false);
    assert!(dark > 10 * bright, "{dark} dark, {bright} bright");
}

#[test]
fn terminal_takes_what_is_copied_and_a_new_size() {
    let terminal = inspector(&["tui", "--no-mouse", "--background", "dark"], LOOK);
    seen(&terminal, "a cell");
    assert_eq!(
        terminal.screen().mouse_protocol_mode(),
        MouseProtocolMode::None
    );
    send(&terminal, "y");
    // 0x40000000
    assert_eq!(
        terminal.wait_clipboard().expect("it copies"),
        "MHg0MDAwMDAwMA=="
    );
    terminal.resize(40, 10).expect("it resizes");
    seen(&terminal, "40×10 is too small");
    terminal.resize(140, 40).expect("it resizes");
    seen(&terminal, "legend");
}

#[test]
fn terminal_runs_and_stops_the_machine_and_saves_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("it.core");
    let path = path.to_str().expect("it is text");
    let terminal = inspector(&["tui", "demo", "--background", "dark"], LOOK);
    seen(&terminal, "capture 1,");
    send(&terminal, "c");
    seen(&terminal, "running");
    // It is captured as it runs; each capture is on the screen for a second.
    let wait = terminal.wait("another capture", |screen| {
        let contents = screen.contents();
        let numbers = contents.split("capture ").skip(1);
        let mut numbers = numbers.filter_map(|rest| rest.split_once(',')?.0.parse::<u64>().ok());
        numbers.any(|number| number > 2).then_some(())
    });
    wait.expect("it is shown");
    send(&terminal, "i");
    seen(&terminal, "stopped");
    send(&terminal, &format!("w\x15{path}\r"));
    seen(&terminal, "saved ");
    send(&terminal, "q");
    drop(terminal);
    let terminal = inspector(&["tui", path, "--background", "dark"], LOOK);
    seen(&terminal, "□ file");
    send(&terminal, "c");
    seen(&terminal, "does not run");
}

#[test]
fn terminal_is_not_taken_for_a_target_that_is_not_there() {
    // Nothing listens on a client's own port, which nobody else gets as long as it is there.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("an address"));
    let address = client.as_ref().expect("it is connected").local_addr();
    let address = address.expect("an address").to_string();
    let mut terminal = inspector(&["tui", &address], LOOK);
    assert_eq!(terminal.wait_end().expect("it ends"), 3);
    let screen = terminal.screen().contents();
    assert!(
        screen.starts_with(&format!("inspector: {address}: ")),
        "{screen}"
    );
}

/// A gdb server that can be cut off: each connection has an embedded machine of its own.
struct Server {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<(TcpStream, Demo)>>>,
}

impl Server {
    fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let connections = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&connections);
        thread::spawn(move || {
            for client in listener.incoming() {
                serve(client?, &theirs)?;
            }
            io::Result::Ok(())
        });
        Ok(Self {
            address,
            connections,
        })
    }

    /// Nobody is served again before the guard is dropped.
    fn cut(&self) -> MutexGuard<'_, Vec<(TcpStream, Demo)>> {
        let mut connections = self.connections.lock().expect("no panic");
        for (client, demo) in connections.drain(..) {
            // It may have gone by itself.
            let _ = client.shutdown(Shutdown::Both);
            drop(demo);
        }
        connections
    }
}

fn serve(client: TcpStream, connections: &Mutex<Vec<(TcpStream, Demo)>>) -> io::Result<()> {
    let mut connections = connections.lock().expect("no panic");
    let demo = demo::start()?;
    let server = TcpStream::connect(demo.address())?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        thread::spawn(move || {
            // Ends when either side closes.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    connections.push((client, demo));
    Ok(())
}

#[test]
fn terminal_says_that_the_link_is_lost_and_that_it_is_back() {
    let server = Server::start().expect("a server");
    let address = server.address.to_string();
    let terminal = inspector(&["tui", &address, "--background", "dark"], LOOK);
    seen(&terminal, "capture 1,");
    // Both while the machine stands and while it runs.
    let cut = server.cut();
    seen(&terminal, "link lost");
    drop(cut);
    seen(&terminal, "the link is back");
    send(&terminal, "c");
    seen(&terminal, "running");
    let cut = server.cut();
    seen(&terminal, "link lost");
    // The last capture can still be looked at.
    send(&terminal, "4");
    seen(&terminal, "pages of RAM");
    drop(cut);
    seen(&terminal, "the link is back");
    seen(&terminal, "stopped");
    send(&terminal, "q");
}

#[test]
fn terminal_follows_aborts_and_writes_them_to_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("aborts.json");
    let wide = Look {
        width: 160,
        height: 50,
        ..LOOK
    };
    let terminal = inspector(&["tui", "--background", "dark"], wide);
    seen(&terminal, "capture 1,");
    for (keys, words) in [
        ("9", "no abort followed"),
        ("a", "under way"),
        ("n", "reads why and where"),
        // Until it stands again there is nothing to run to the end.
        ("s", "capture 4,"),
        ("e", "goes on"),
        ("A", "refused, the host takes"),
        ("vvvbget_leaf\r", "breakpoints ─"),
        ("c", "EL2 · get_leaf"),
        ("v/refused\r", "filter: refused"),
        ("E", "save these aborts as JSON to: aborts.json"),
    ] {
        send(&terminal, keys);
        seen(&terminal, words);
    }
    send(&terminal, &format!("\x15{}\r", file.display()));
    seen(&terminal, "saved ");
    // A run that does not end by itself is left at any moment.
    send(&terminal, "Dvvxc");
    seen(&terminal, "▶ running");
    send(&terminal, "q");
    let text = std::fs::read_to_string(&file).expect("it was written");
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["schema"], "inspector.abort/1");
    assert_eq!(document["target"], "demo");
    let aborts = document["aborts"].as_array().expect("an array");
    assert!(!aborts.is_empty());
    assert!(aborts.iter().all(|abort| abort["outcome"] == "refused"));
}

#[test]
fn terminal_runs_up_to_a_write_and_says_who_wrote() {
    let terminal = inspector(&["tui", "--background", "dark"], LOOK);
    seen(&terminal, "capture 1,");
    for (keys, words) in [
        ("9", "no abort followed"),
        ("ulock host is taken\r", " wrote lock host: "),
        ("Fcall\r", "unexpected argument 'call' found"),
        ("F--until mapped\r", "follows only --until mapped"),
        // The next one is stopped at when it is at its entry: its descriptor is not yet written.
        ("F\x15--ipa 0x42000000..0x43000000\r", "follows only --ipa"),
        ("a", "under way"),
        ("uthe descriptor of host-s2", "changes"),
        ("\r", " wrote the descriptor of host-s2 "),
    ] {
        send(&terminal, keys);
        seen(&terminal, words);
    }
    send(&terminal, "q");
}
