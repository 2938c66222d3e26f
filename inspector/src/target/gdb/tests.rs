//! The client against servers that are scripts: what they do hangs on what they are told, never on time.

mod bad_servers;
mod channel;
mod killed;
mod stops;

use super::*;
use crate::target::RunState;
use crate::target::rsp::{Decoder, Event, encode, to_hex};
use std::collections::{BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

/// Long enough never to pass in a test that works.
const PATIENT: Duration = Duration::from_secs(30);
/// For tests in which it has to pass.
const SHORT: Duration = Duration::from_millis(100);
/// The same where the server says something before, which on a busy computer takes a moment.
const SHORT_AFTER_WORDS: Duration = Duration::from_secs(1);

const RAM: Span = Span {
    start: 0x4000_0000,
    size: 0x10_0000,
};
const XML: &str = r#"<target><feature name="org.gnu.gdb.aarch64.core"><reg name="x0" bitsize="64"/>
    <reg name="pc" bitsize="64"/><reg name="cpsr" bitsize="32"/></feature>
    <xi:include href="sys.xml"/></target>"#;
const SYS_XML: &str = r#"<feature name="org.qemu.gdb.arm.sys.regs"><reg name="VTTBR_EL2" bitsize="64" regnum="200"/>
    <reg name="VBAR" bitsize="64"/></feature>"#;

/// A server in a thread; its result is all that it was sent.
struct Server {
    name: String,
    thread: JoinHandle<Vec<String>>,
}

impl Server {
    /// Sends `greeting` to the first client; then `script` is given each request and a place for raw bytes to answer with.
    /// It ends the connection by returning `false`.
    fn start(
        greeting: &[u8],
        mut script: impl FnMut(&str, &mut Vec<u8>) -> bool + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let greeting = greeting.to_vec();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&greeting).unwrap();
            let mut log = Vec::new();
            let mut decoder = Decoder::new(1 << 16);
            let mut buffer = [0; 4096];
            loop {
                let count = stream.read(&mut buffer).unwrap_or(0);
                if count == 0 {
                    return log;
                }
                let mut events = VecDeque::new();
                decoder.feed(&buffer[..count], &mut events);
                for event in events {
                    let request = match event {
                        Event::Packet(body) => String::from_utf8(body).unwrap(),
                        Event::Interrupt => "^C".to_owned(),
                        _ => continue,
                    };
                    let mut out = Vec::new();
                    let more = script(&request, &mut out);
                    log.push(request);
                    if stream.write_all(&out).is_err() || !more {
                        return log;
                    }
                }
            }
        });
        Self { name, thread }
    }

    fn attach(&self, timeout: Duration) -> Result<Gdb, TargetError> {
        let address = Address::parse(&self.name).unwrap().unwrap();
        Gdb::attach(&self.name, &address, timeout)
    }

    fn log(self) -> Vec<String> {
        self.thread.join().unwrap()
    }
}

/// As much of QEMU's server as the client asks for.
#[derive(Default)]
struct Qemu {
    physical: bool,
    breakpoints: BTreeSet<String>,
    /// The CPU that `Hc` selects, and those whose breakpoints `?` has cleared: one each time.
    selected: String,
    cleared: BTreeSet<String>,
    /// The second CPU is told of once: these servers have one connection.
    threads_told: bool,
}

impl Qemu {
    fn answer(&mut self, request: &str, out: &mut Vec<u8>) -> bool {
        let mut say = |body: &str| encode(body.as_bytes(), out);
        let xml = |text: &str, range: &str| {
            let (offset, length) = range.split_once(',').unwrap();
            let [offset, length] = [offset, length].map(|n| usize::from_str_radix(n, 16).unwrap());
            // Short parts, so that every description takes several requests.
            let end = text.len().min(offset + length.min(50));
            let kind = if end == text.len() { 'l' } else { 'm' };
            format!("{kind}{}", &text[offset..end])
        };
        match request {
            "qqemu.PhyMemMode" => say(if self.physical { "1" } else { "0" }),
            "Qqemu.PhyMemMode:0" | "Qqemu.PhyMemMode:1" => {
                self.physical = request.ends_with('1');
                say("OK");
            }
            "?" => {
                self.cleared.insert(self.selected.clone());
                if self.cleared.len() == 2 {
                    self.breakpoints.clear();
                }
                say("T05thread:01;");
            }
            "Hc01" | "Hc02" => {
                self.selected = request.to_owned();
                say("OK");
            }
            "qfThreadInfo" => say("m01"),
            "qsThreadInfo" => {
                let told = std::mem::replace(&mut self.threads_told, true);
                say(if told { "l" } else { "m02" });
            }
            "qC" => say("QC01"),
            "g" => say(&format!(
                "{}{}{}",
                "01".repeat(8),
                "02".repeat(8),
                "09000000"
            )),
            "pc8" => say("0000004100000000"),
            "pc9" => say("E14"),
            "vCont;c" => {}
            _ if request.starts_with("qSupported") => say("PacketSize=1000;qXfer:features:read+"),
            _ if request.starts_with('Z') => {
                self.breakpoints.insert(request.to_lowercase());
                say("OK");
            }
            _ if request.starts_with('z') => {
                let there = self.breakpoints.remove(request);
                say(if there { "OK" } else { "E22" });
            }
            _ if request.starts_with("qRcmd,") => {
                let text = format!(
                    "FlatView #0\n AS \"memory\", root: system\n  {:016x}-{:016x} (prio 0, ram): mach-virt.ram\n",
                    RAM.start,
                    RAM.last().unwrap()
                );
                let (first, second) = text.split_at(30);
                say(&format!("O{}", to_hex(first.as_bytes())));
                say(&format!("O{}", to_hex(second.as_bytes())));
                say("OK");
            }
            _ if request.starts_with("Hg") || request.starts_with("D;") => say("OK"),
            _ => {
                if let Some(range) = request.strip_prefix("qXfer:features:read:target.xml:") {
                    say(&xml(XML, range));
                } else if let Some(range) = request.strip_prefix("qXfer:features:read:sys.xml:") {
                    say(&xml(SYS_XML, range));
                } else if let Some(range) = request.strip_prefix('m') {
                    let (start, size) = range.split_once(',').unwrap();
                    let start = u64::from_str_radix(start, 16).unwrap();
                    let size = u64::from_str_radix(size, 16).unwrap();
                    assert!(size <= 0x800);
                    match self.physical {
                        true => say(&to_hex(&content(Span::new(start, size)))),
                        false => say("E14"),
                    }
                } else {
                    say("");
                }
            }
        }
        true
    }
}

fn packet(body: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(body.as_bytes(), &mut bytes);
    bytes
}

/// What physical memory holds.
fn content(span: Span) -> Vec<u8> {
    (span.start..span.start + span.size)
        .map(|address| (address ^ address >> 8) as u8)
        .collect()
}

fn qemu() -> Server {
    let mut qemu = Qemu::default();
    Server::start(b"", move |request, out| qemu.answer(request, out))
}

/// QEMU, but for one request.
fn qemu_that(
    request: &'static str,
    mut instead: impl FnMut(&mut Vec<u8>) -> bool + Send + 'static,
) -> Server {
    let mut qemu = Qemu::default();
    Server::start(b"", move |got, out| match got.starts_with(request) {
        true => instead(out),
        false => qemu.answer(got, out),
    })
}

/// The modes switched to, in order.
fn modes(log: &[String]) -> Vec<&str> {
    log.iter()
        .filter_map(|request| request.strip_prefix("Qqemu.PhyMemMode:"))
        .collect()
}

#[test]
fn memory_and_registers_are_read() {
    let server = qemu();
    let mut gdb = server.attach(PATIENT).unwrap();
    assert_eq!(gdb.cpu_count().unwrap(), 2);
    assert_eq!(gdb.ram().unwrap(), Some(vec![RAM]));
    assert_eq!(gdb.description().unwrap(), None);
    let registers = gdb.registers(1).unwrap();
    let expected = [
        ("x0", 0x0101_0101_0101_0101),
        ("pc", 0x0202_0202_0202_0202),
        ("cpsr", 9),
        ("VTTBR_EL2", 0x4100_0000),
    ];
    assert_eq!(
        registers,
        Registers(
            expected
                .map(|(name, value)| (name.to_owned(), value))
                .into()
        )
    );
    assert_eq!(registers.exception_level(), Some(2));

    let spans = [
        Span::new(RAM.start, 0x1801),
        Span::new(RAM.start + 0x5555, 1),
        Span::new(RAM.start, 0),
        Span::new(RAM.start + RAM.size - 8, 8),
    ];
    let answers = gdb.read_phys(&spans).unwrap();
    for (span, answer) in spans.iter().zip(answers) {
        assert_eq!(answer.unwrap(), content(*span), "{span}");
    }
    drop(gdb);
    let log = server.log();
    assert_eq!(modes(&log), ["1", "0"]);
    assert!(log.contains(&"Hg02".to_owned()));
    assert!(!log.iter().any(|request| request.starts_with('D')));
}

#[test]
fn what_is_no_ram_is_not_even_asked_for() {
    let server = qemu();
    let mut gdb = server.attach(PATIENT).unwrap();
    let spans = [
        Span::new(0x900_0000, 4),
        Span::new(RAM.start + RAM.size - 4, 8),
        Span::new(RAM.start, 8),
        Span::new(RAM.start - 1, 2),
        Span::new(u64::MAX, 1),
        Span::new(RAM.start, 1 << 40),
    ];
    let answers = gdb.read_phys(&spans).unwrap();
    for index in [0, 1, 3, 4] {
        assert_eq!(answers[index], Err(ReadError::Unbacked(spans[index])));
    }
    assert!(matches!(answers[5], Err(ReadError::Refused { .. })));
    assert_eq!(answers[2], Ok(content(spans[2])));
    drop(gdb);
    let log = server.log();
    let reads: Vec<_> = log
        .iter()
        .filter(|request| request.starts_with("m4"))
        .collect();
    assert_eq!(reads, ["m40000000,8"]);
}

#[test]
fn an_error_stays_with_its_range() {
    let mut qemu = Qemu::default();
    let server = Server::start(b"", move |request, out| match request {
        "m40001800,800" => {
            encode(b"E14", out);
            true
        }
        "m40003000,8" => {
            encode(b"00", out);
            true
        }
        _ => qemu.answer(request, out),
    });
    let mut gdb = server.attach(PATIENT).unwrap();
    let spans = [0x4000_0000, 0x4000_1000, 0x4000_3000, 0x4000_4000].map(|at| match at {
        0x4000_3000 => Span::new(at, 8),
        _ => Span::new(at, 0x1000),
    });
    let answers = gdb.read_phys(&spans).unwrap();
    assert_eq!(answers[0], Ok(content(spans[0])));
    assert_eq!(answers[3], Ok(content(spans[3])));
    let said = answers[1].as_ref().unwrap_err().to_string();
    assert_eq!(
        said,
        "physical 0x40001000..=0x40001fff is unreadable: QEMU answered `E14` for 0x40001800..=0x40001fff"
    );
    assert!(matches!(answers[2], Err(ReadError::Refused { .. })));
}

#[test]
fn many_requests_are_outstanding() {
    let mut qemu = Qemu::default();
    let mut held = Vec::new();
    // Nothing is answered before 16 reads are there: one at a time would wait for ever.
    let server = Server::start(b"", move |request, out| {
        if request.starts_with("m4") && held.len() < 16 {
            held.push(request.to_owned());
            if held.len() == 16 {
                return held.iter().all(|request| qemu.answer(request, out));
            }
            return true;
        }
        qemu.answer(request, out)
    });
    let mut gdb = server.attach(PATIENT).unwrap();
    let span = Span::new(RAM.start, RAM.size);
    assert_eq!(gdb.read_phys(&[span]).unwrap(), [Ok(content(span))]);
}

#[test]
fn a_running_machine_is_left_running() {
    let mut qemu = Qemu::default();
    let server = Server::start(&packet("T02thread:p01.01;"), move |request, out| {
        qemu.answer(request, out)
    });
    let mut gdb = server.attach(PATIENT).unwrap();
    let run = gdb.run_control().unwrap();
    assert!(run.found_running());
    assert!(matches!(run.state().unwrap(), RunState::Stopped { .. }));
    drop(gdb);
    assert_eq!(server.log().last().unwrap(), "D;1");
}

#[test]
fn a_request_lost_on_a_machine_resumed_by_somebody_else_is_asked_again() {
    let mut qemu = Qemu::default();
    let mut resumed = true;
    let server = Server::start(b"", move |request, out| {
        if resumed && request.starts_with("m4") {
            // Its first byte stopped the machine; the rest of it is gone.
            resumed = false;
            encode(b"T02thread:01;", out);
            return true;
        }
        qemu.answer(request, out)
    });
    let mut gdb = server.attach(PATIENT).unwrap();
    let spans = [0, 0x1000, 0x2000].map(|at| Span::new(RAM.start + at, 0x1000));
    let answers = gdb.read_phys(&spans).unwrap();
    assert_eq!(answers, spans.map(|span| Ok(content(span))));
    drop(gdb);
    assert_eq!(modes(&server.log()).last(), Some(&"0"));
}

#[test]
fn run_control() {
    let mut qemu = Qemu::default();
    let server = Server::start(b"", move |request, out| {
        match request {
            "^C" => encode(b"T02thread:02;", out),
            _ => return qemu.answer(request, out),
        }
        true
    });
    let mut gdb = server.attach(PATIENT).unwrap();
    let run = gdb.run_control().unwrap();
    assert!(!run.found_running());
    run.resume().unwrap();
    run.resume().unwrap();
    assert_eq!(run.state().unwrap(), RunState::Running);
    assert_eq!(
        run.wait(Duration::from_millis(1)).unwrap(),
        RunState::Running
    );
    let error = gdb.read_phys(&[RAM]).unwrap_err().to_string();
    assert!(error.contains("the machine runs"), "{error}");
    let run = gdb.run_control().unwrap();
    run.interrupt().unwrap();
    run.interrupt().unwrap();
    let stopped = RunState::Stopped {
        cpu: Some(1),
        reason: "signal 2".to_owned(),
    };
    assert_eq!(run.state().unwrap(), stopped);
    // Found stopped, so it is stopped again before we go.
    run.resume().unwrap();
    drop(gdb);
    let log = server.log();
    let runs: Vec<_> = log
        .iter()
        .filter(|request| matches!(request.as_str(), "vCont;c" | "^C"))
        .collect();
    assert_eq!(runs, ["vCont;c", "^C", "vCont;c", "^C"]);
}

#[test]
fn a_machine_stops_by_itself() {
    let mut qemu = Qemu::default();
    let server = Server::start(b"", move |request, out| {
        match request {
            "vCont;c" => encode(b"T05thread:01;", out),
            _ => return qemu.answer(request, out),
        }
        true
    });
    let mut gdb = server.attach(PATIENT).unwrap();
    let run = gdb.run_control().unwrap();
    run.resume().unwrap();
    let stopped = RunState::Stopped {
        cpu: Some(0),
        reason: "signal 5".to_owned(),
    };
    assert_eq!(run.wait(PATIENT).unwrap(), stopped);
    assert_eq!(run.state().unwrap(), stopped);
}

#[test]
fn a_machine_that_will_not_run_says_so() {
    let server = qemu_that("vCont;c", |out| {
        encode(b"E01", out);
        true
    });
    let mut gdb = server.attach(PATIENT).unwrap();
    let run = gdb.run_control().unwrap();
    run.resume().unwrap();
    let error = run.wait(PATIENT).unwrap_err().to_string();
    assert!(
        error.contains("letting the machine run: the server answered `E01`"),
        "{error}"
    );
}

/// The CPU does not come to it, and the first interrupt is not answered in time.
#[test]
fn a_step_that_was_broken_off_is_called_off_before_leaving() {
    let mut qemu = Qemu::default();
    let mut interrupts = 0;
    let server = Server::start(b"", move |request, out| {
        match request {
            "p1" => encode("02".repeat(8).as_bytes(), out),
            "vCont;s:02" => {}
            "^C" => {
                interrupts += 1;
                if interrupts > 1 {
                    encode(b"T02thread:01;", out);
                }
            }
            _ => return qemu.answer(request, out),
        }
        true
    });
    let mut gdb = server.attach(SHORT_AFTER_WORDS).unwrap();
    let error = gdb.run_control().unwrap().step(1).unwrap_err().to_string();
    assert!(error.contains("it did not stop within"), "{error}");
    drop(gdb);
    let log = server.log();
    let step = log.iter().position(|request| request == "vCont;s:02");
    let log: Vec<_> = log[step.unwrap()..].iter().map(String::as_str).collect();
    let called_off = ["vCont;s:02", "^C", "^C", "Hc02", "vCont;s:02", "^C"];
    assert_eq!(log[..6], called_off, "{log:?}");
}

/// A server whose steps of the instruction `word` lead nowhere; returns how many it was asked for.
fn steps_that_lead_nowhere(word: u32, stop: &'static str) -> usize {
    let mut qemu = Qemu::default();
    let server = Server::start(b"", move |request, out| {
        let answer = match request {
            "vCont;s:01" => stop.to_owned(),
            "m202020202020202,4" => to_hex(&word.to_le_bytes()),
            "p1" => "02".repeat(8),
            _ => return qemu.answer(request, out),
        };
        encode(answer.as_bytes(), out);
        true
    });
    let mut gdb = server.attach(PATIENT).unwrap();
    let pc = gdb.run_control().unwrap().step(0).unwrap();
    assert_eq!(pc, 0x0202_0202_0202_0202);
    drop(gdb);
    let log = server.log();
    let steps = log.iter().filter(|request| request.starts_with("vCont;s"));
    steps.count()
}

#[test]
fn a_branch_to_itself_is_stepped_once_and_other_instructions_some_times() {
    let stop = "T05thread:01;";
    // b, b.ne, cbz x3, cbnz w3, tbz w3 #4, tbnz x3 #36: each with an offset of 0.
    for branch in [
        0x1400_0000,
        0x5400_0001,
        0xb400_0003,
        0x3500_0003,
        0x3620_0003,
        0xb720_0003,
    ] {
        assert_eq!(steps_that_lead_nowhere(branch, stop), 1, "{branch:#x}");
    }
    // nop, b and tbz to the next instruction.
    for other in [0xd503_201f, 0x1400_0001, 0x3620_0023] {
        assert_eq!(steps_that_lead_nowhere(other, stop), 4, "{other:#x}");
    }
    // A watchpoint that is not ours, of which QEMU tells now and then.
    assert_eq!(
        steps_that_lead_nowhere(0xd503_201f, "T05thread:01;watch:40;"),
        4
    );
}
