use super::*;
use crate::hypervisor::testing::{HYP, Machine, RAM, cpu};
use crate::model::{Frame, HolderSource};

const HOST: u64 = RAM.start + 0x8000;
const VM: u64 = RAM.start + 0x9000;
const CODE: u64 = RAM.start + 0x1_0000;
const CURRENT: u64 = RAM.start + 0x2_0000;
const AT_EL2: u64 = 0x3c9;
const AT_EL1: u64 = 0x3c5;

fn place(kind: Kind, name: &str, pa: u64) -> Place {
    Place {
        kind,
        name: name.to_owned(),
        symbol: format!("{NVHE}{name}"),
        pa,
    }
}

/// A lock loop at `CODE`, the host's lock as given, and the VM's lock held.
fn machine(owner: u16, next: u16) -> Machine {
    let mut machine = Machine::new();
    let code = [0xd503_205f_u32, 0x485f_fc62, 0x4a40_4041, 0x35ff_ffa1];
    let code: Vec<_> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    machine.fill(CODE, &code);
    machine.put(HOST, &[u64::from(owner) | u64::from(next) << 16]);
    machine.put(VM, &[0x0001_0000]);
    machine
}

/// A CPU at EL2 that waits for the host's lock with a ticket.
fn waiter(number: usize, ticket: u64) -> Cpu {
    let lock = HOST + HYP;
    let word = ticket << 16;
    cpu(
        number,
        &[
            ("cpsr", AT_EL2),
            ("pc", CODE + HYP + 4),
            ("x3", lock),
            ("x0", word),
        ],
    )
}

/// A CPU elsewhere, in a function.
fn busy(number: usize, cpsr: u64, function: &str) -> Cpu {
    let mut cpu = cpu(number, &[("cpsr", cpsr), ("pc", CODE + HYP + 0x400)]);
    cpu.symbol = Some(format!("{NVHE}memset+0x8"));
    let symbol = Some(format!("{NVHE}{function}+0x40"));
    cpu.calls = vec![Frame::returning(CODE + HYP + 0x800, symbol)];
    cpu
}

/// The locks at these places, and what is wrong with them.
fn read_places(
    machine: &mut Machine,
    places: Vec<Place>,
    cpus: &[Cpu],
    current: Option<u64>,
) -> (Vec<Lock>, Vec<String>) {
    let layout = Layout {
        places,
        of_vm: None,
        of_vm_pool: None,
        current,
        note: None,
    };
    let mut memory = machine.memory();
    let words = memory.complete(|memory| layout.read(memory, &[], cpus));
    let mut problems = Vec::new();
    let locks = words.expect("the link holds").locks(cpus, &mut problems);
    (locks, problems)
}

fn read_from(machine: &mut Machine, cpus: &[Cpu], current: Option<u64>) -> Vec<Lock> {
    let places = vec![
        place(Kind::Host, "host", HOST),
        place(Kind::Vm(VM), "vm:0x1000", VM),
    ];
    let (locks, problems) = read_places(machine, places, cpus, current);
    assert_eq!(problems, [""; 0]);
    locks
}

/// Who holds the host's lock, and by what that is known.
fn holder(owner: u16, next: u16, cpus: &[Cpu]) -> Option<(u64, String)> {
    let mut locks = read_from(&mut machine(owner, next), cpus, None);
    let holder = locks.remove(0).holder?;
    assert_eq!(holder.how, HolderSource::Inferred);
    Some((holder.cpu, holder.by?))
}

#[test]
fn the_holder_is_at_el2_and_does_not_wait() {
    let because = |cpu, by: &str| Some((cpu, by.to_owned()));
    let in_abort = |number| busy(number, AT_EL2, "host_stage2_idmap_locked");
    let elsewhere = |number| busy(number, AT_EL2, "handle_trap");
    let at_el1 = |number| busy(number, AT_EL1, "host_stage2_idmap_locked");
    for (owner, next, cpus, found) in [
        // Free.
        (5, 5, vec![in_abort(0)], None),
        (
            5,
            7,
            vec![waiter(0, 6), in_abort(1)],
            because(1, "CPU 1 is at EL2 in host_stage2_idmap_locked+0x40"),
        ),
        (
            5,
            6,
            vec![elsewhere(0), in_abort(1)],
            because(1, "CPU 1 is at EL2 in host_stage2_idmap_locked+0x40"),
        ),
        (
            5,
            7,
            vec![waiter(0, 6), elsewhere(1), at_el1(2)],
            because(1, "of the CPUs at EL2, only CPU 1 does not wait for it"),
        ),
        (
            5,
            6,
            vec![waiter(0, 5), in_abort(1)],
            because(0, "CPU 0 waited, and its ticket 5 is served"),
        ),
        // Not clear.
        (5, 6, vec![in_abort(0), in_abort(1)], None),
        (5, 6, vec![elsewhere(0), elsewhere(1)], None),
        (5, 6, vec![at_el1(0)], None),
        (5, 6, vec![waiter(0, 6)], None),
    ] {
        assert_eq!(
            holder(owner, next, &cpus),
            found,
            "{owner}/{next} {cpus:#x?}"
        );
    }
}

#[test]
fn a_place_under_the_lock_is_named() {
    let cpus = [busy(0, AT_EL2, "host_stage2_idmap_locked")];
    let mut locks = read_from(&mut machine(5, 6), &cpus, None);
    let holder = locks.remove(0).holder.expect("it is clear");
    assert_eq!(holder.pc, Some(CODE + HYP + 0x800));
    assert_eq!(
        holder.symbol.as_deref(),
        Some("__kvm_nvhe_host_stage2_idmap_locked+0x40")
    );
}

#[test]
fn a_cpu_says_whose_vms_lock_it_has() {
    let mut machine = machine(5, 5);
    machine.put(CURRENT + 0x1000, &[VM + HYP]);
    let mut cpus = [busy(0, AT_EL2, "a"), busy(1, AT_EL2, "b")];
    for cpu in &mut cpus {
        let own = cpu.number as u64 * 0x1000;
        cpu.registers.0.insert("TPIDR_EL2".to_owned(), own);
    }
    let locks = read_from(&mut machine, &cpus, Some(CURRENT));
    let holder = locks[1].holder.as_ref().expect("it says so");
    assert_eq!(
        (holder.cpu, holder.by.as_deref()),
        (1, Some("__current_vm of CPU 1 is this VM"))
    );
}

#[test]
fn a_lock_that_cannot_be_read_is_said() {
    let mut machine = Machine::new();
    let places = vec![place(Kind::Hyp, "hyp", 0x1000)];
    let (locks, problems) = read_places(&mut machine, places, &[], None);
    assert_eq!(locks[0].tickets, None);
    assert_eq!(problems.len(), 1);
}

/// Registers that lead nowhere, and a PC that is nowhere, keep nobody from being looked at.
#[test]
fn garbage_in_registers_is_no_waiter() {
    let odd = |pc| cpu(0, &[("cpsr", AT_EL2), ("pc", pc), ("x3", u64::MAX)]);
    for pc in [
        0,
        3,
        u64::MAX,
        u64::MAX - 3,
        CODE + HYP,
        RAM.start + RAM.size + HYP - 4,
    ] {
        let found = holder(5, 6, &[odd(pc)]);
        assert_eq!(found.map(|(cpu, _)| cpu), Some(0), "{pc:#x}");
    }
}
