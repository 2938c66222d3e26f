//! An unmodified Linux from before its pKVM is up.

use super::{insert, next, pc, run};
use crate::qemu::PATIENT;
use fixtures::{Boot, Cpu, Kernel};
use inspector::target::{self, Breakpoint, Target};
use std::fs;

const CPUS: usize = 2;
/// Host aborts that are followed.
const MANY: usize = 40;

/// Where the kernel is linked.
fn link(names: &str, name: &str) -> u64 {
    let line = names
        .lines()
        .find(|line| line.ends_with(&format!(" {name}")));
    let address = line.and_then(|line| line.split(' ').next());
    u64::from_str_radix(address.expect("the kernel has it"), 16).unwrap()
}

fn register(target: &mut dyn Target, cpu: usize, name: &str) -> u64 {
    target.registers(cpu).unwrap().get(name).expect(name)
}

/// Both CPUs' first aborts among them; each begins at its vector and comes to the handler.
#[test]
fn host_aborts_of_linux_7_are_stopped_at() {
    let boot = Boot::linux(Kernel::Linux7).expect("the kernel is there");
    let boot = boot.cpu(Cpu::Max).cpus(CPUS as u32).kaslr(false).paused();
    let machine = boot.start().expect("QEMU starts");
    let names = fs::read_to_string(&machine.kernel().system_map).expect("it is beside vmlinux");
    let mut target = target::open(machine.gdb(), PATIENT).unwrap();
    let target = target.as_mut();

    // It runs on every CPU, at EL1, just before the host's stage 2 is switched on there.
    let finalize = Breakpoint::Code(link(&names, "_kvm_host_prot_finalize"));
    insert(target, finalize);
    let (cpu, _) = next(target);
    assert_eq!(target.registers(cpu).unwrap().exception_level(), Some(1));
    run(target).remove(finalize).unwrap();

    let vectors = register(target, cpu, "VBAR_EL2");
    let offset = vectors.wrapping_sub(link(&names, "__kvm_nvhe___kvm_hyp_host_vector"));
    let handler = link(&names, "__kvm_nvhe_handle_host_mem_abort").wrapping_add(offset);
    insert(target, Breakpoint::Code(handler));
    let mut aborts = [0; CPUS];
    while aborts.contains(&0) || aborts.iter().sum::<usize>() < MANY {
        next(target);
        for (cpu, count) in aborts.iter_mut().enumerate() {
            if pc(target, cpu) != handler {
                continue;
            }
            *count += 1;
            let esr = register(target, cpu, "ESR_EL2");
            assert!(matches!(esr >> 26, 0x20 | 0x24), "{esr:#x}");
        }
    }

    // One abort's way back to the host, step by step. A CPU that stands inside EL2 might hold the lock that it takes.
    let cpu = loop {
        let (cpu, _) = next(target);
        let other = target.registers(1 - cpu).unwrap();
        if pc(target, cpu) == handler && other.exception_level() != Some(2) {
            break cpu;
        }
    };
    let before = [0, 1].map(|cpu| pc(target, cpu));
    let mut steps = 0;
    while target.registers(cpu).unwrap().exception_level() == Some(2) {
        run(target).step(cpu).unwrap();
        steps += 1;
        assert!(steps < 10_000, "it never returns");
    }
    assert!(steps > 20, "{steps}");
    assert_eq!(pc(target, 1 - cpu), before[1 - cpu]);
}
