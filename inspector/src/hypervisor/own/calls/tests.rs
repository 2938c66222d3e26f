use super::*;
use crate::hypervisor::calls::MAX_FRAMES;
use crate::hypervisor::testing::{HYP, Machine, RAM, cpu};
use crate::image::{Rules, Symbol};
use proptest::prelude::*;

/// Functions of EL2 and of the host.
const CODE: u64 = RAM.start + HYP + 0x8000;
const ENTRY: u64 = CODE;
const SYNC: u64 = CODE + 0x100;
const TRAP: u64 = CODE + 0x200;
const OWN_ENTRY: u64 = CODE + 0x300;
const REPORT: u64 = CODE + 0x400;
const HOST_CODE: u64 = RAM.start + 0xc000;
const HYPERCALL: u64 = HOST_CODE;
const ROUND: u64 = HOST_CODE + 0x100;
const START: u64 = HOST_CODE + 0x200;

/// EL2's tables for the stack, the stack's memory, and where it is mapped: four pages, and nothing around them.
const STACK_TABLES: [u64; 2] = [RAM.start + 0x2000, RAM.start + 0x3000];
const STACK_MEMORY: u64 = RAM.start + 0x2_0000;
const STACK_SIZE: u64 = 0x4000;
const STACK: u64 = 0x30_0000_4000;
const TOP: u64 = STACK + STACK_SIZE;
/// The frame records of `handle_trap` and `host_sync`.
const TRAP_RECORD: u64 = TOP - FRAME - 0x80;
const SYNC_RECORD: u64 = TOP - FRAME - 0x20;

/// The host's frame records, as it and the machine address them.
const HOST_STACK: u64 = RAM.start + 0x3_0000;
/// The host's own tables, and what they map the RAM at.
const HOST_ROOT: u64 = RAM.start + 0x4000;
const HOST_VA: u64 = 0x8000_0000;

const EL2H: u64 = 0x3c9;
const EL1H: u64 = 0x3c5;
const HVC: u64 = HYPERCALL + 0x10;

fn symbols() -> Symbols {
    let list = [
        ("host_sync_entry", ENTRY),
        ("host_sync", SYNC),
        ("handle_trap", TRAP),
        ("own_sync_entry", OWN_ENTRY),
        ("unexpected_exception", REPORT),
        ("hypercall", HYPERCALL),
        ("round", ROUND),
        ("host_start", START),
    ];
    let symbol = |(name, address): (&str, u64)| Symbol {
        name: name.to_owned(),
        address,
        size: 0x100,
    };
    Symbols::new(list.map(symbol).into())
}

/// `handle_trap` runs for the host's `hypercall`, which `round` called.
fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.put(RAM.start + (STACK >> 30) * 8, &[STACK_TABLES[0] | 3]);
    machine.put(STACK_TABLES[0], &[STACK_TABLES[1] | 3]);
    for page in 0..4 {
        let entry = STACK_TABLES[1] + (STACK >> 12 & 0x1ff) * 8 + page * 8;
        machine.put(entry, &[(STACK_MEMORY + page * 0x1000) | 0x703]);
    }
    put_stack(&mut machine, TRAP_RECORD, &[SYNC_RECORD, SYNC + 0x40]);
    put_stack(&mut machine, SYNC_RECORD, &[0, ENTRY + 0x60]);
    put_frame(&mut machine, HOST_STACK, HVC, EL1H);
    machine.put(HOST_ROOT + (HOST_VA >> 30) * 8, &[RAM.start | 0x701]);
    put_host(&mut machine, HOST_STACK);
    machine
}

fn put_stack(machine: &mut Machine, va: u64, words: &[u64]) {
    machine.put(va - STACK + STACK_MEMORY, words);
}

/// What EL2 saved of the host.
fn put_frame(machine: &mut Machine, x29: u64, elr: u64, spsr: u64) {
    put_stack(
        machine,
        TOP - FRAME + 29 * 8,
        &[x29, ROUND + 0x30, elr, spsr],
    );
}

/// The host's records, as `x29` says that it addresses the first one.
fn put_host(machine: &mut Machine, x29: u64) {
    machine.put(HOST_STACK, &[x29 + 0x40, ROUND + 0x30]);
    machine.put(HOST_STACK + 0x40, &[0, START + 0x50]);
}

fn at_el2(changes: &[(&str, u64)]) -> Cpu {
    let usual = [
        ("cpsr", EL2H),
        ("pc", TRAP + 0x20),
        ("sp", TRAP_RECORD),
        ("x29", TRAP_RECORD),
        ("x30", TRAP + 0x10),
        ("ELR_EL2", HVC),
        ("SPSR_EL2", EL1H),
        ("SCTLR_EL1", 0),
    ];
    let all: Vec<_> = usual.iter().chain(changes).copied().collect();
    cpu(0, &all)
}

fn calls(machine: &mut Machine, cpu: &Cpu) -> Vec<Frame> {
    by_rules(machine, cpu, &mut |_| None)
}

fn by_rules(
    machine: &mut Machine,
    cpu: &Cpu,
    rules: &mut dyn FnMut(u64) -> Option<Rules>,
) -> Vec<Frame> {
    let mut memory = machine.memory();
    let code = &mut Code {
        symbols: &symbols(),
        rules,
    };
    let found = memory.complete(|memory| follow(memory, code, cpu));
    found.expect("the link holds")
}

fn names(machine: &mut Machine, cpu: &Cpu) -> Vec<String> {
    let name = |frame: Frame| frame.symbol.unwrap_or_else(|| format!("{:#x}", frame.pc));
    calls(machine, cpu).into_iter().map(name).collect()
}

const OF_HYP: [&str; 2] = ["host_sync+0x40", "host_sync_entry+0x60"];
const OF_HOST: [&str; 3] = ["hypercall+0x10", "round+0x30", "host_start+0x50"];

fn all() -> Vec<&'static str> {
    [&OF_HYP[..], &OF_HOST].concat()
}

#[test]
fn el2s_calls_lead_through_its_entry_to_the_hosts() {
    assert_eq!(names(&mut machine(), &at_el2(&[])), all());
    let frames = calls(&mut machine(), &at_el2(&[]));
    let interrupted: Vec<_> = frames.iter().map(|frame| frame.interrupted).collect();
    assert_eq!(interrupted, [false, false, true, false, false]);
    assert_eq!(frames[2].pc, HVC);
}

#[test]
fn the_hosts_own_tables_are_walked_while_its_mmu_is_on() {
    let mut machine = machine();
    let x29 = HOST_STACK - RAM.start + HOST_VA;
    put_frame(&mut machine, x29, HVC, EL1H);
    put_host(&mut machine, x29);
    let on = [
        ("SCTLR_EL1", 1),
        ("TTBR0_EL1", HOST_ROOT),
        ("TCR_EL1", 2 << 32 | 1 << 23 | 25),
    ];
    assert_eq!(names(&mut machine, &at_el2(&on)), all());
    // Without the registers that say how, the place is known still.
    let unknown = [("SCTLR_EL1", 1), ("TCR_EL1", 3 << 14)];
    assert_eq!(names(&mut machine, &at_el2(&unknown)), all()[..3]);
    // With its MMU off there is nothing at those addresses, but x30 says where it was called from.
    assert_eq!(names(&mut machine, &at_el2(&[])), all()[..4]);
}

/// As in a snapshot from hyp's channel without a file.
#[test]
fn where_the_hosts_tables_are_missing_it_is_the_built_in_one() {
    let missing = [
        ("SCTLR_EL1", 1),
        ("TTBR0_EL1", RAM.start + RAM.size),
        ("TCR_EL1", 2 << 32 | 1 << 23 | 25),
    ];
    assert_eq!(names(&mut machine(), &at_el2(&missing)), all());
}

/// A memory dump has general registers only.
#[test]
fn general_registers_are_enough() {
    let mut cpu = at_el2(&[]);
    cpu.registers.0.retain(|name, _| !name.contains("_EL"));
    assert_eq!(names(&mut machine(), &cpu), all());
}

#[test]
fn a_cpu_in_the_host_has_the_hosts_calls() {
    let host = [
        ("cpsr", EL1H),
        ("pc", HYPERCALL + 4),
        ("sp", HOST_STACK),
        ("x29", HOST_STACK),
    ];
    let leaf = [&host[..], &[("x30", START + 0x20)]].concat();
    for (registers, expected) in [
        (&host[..], &["round+0x30", "host_start+0x50"][..]),
        (&leaf, &["host_start+0x20", "round+0x30", "host_start+0x50"]),
    ] {
        let cpu = at_el2(&[&[("x30", ROUND + 0x30)], registers].concat());
        assert_eq!(names(&mut machine(), &cpu), expected);
    }
    let user = [("cpsr", 0x3c0), ("pc", HYPERCALL)];
    assert_eq!(calls(&mut machine(), &at_el2(&user)), []);
}

/// On the way in and out, registers are the host's while the frame has them not yet or no more.
#[test]
fn in_the_entry_x29_is_the_hosts() {
    let host = [("pc", ENTRY), ("x29", HOST_STACK), ("x30", ROUND + 0x30)];
    let mut machine = machine();
    // What is left of another call.
    put_frame(&mut machine, HOST_STACK + 0x40, START, EL1H);
    for sp in [TOP, TOP - FRAME] {
        let cpu = at_el2(&[&host[..], &[("sp", sp)]].concat());
        assert_eq!(names(&mut machine, &cpu), OF_HOST, "{sp:#x}");
    }
    // x30 is restored before x29 is.
    put_frame(&mut machine, HOST_STACK, HVC, EL1H);
    let leaving = [&host[..], &[("sp", TOP - FRAME), ("x29", 0)]].concat();
    assert_eq!(names(&mut machine, &at_el2(&leaving)), OF_HOST);
    // The first instruction of `host_sync`.
    let called = [
        ("pc", SYNC),
        ("sp", TOP - FRAME),
        ("x29", 0),
        ("x30", ENTRY + 0x60),
    ];
    assert_eq!(names(&mut machine, &at_el2(&called)), all()[1..]);
}

#[test]
fn where_the_cpu_came_from() {
    let alone = &all()[..3];
    let mut saved = machine();
    // The saved PC was changed for the way back.
    put_frame(&mut saved, HOST_STACK, HVC + 4, EL1H);
    assert_eq!(names(&mut saved, &at_el2(&[])), alone);
    // hyp faulted itself: the registers say so, the frame what it did for whom.
    let own = [("SPSR_EL2", EL2H), ("ELR_EL2", TRAP + 0x20)];
    assert_eq!(names(&mut machine(), &at_el2(&own)), all());
    // The host's user space.
    let mut user = machine();
    put_frame(&mut user, HOST_STACK, HVC, 0x3c0);
    let registers = [("SPSR_EL2", 0x3c0)];
    assert_eq!(names(&mut user, &at_el2(&registers)), alone);
    // Nobody yet, whatever the registers say.
    let mut new = machine();
    put_frame(&mut new, 0, 0, 0);
    for registers in [&own[..], &[]] {
        assert_eq!(names(&mut new, &at_el2(registers)), OF_HYP);
    }
}

/// What `vectors.s` says of an entry: the registers of what it interrupted are on the stack.
fn entry_rules() -> Rules {
    let x = (0..31).map(|n| format!(r#""{n}":{{"at":{}}}"#, n * 8 - FRAME as i64));
    let pc = format!(r#""32":{{"at":{}}}"#, ELR as i64 - FRAME as i64);
    let registers: Vec<_> = x.chain([pc]).collect();
    let text = format!(
        r#"{{"cfa":{{"register":[31,{FRAME}]}},"registers":{{{}}},"return_address":30,"signal":true}}"#,
        registers.join(",")
    );
    serde_json::from_str(&text).expect("rules")
}

/// hyp faulted in `handle_trap`, before it had saved anything: its registers are in a frame of their own, and the report runs
/// below.
#[test]
fn a_fault_of_hyps_own_leads_to_what_it_did() {
    let mut machine = machine();
    let own = TRAP_RECORD - FRAME;
    let mut registers = [7; 31];
    registers[29..].copy_from_slice(&[SYNC_RECORD, SYNC + 0x40]);
    put_stack(&mut machine, own, &registers);
    put_stack(&mut machine, own + ELR, &[TRAP, EL2H]);
    let cpu = at_el2(&[
        ("pc", REPORT),
        ("sp", own),
        ("x29", SYNC_RECORD),
        ("x30", OWN_ENTRY + 0x20),
        ("ELR_EL2", TRAP),
        ("SPSR_EL2", EL2H),
    ]);
    let frames = by_rules(&mut machine, &cpu, &mut |address| match address {
        ENTRY..SYNC | OWN_ENTRY..REPORT => Some(entry_rules()),
        _ => None,
    });
    let found: Vec<_> = frames
        .iter()
        .map(|frame| {
            (
                frame.symbol.as_deref().unwrap_or_default(),
                frame.interrupted,
            )
        })
        .collect();
    let expected = [
        ("own_sync_entry+0x20", false),
        ("handle_trap", true),
        ("host_sync+0x40", false),
        ("host_sync_entry+0x60", false),
        ("hypercall+0x10", true),
        ("round+0x30", false),
        ("host_start+0x50", false),
    ];
    assert_eq!(found, expected);
}

/// While an entry saves registers, its rules are not true.
#[test]
fn in_an_entry_its_rules_are_not_asked() {
    let cpu = at_el2(&[("pc", ENTRY + 4), ("sp", TOP - FRAME - 0x100)]);
    let frames = by_rules(&mut machine(), &cpu, &mut |address| {
        (ENTRY..SYNC).contains(&address).then(entry_rules)
    });
    assert_eq!(frames, calls(&mut machine(), &cpu));
}

/// The embedded machine's PCs are a model: its stacks are empty.
#[test]
fn a_stack_that_holds_no_host_is_nobodys() {
    let model = [("sp", TOP - 0x100), ("x29", 0), ("x30", 0)];
    assert_eq!(calls(&mut machine(), &at_el2(&model)), []);
    let mut empty = machine();
    put_frame(&mut empty, 0, 0, 0);
    let model = [("sp", TOP - 0x1000), ("x29", 0), ("x30", 0)];
    assert_eq!(calls(&mut empty, &at_el2(&model)), []);
    let linear = STACK_MEMORY + HYP;
    let mut machine = machine();
    machine.put(STACK_MEMORY, &[0, ENTRY + 0x60]);
    // The stack of the start has no guard in sight, and no host.
    let start = [("sp", linear), ("x29", linear)];
    assert_eq!(names(&mut machine, &at_el2(&start)), OF_HYP[1..]);
}

#[test]
fn what_is_no_stack_ends_it() {
    for sp in [0, 8, STACK - 0x1000, TOP + 0x1000, u64::MAX] {
        assert_eq!(calls(&mut machine(), &at_el2(&[("sp", sp)])), [], "{sp:#x}");
    }
    for x29 in [
        TRAP_RECORD + 4,
        TRAP_RECORD - 8,
        STACK - 8,
        TOP,
        HOST_STACK,
        u64::MAX,
    ] {
        let found = names(&mut machine(), &at_el2(&[("x29", x29)]));
        assert_eq!(found, OF_HOST, "{x29:#x}");
    }
    // The host's memory is not backed there, or its chain leads back.
    for (x29, frames) in [(0, 1), (1 << 40, 1), (u64::MAX - 7, 1), (HOST_STACK, 2)] {
        let mut machine = machine();
        machine.put(HOST_STACK, &[HOST_STACK]);
        put_frame(&mut machine, x29, HVC, EL1H);
        let found = calls(&mut machine, &at_el2(&[]));
        let host = found.len() - OF_HYP.len();
        // x30 stands in for a record that is missing.
        let stand_in = usize::from(x29 != HOST_STACK);
        assert_eq!(host, frames + stand_in, "{x29:#x}");
    }
}

proptest! {
    #[test]
    fn any_stack_ends(
        words in proptest::collection::vec((0..0x200_u64, 0..3_u8, any::<u64>()), 128),
        sp in 0..0x500_u64,
        x29 in 0..0x500_u64,
    ) {
        let mut machine = machine();
        let stack: Vec<_> = words
            .iter()
            .map(|(slot, kind, far)| match kind {
                0 => TOP - 0x400 + slot * 8,
                1 => HOST_STACK + slot * 8,
                _ => *far,
            })
            .collect();
        put_stack(&mut machine, TOP - 0x400, &stack);
        machine.put(HOST_STACK, &stack);
        let mut cpu = at_el2(&[("sp", TOP - 0x400 + sp), ("x29", TOP - 0x400 + x29)]);
        cpu.registers.0.remove("ELR_EL2");
        prop_assert!(calls(&mut machine, &cpu).len() <= 2 * (MAX_FRAMES + 2));
    }
}
