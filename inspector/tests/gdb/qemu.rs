//! The gdb target against a real QEMU. Its machine needs no image: without one the CPUs run in circles.
//!
//! QEMU's own QMP says what state the machine is in, independently of the gdb server.

use inspector::addr::Span;
use inspector::target::gdb::{Address, Gdb};
use inspector::target::snapshot::{self, Snapshot};
use inspector::target::{self, ReadError, Recorder, RunState, Target, rsp};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Long enough for a busy computer, also where Linux boots up to a stop; no test that passes waits for it.
pub(crate) const PATIENT: Duration = fixtures::LIMIT;
/// Where `virt` has its RAM; QEMU puts the device tree at its start.
const RAM: u64 = 0x4000_0000;
const DEVICE_TREE_MAGIC: [u8; 4] = [0xd0, 0x0d, 0xfe, 0xed];

/// A QEMU that ends with the test.
pub(crate) struct Qemu {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    socket: String,
    _folder: TempDir,
}

impl Qemu {
    pub(crate) fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("gdb").display().to_string();
        let mut child = Command::new("qemu-system-aarch64")
            .args([
                "-M",
                "virt,virtualization=on,gic-version=3",
                "-cpu",
                "cortex-a57",
                "-smp",
                "2",
            ])
            .args([
                "-m",
                "128M",
                "-nic",
                "none",
                "-nodefaults",
                "-display",
                "none",
                "-qmp",
                "stdio",
            ])
            .arg("-gdb")
            .arg(format!("unix:{socket},server=on,wait=off"))
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-system-aarch64 is missing: install it (`cargo fixtures setup` does)");
        let mut qemu = Self {
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
            socket,
            _folder: folder,
        };
        // Answered only once everything is set up, the gdb server included.
        qemu.qmp("qmp_capabilities");
        qemu
    }

    /// A command and its reply; events are skipped.
    pub(crate) fn qmp(&mut self, command: &str) -> String {
        writeln!(self.stdin, "{{\"execute\":\"{command}\"}}").unwrap();
        let mut line = String::new();
        while !line.starts_with("{\"return\"") {
            line.clear();
            let count = self.stdout.read_line(&mut line).unwrap();
            assert!(count > 0, "QEMU ended");
        }
        line
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.qmp("query-status").contains("\"running\": true")
    }

    pub(crate) fn name(&self) -> String {
        format!("unix:{}", self.socket)
    }

    pub(crate) fn attach(&self) -> Gdb {
        let address = Address::Unix(self.socket.clone().into());
        Gdb::attach(&self.name(), &address, PATIENT).unwrap()
    }

    /// A client without manners: sends bytes, reads until `answer`, and is gone as if killed.
    pub(crate) fn killed_client(&self, bytes: &[u8], answer: &str) {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENT)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut got = Vec::new();
        while !String::from_utf8_lossy(&got).contains(answer) {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            got.extend(byte);
        }
    }

    /// Asks QEMU itself, as a fresh client on a machine that stands.
    fn assert_virtual_mode(&self) {
        self.killed_client(&packet("qqemu.PhyMemMode"), "$0#30");
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn packet(body: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    rsp::encode(body.as_bytes(), &mut bytes);
    bytes
}

fn read(target: &mut dyn Target, start: u64, size: u64) -> Result<Vec<u8>, ReadError> {
    target
        .read_phys(&[Span::new(start, size)])
        .unwrap()
        .remove(0)
}

#[test]
fn a_paused_machine_is_read_and_stays_paused() {
    let mut qemu = Qemu::start(&["-S"]);
    let mut gdb = qemu.attach();
    assert!(!gdb.run_control().unwrap().found_running());
    assert_eq!(gdb.notes(), [""; 0]);
    assert_eq!(gdb.cpu_count().unwrap(), 2);
    assert_eq!(gdb.ram().unwrap(), Some(vec![Span::new(RAM, 128 << 20)]));
    assert_eq!(gdb.description().unwrap(), None);
    for cpu in 0..2 {
        let registers = gdb.registers(cpu).unwrap();
        assert_eq!(registers.exception_level(), Some(2), "CPU {cpu}");
        for name in [
            "pc",
            "sp",
            "x30",
            "VTTBR_EL2",
            "HCR_EL2",
            "TTBR0_EL2",
            "VBAR_EL1",
            "SCTLR_EL1",
        ] {
            assert!(registers.get(name).is_some(), "{name}");
        }
        // The affinity in MPIDR is the CPU's number, so the CPUs are told apart.
        assert_eq!(registers.get("VMPIDR_EL2").unwrap() & 0xff, cpu as u64);
    }
    assert_eq!(read(&mut gdb, RAM, 4), Ok(DEVICE_TREE_MAGIC.to_vec()));
    let much = read(&mut gdb, RAM, 4 << 20).unwrap();
    assert_eq!(much.len(), 4 << 20);
    assert_eq!(much[..4], DEVICE_TREE_MAGIC);
    drop(gdb);
    assert!(!qemu.is_running());
    qemu.assert_virtual_mode();
}

#[test]
fn neither_devices_nor_holes_are_read() {
    let qemu = Qemu::start(&["-S"]);
    let mut gdb = qemu.attach();
    // The UART, flash, below RAM, across its end, far away.
    for (start, size) in [
        (0x900_0000, 4),
        (0, 8),
        (RAM - 8, 16),
        (RAM + (128 << 20) - 4, 8),
        (u64::MAX, 1),
    ] {
        let span = Span::new(start, size);
        assert_eq!(read(&mut gdb, start, size), Err(ReadError::Unbacked(span)));
    }
}

#[test]
fn a_running_machine_goes_on_running() {
    let mut qemu = Qemu::start(&[]);
    assert!(qemu.is_running());
    for _ in 0..3 {
        let mut gdb = qemu.attach();
        assert!(gdb.run_control().unwrap().found_running());
        assert!(!qemu.is_running());
        assert_eq!(read(&mut gdb, RAM, 4).unwrap().len(), 4);
        drop(gdb);
        assert!(qemu.is_running());
    }
}

#[test]
fn the_machine_runs_and_stops_on_demand() {
    let mut qemu = Qemu::start(&["-S"]);
    let mut gdb = qemu.attach();
    let run = gdb.run_control().unwrap();
    run.resume().unwrap();
    assert_eq!(run.state().unwrap(), RunState::Running);
    assert!(qemu.is_running());
    assert_eq!(
        run.wait(Duration::from_millis(20)).unwrap(),
        RunState::Running
    );
    run.interrupt().unwrap();
    assert!(matches!(
        run.state().unwrap(),
        RunState::Stopped { cpu: Some(_), .. }
    ));
    assert!(!qemu.is_running());
    assert_eq!(read(&mut gdb, RAM, 4).unwrap().len(), 4);

    // Found paused, so it is paused again even when it runs as we leave.
    gdb.run_control().unwrap().resume().unwrap();
    assert!(qemu.is_running());
    drop(gdb);
    assert!(!qemu.is_running());
}

#[test]
fn a_machine_found_running_that_runs_again_is_left_alone() {
    let mut qemu = Qemu::start(&[]);
    let mut gdb = qemu.attach();
    gdb.run_control().unwrap().resume().unwrap();
    drop(gdb);
    assert!(qemu.is_running());
}

#[test]
fn a_machine_resumed_from_qemus_monitor_is_read_all_the_same() {
    let mut qemu = Qemu::start(&["-S"]);
    let mut gdb = qemu.attach();
    for size in [4, 0x10_0000] {
        // A byte of the client's that QEMU has not read yet, the last acknowledgement, would stop the machine at once.
        while !qemu.is_running() {
            qemu.qmp("cont");
        }
        assert_eq!(read(&mut gdb, RAM, size).unwrap()[..4], DEVICE_TREE_MAGIC);
        assert!(!qemu.is_running());
    }
    qemu.qmp("cont");
    assert!(gdb.registers(1).unwrap().get("pc").is_some());
    drop(gdb);
    qemu.assert_virtual_mode();
}

#[test]
fn what_a_killed_client_left_is_repaired() {
    let mut qemu = Qemu::start(&["-S"]);
    // Physical mode on, and killed in the middle of sending the next request.
    qemu.killed_client(&packet("Qqemu.PhyMemMode:1"), "$OK#9a");
    qemu.killed_client(b"+$m40000000,", "");
    let mut gdb = qemu.attach();
    let notes = gdb.notes();
    assert!(
        matches!(notes.as_slice(), [note, _] if note.contains("earlier client was killed")),
        "{notes:?}"
    );
    assert_eq!(read(&mut gdb, RAM, 4), Ok(DEVICE_TREE_MAGIC.to_vec()));
    drop(gdb);
    qemu.assert_virtual_mode();
    assert_eq!(qemu.attach().notes(), [""; 0]);
    assert!(!qemu.is_running());
}

#[test]
fn thread_ids_of_an_earlier_multiprocess_client_are_understood() {
    let mut qemu = Qemu::start(&["-S"]);
    qemu.killed_client(&packet("qSupported:multiprocess+"), "PacketSize");
    qemu.qmp("cont");
    let mut gdb = qemu.attach();
    assert!(gdb.run_control().unwrap().found_running());
    assert_eq!(
        gdb.registers(1).unwrap().get("VMPIDR_EL2").unwrap() & 0xff,
        1
    );
    drop(gdb);
    assert!(qemu.is_running());
}

#[test]
fn a_second_client_is_told_of_the_first() {
    let qemu = Qemu::start(&["-S"]);
    let first = qemu.attach();
    let error = target::open(&qemu.name(), Duration::from_millis(200))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("is another client attached?"), "{error}");
    drop(first);
    assert!(target::open(&qemu.name(), PATIENT).is_ok());
}

#[test]
fn an_ended_qemu_is_a_lost_link() {
    let mut qemu = Qemu::start(&["-S"]);
    let mut gdb = qemu.attach();
    qemu.child.kill().unwrap();
    qemu.child.wait().unwrap();
    let error = gdb.read_phys(&[Span::new(RAM, 4)]).unwrap_err().to_string();
    assert!(
        error.contains("link lost while reading physical memory"),
        "{error}"
    );
    drop(gdb);
    let error = target::open(&qemu.name(), PATIENT)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("nothing listens there: is QEMU running"),
        "{error}"
    );
}

#[test]
fn a_snapshot_answers_as_qemu_did() {
    let qemu = Qemu::start(&["-S"]);
    let mut gdb = qemu.attach();
    let spans = [
        Span::new(RAM, 0x2345),
        Span::new(RAM + 0x8000, 8),
        Span::new(0x900_0000, 4),
        Span::new(RAM + (128 << 20) - 4, 8),
        Span::new(RAM, 2 << 30),
    ];
    let mut recorder = Recorder::new(&mut gdb);
    let live = recorder.read_phys(&spans).unwrap();
    let contents = recorder.finish().unwrap();
    assert_eq!(contents.found_running, Some(false));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qemu.core");
    snapshot::write(&path, &contents).unwrap();
    let mut snapshot = Snapshot::open(path.to_str().unwrap()).unwrap();
    assert_eq!(snapshot.read_phys(&spans).unwrap(), live);
    assert_eq!(snapshot.ram().unwrap(), gdb.ram().unwrap());
    for cpu in 0..2 {
        assert_eq!(
            snapshot.registers(cpu).unwrap(),
            gdb.registers(cpu).unwrap()
        );
    }
}
