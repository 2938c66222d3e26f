//! hyp at work on four CPUs, through QEMU's gdb server and through its own channel.

use super::{insert, next, pc, run};
use crate::qemu::PATIENT;
use crate::qemu_sessions::program::Program;
use fixtures::qemu::{Boot, Cpu, Machine};
use inspector::addr::Span;
use inspector::hypervisor;
use inspector::image::Images;
use inspector::model::Frame;
use inspector::target::{self, Breakpoint, Target};

const CPUS: usize = 4;
/// Stops that a test follows.
const MANY: usize = 24;

struct Hyp {
    machine: Machine,
    program: Program,
}

impl Hyp {
    /// One whose host has done some rounds: all of EL2's code has run.
    fn start(cpu: Cpu) -> Self {
        let boot = Boot::hyp().expect("the image builds");
        let boot = boot.cpu(cpu).cpus(CPUS as u32).channel();
        let mut machine = boot.start().expect("QEMU starts");
        machine.wait_for("round 2 done", PATIENT).expect("it runs");
        let program = Program::read(&machine.image().hyp);
        Self { machine, program }
    }

    /// By QEMU's gdb server and by the channel, one after the other; then the host goes on.
    fn by_both_roads(mut self, follow: impl Fn(&Program, &mut dyn Target)) {
        for road in 0..2 {
            let name = [self.machine.gdb(), self.machine.channel()][road].to_owned();
            let mut target = target::open(&name, PATIENT).expect("it attaches");
            assert!(run(target.as_mut()).found_running());
            follow(&self.program, target.as_mut());
            assert_ne!(run(target.as_mut()).breakpoints(), [], "left as they are");
            drop(target);
            let log = self.machine.log();
            let rounds = log.matches(" done").count() + 3;
            let line = format!("round {rounds} done");
            self.machine.wait_for(&line, PATIENT).expect("it goes on");
        }
    }
}

fn all_pcs(target: &mut dyn Target) -> Vec<u64> {
    let registers = target.all_registers().unwrap();
    registers.iter().map(|cpu| cpu.get("pc").unwrap()).collect()
}

/// In code that CPUs have executed often before the breakpoint is set.
#[test]
fn a_function_is_stopped_at_and_stepped_through() {
    Hyp::start(Cpu::CortexA57).by_both_roads(|program, target| {
        let entry = program.address("hyp::mem_protect::<impl hyp::init::Hyp>::pkvm_host_share_hyp");
        insert(target, Breakpoint::Code(entry));
        for _ in 0..3 {
            let (cpu, _) = next(target);
            assert_eq!(pc(target, cpu), entry);
            assert_eq!(target.registers(cpu).unwrap().exception_level(), Some(2));
            let mut expected = all_pcs(target);
            for _ in 0..40 {
                let from = expected[cpu];
                expected[cpu] = run(target).step(cpu).unwrap();
                assert_eq!(all_pcs(target), expected, "only CPU {cpu} has moved");
                // Where a register says, anywhere.
                let indirect = program.instruction(from) & 0xfe00_0000 == 0xd600_0000;
                assert!(
                    indirect || program.leads(from, expected[cpu]) || is_attempt(program, from),
                    "{from:#x} does not lead to {:#x}",
                    expected[cpu]
                );
            }
        }
    });
}

/// LDXR or LDAXR: through hyp's channel one step leads behind its store.
fn is_attempt(program: &Program, address: u64) -> bool {
    program.instruction(address) & 0x3fff_7c00 == 0x085f_7c00
}

#[test]
fn all_cpus_stop_where_all_come() {
    Hyp::start(Cpu::Max).by_both_roads(|program, target| {
        let entry = program.address("host_sync");
        insert(target, Breakpoint::Code(entry));
        let mut arrivals = [0; CPUS];
        while arrivals.iter().any(|count| *count < MANY) {
            let (cpu, _) = next(target);
            let pcs = all_pcs(target);
            assert_eq!(pcs[cpu], entry);
            for (cpu, pc) in pcs.into_iter().enumerate() {
                arrivals[cpu] += usize::from(pc == entry);
            }
        }
    });
}

/// A hypercall is followed through EL2's entry to the host's function that made it.
#[test]
fn a_hypercall_has_the_calls_of_el2_and_of_the_host() {
    let hyp = Hyp::start(Cpu::Max);
    let image = hyp.machine.image().clone();
    let files = [image.hyp, image.host];
    hyp.by_both_roads(|program, target| {
        let entry = program.address("hyp::mem_protect::<impl hyp::init::Hyp>::pkvm_host_share_hyp");
        insert(target, Breakpoint::Code(entry));
        for _ in 0..3 {
            let (stopped, _) = next(target);
            let mut images = Images::open(&files).unwrap();
            let mut system = hypervisor::capture(target, &mut images).unwrap();
            // The compiler may inline one into another.
            hypervisor::add_lines(&mut system, &mut images);
            let calls = &system.cpus[stopped].calls;
            let named = |name: &str| {
                let has = |frame: &Frame| frame.symbol.as_deref().unwrap_or("-").contains(name);
                let found = calls.iter().position(has);
                found.unwrap_or_else(|| panic!("no {name} in {calls:x?}"))
            };
            let host = calls.iter().position(|frame| frame.interrupted).unwrap();
            let order = [
                named("handle_trap"),
                named("host_sync+"),
                host,
                named("host_main+"),
                named("host_start+"),
            ];
            assert!(order.is_sorted(), "{calls:x?}");
            let elr = system.cpus[stopped].registers.get("ELR_EL2");
            assert_eq!(Some(calls[host].pc), elr);
            assert!(
                calls.iter().all(|frame| frame.symbol.is_some()),
                "{calls:x?}"
            );
            assert_eq!(calls.len(), order[4] + 1, "nobody called it: {calls:x?}");
        }
    });
}

/// The word of the lock that all CPUs want, which on this CPU model is changed by load-exclusives and their stores.
#[test]
fn every_change_of_a_lock_is_seen_before_it_is_done() {
    Hyp::start(Cpu::CortexA57).by_both_roads(|program, target| {
        let lock = host_lock(program, target);
        let word = Span::new(lock + program.address("OFFSET"), 4);
        insert(target, Breakpoint::Write(word));
        let read = |target: &mut dyn Target| {
            let bytes = target.read_phys(&[Span::new(lock, 4)]).unwrap().remove(0);
            u32::from_le_bytes(bytes.unwrap().try_into().unwrap())
        };
        let mut changes = 0;
        while changes < MANY {
            let before = read(target);
            let (cpu, reason) = next(target);
            assert!(reason.starts_with("about to write to "), "{reason}");
            assert_eq!(target.registers(cpu).unwrap().exception_level(), Some(2));
            if changes > 0 {
                assert_eq!(read(target), before, "a change was missed");
            }
            let old = read(target);
            run(target).step(cpu).unwrap();
            let new = read(target);
            // A store-exclusive may fail; then it is tried again.
            if new != old {
                let taken = old.wrapping_add(1 << 16);
                let given_back = old & 0xffff_0000 | old.wrapping_add(1) & 0xffff;
                assert!([taken, given_back].contains(&new), "{old:#x} {new:#x}");
                changes += 1;
            }
        }
    });
}

/// The physical address of the host's lock.
fn host_lock(program: &Program, target: &mut dyn Target) -> u64 {
    let mut images = Images::open(std::slice::from_ref(&program.path)).unwrap();
    let system = hypervisor::capture(target, &mut images).unwrap();
    let lock = system.locks.iter().find(|lock| lock.name == "host");
    lock.expect("it is known").pa
}
