//! EL2's calls at each instruction of a stretch, beside those that gdb finds by the same call frame information.

use inspector::hypervisor;
use inspector::image::Images;
use inspector::model::{Frame, System};
use inspector::target::{self, Breakpoint, RunControl, RunState, Target};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

const PATIENT: Duration = Duration::from_secs(120);

/// A gdb that stays, since it takes seconds to read a kernel.
struct Gdb {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Gdb {
    fn start(commands: &[String]) -> Self {
        let mut child = Command::new("gdb-multiarch")
            .args(["-nx", "-q"])
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("gdb-multiarch is missing: install it (`cargo fixtures setup` does)");
        let mut gdb = Self {
            input: child.stdin.take().expect("it is piped"),
            output: BufReader::new(child.stdout.take().expect("it is piped")),
            child,
        };
        let settings = ["prompt", "confirm off", "pagination off", "width 0"];
        let settings = settings.map(|setting| format!("set {setting}"));
        gdb.tell(&[&settings, commands].concat());
        gdb
    }

    /// What it prints for these commands.
    fn tell(&mut self, commands: &[String]) -> Vec<String> {
        const END: &str = "that is all";
        let end = format!("echo \\n{END}\\n");
        for command in commands.iter().chain([&end]) {
            writeln!(self.input, "{command}").expect("gdb is there");
        }
        let lines = self.output.by_ref().lines();
        let lines = lines.map(|line| line.expect("gdb is there"));
        lines.take_while(|line| line != END).collect()
    }

    /// The addresses to return to, from the innermost one up to the entry, which gdb calls a signal handler where it is
    /// described.
    fn calls(&mut self, socket: &str) -> Vec<u64> {
        let connect = format!("target remote {socket}");
        let lines = self.tell(&[connect, "bt".to_owned(), "disconnect".to_owned()]);
        assert!(lines.iter().any(|line| line.starts_with("#0")), "{lines:?}");
        let frames = lines.iter().filter(|line| line.starts_with('#'));
        let own = frames.take_while(|line| !line.contains("<signal handler called>"));
        // What is inlined has no address, nor has the first frame where a line begins.
        let address = |line: &String| {
            let digits = line.split_whitespace().nth(1)?.strip_prefix("0x")?;
            u64::from_str_radix(digits, 16).ok()
        };
        own.skip(1).filter_map(address).collect()
    }
}

impl Drop for Gdb {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn run(target: &mut dyn Target) -> &mut dyn RunControl {
    target.run_control().expect("a machine")
}

/// A machine that stands still where EL2 begins to do something.
struct Stretch<'a> {
    machine: &'a fixtures::Machine,
    /// With call frame information, and maybe without.
    images: Vec<Images>,
    gdb: Gdb,
}

impl<'a> Stretch<'a> {
    /// Where the function is and how far from where it is linked is for gdb to know.
    fn new(
        machine: &'a fixtures::Machine,
        images: &[&Path],
        function: &str,
        gdb: impl FnOnce(&System) -> Vec<String>,
    ) -> Self {
        let open = |path: &Path| Images::open(&[path.to_path_buf()]).expect("a program");
        let mut images: Vec<_> = images.iter().copied().map(open).collect();
        // Whoever connects stops the machine, which then stands when he is gone without a word.
        let mut first = UnixStream::connect(machine.gdb().trim_start_matches("unix:")).unwrap();
        first.read_exact(&mut [0]).unwrap();
        drop(first);
        let mut target = target::open(machine.gdb(), PATIENT).unwrap();
        let system = hypervisor::capture(target.as_mut(), &mut images[0]).unwrap();
        let mut names = system.symbols.names();
        let name = names.find(|name| name.ends_with(function));
        let at = system.symbols.find(name.expect("it is no inlined one"));
        let at = Breakpoint::Code(at.expect("it has an address").start);
        let control = run(target.as_mut());
        control.insert(at).unwrap().expect("there is room");
        control.resume().unwrap();
        let state = control.wait(PATIENT).unwrap();
        assert!(matches!(state, RunState::Stopped { .. }), "{state:?}");
        control.remove(at).unwrap();
        Self {
            machine,
            images,
            gdb: Gdb::start(&gdb(&system)),
        }
    }

    /// Compares at each instruction. Returns at how many of them frame records alone say something else.
    fn follow(mut self, steps: usize) -> usize {
        let socket = self.machine.gdb().trim_start_matches("unix:").to_owned();
        let mut others = 0;
        for step in 0..steps {
            let mut target = target::open(self.machine.gdb(), PATIENT).unwrap();
            if step > 0 {
                run(target.as_mut()).step(0).unwrap();
            }
            let images = self.images.iter_mut();
            let systems: Vec<_> = images
                .map(|images| hypervisor::capture(target.as_mut(), images).unwrap())
                .collect();
            drop(target);
            let (ours, entry) = calls(&systems[0]);
            let theirs = self.gdb.calls(&socket).into_iter();
            let theirs: Vec<_> = theirs.take_while(|pc| Some(*pc) != entry).collect();
            let place = &systems[0].cpus[0].symbol;
            assert_eq!(ours, theirs, "after {step} steps, in {place:x?}");
            others += systems[1..]
                .iter()
                .filter(|alone| calls(alone).0 != ours)
                .count();
        }
        others
    }
}

/// The addresses to return to in EL2, and the one in the entry.
fn calls(system: &System) -> (Vec<u64>, Option<u64>) {
    let calls = system.cpus[0].calls.iter();
    let calls = calls.take_while(|frame| !frame.interrupted);
    let mut calls: Vec<_> = calls.map(|frame| frame.pc).collect();
    let entry = calls.pop();
    (calls, entry)
}

#[test]
fn calls_are_those_that_gdb_finds() {
    let mut machine = fixtures::Boot::hyp().unwrap().cpus(1).start().unwrap();
    machine.wait_for("round 2 done", PATIENT).unwrap();
    let hyp = machine.image().hyp.clone();
    let file = format!("file {}", hyp.display());
    let stretch = Stretch::new(&machine, &[&hyp], "handle_host_mem_abort", |_| vec![file]);
    stretch.follow(240);
}

/// What EL2 did when it faulted: here, to go on where nothing is mapped.
#[test]
fn a_fault_at_el2_leads_back_to_what_it_did() {
    const NOWHERE: u64 = 0x1000;
    let mut machine = fixtures::Boot::hyp().unwrap().cpus(1).start().unwrap();
    machine.wait_for("round 2 done", PATIENT).unwrap();
    let hyp = machine.image().hyp.clone();
    let file = format!("file {}", hyp.display());
    let mut stretch = Stretch::new(&machine, &[&hyp], "handle_host_mem_abort", |_| vec![file]);
    let socket = machine.gdb().trim_start_matches("unix:");
    stretch.gdb.tell(&[
        format!("target remote {socket}"),
        format!("set var $pc = {NOWHERE}"),
        "detach".to_owned(),
    ]);
    let mut images = stretch.images;
    machine.wait_for("hyp: stopped", PATIENT).unwrap();
    let mut target = target::open(machine.gdb(), PATIENT).unwrap();
    let system = hypervisor::capture(target.as_mut(), &mut images[0]).unwrap();
    let calls = &system.cpus[0].calls;
    let named = |frame: &Frame, name| {
        frame
            .symbol
            .as_ref()
            .is_some_and(|symbol| symbol.starts_with(name))
    };
    let place = |name| calls.iter().position(|frame| named(frame, name));
    let fault = calls
        .iter()
        .position(|frame| frame.interrupted && frame.pc == NOWHERE);
    let order = [
        place("unexpected_exception"),
        fault,
        place("host_sync"),
        place("host_sync_entry"),
    ];
    assert!(
        order.is_sorted() && order[0].is_some(),
        "{order:?} in {calls:x?}"
    );
    let host = calls.iter().rposition(|frame| frame.interrupted);
    assert!(host > order[3], "{calls:x?}");
}

/// A kernel's Image has names, but no call frame information.
fn linux(kernel: fixtures::Kernel) {
    const STEPS: usize = 80;
    /// It calls itself for each level of a table.
    const WALK: &str = "__kvm_nvhe___kvm_pgtable_walk";
    let boot = fixtures::Boot::linux(kernel).unwrap();
    // Where return addresses are signed, gdb's backtraces end.
    let boot = boot.cpu(fixtures::Cpu::CortexA72).cpus(1);
    let mut machine = boot.start().unwrap();
    machine
        .wait_for("mode initialized successfully", PATIENT)
        .unwrap();
    let files = machine.kernel().clone();
    let mut linked = Images::open(std::slice::from_ref(&files.vmlinux)).unwrap();
    let linked = linked.kernel().and_then(|kernel| kernel.symbol(WALK));
    let linked = linked.expect("EL2 has it").start;
    let stretch = Stretch::new(&machine, &[&files.vmlinux, &files.image], WALK, |system| {
        let at = system.symbols.find(WALK).expect("EL2 has it").start;
        let offset = at.wrapping_sub(linked);
        let vmlinux = files.vmlinux.display();
        vec![
            "set architecture aarch64".to_owned(),
            format!("add-symbol-file {vmlinux} -o {offset:#x}"),
        ]
    });
    let others = stretch.follow(STEPS);
    println!("{kernel:?}: frame records alone say something else at {others} of {STEPS}");
    assert!(others > 0);
}

#[test]
fn calls_in_linux_6_1_are_those_that_gdb_finds() {
    linux(fixtures::Kernel::Linux61);
}

#[test]
fn calls_in_linux_7_are_those_that_gdb_finds() {
    linux(fixtures::Kernel::Linux7);
}
