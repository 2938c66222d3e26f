use super::*;
use crate::hypervisor::calls::MAX_FRAMES;
use crate::hypervisor::testing::{HYP, KERNEL, Machine, RAM, cpu};
use crate::image::{Rules, Symbol};
use crate::model::View;
use proptest::prelude::*;

/// Where the kernel is linked, and runs at EL1.
const TEXT: u64 = KERNEL + CODE;
const CODE: u64 = RAM.start + 0x8000;
const STACK: u64 = RAM.start + 0x2_0000;
const HOST_STACK: u64 = RAM.start + 0x3_0000;
const CONTEXT: u64 = RAM.start + 0x4_0000;
/// Functions of EL2 and of the host, from `CODE` on.
const TRAP: u64 = 0;
const MAP: u64 = 0x100;
const LEAF: u64 = 0x200;
const IDLE: u64 = 0x1000;
const LOOP: u64 = 0x1100;
/// Offset of the frame record in the host's saved registers.
const BOUNDARY: u64 = 0x120;
const AT_EL2: u64 = 0x3c9;
const AT_EL1: u64 = 0x3c5;

fn symbols() -> Symbols {
    let symbol = |(name, at): (&str, u64)| Symbol {
        name: name.to_owned(),
        address: TEXT + at,
        size: 0x100,
    };
    let list = [
        ("trap", TRAP),
        ("map", MAP),
        ("leaf", LEAF),
        ("idle", IDLE),
        ("loop", LOOP),
    ];
    let view = |at, size, offset| View {
        linked: Span::new(TEXT + at, size),
        offset,
        prefix: "",
    };
    let hyp = HYP.wrapping_sub(KERNEL);
    let views = vec![view(0, 0x1000, hyp), view(0, 0x2000, 0)];
    Symbols::moved(list.map(symbol).into(), views)
}

fn el2(at: u64) -> u64 {
    CODE + HYP + at
}

fn el1(at: u64) -> u64 {
    TEXT + at
}

/// EL2 is in `map`, which `trap` called; the host was in `loop`, which `idle` called.
fn machine() -> Machine {
    let mut machine = Machine::new();
    // With authentication codes, and what EL2 saved of the host at the bottom.
    let code = 0x0058_0000_0000_0000;
    machine.put(STACK + 0x80, &[STACK + 0xc0 + HYP, el2(TRAP + 0x20) | code]);
    machine.put(STACK + 0xc0, &[CONTEXT + HYP, el2(0xf00)]);
    let signed = |at| el1(at) & !0x7f00_0000_0000_0000;
    machine.put(
        HOST_STACK,
        &[HOST_STACK + 0x40 + KERNEL, signed(IDLE + 0x10)],
    );
    machine.put(HOST_STACK + 0x40, &[0, 0]);
    machine.put(CONTEXT, &[HOST_STACK + KERNEL, signed(LOOP + 0x30)]);
    machine
}

fn registers(changes: &[(&'static str, u64)]) -> Cpu {
    let usual = [
        ("cpsr", AT_EL2),
        ("pc", el2(MAP + 8)),
        ("sp", STACK + 0x40 + HYP),
        ("x29", STACK + 0x80 + HYP),
        ("x30", el2(MAP + 4)),
        ("SPSR_EL2", AT_EL1),
        ("ELR_EL2", el1(LOOP + 0x30)),
        ("TPIDR_EL2", 0x1000),
    ];
    let all: Vec<_> = usual.into_iter().chain(changes.iter().copied()).collect();
    cpu(0, &all)
}

/// The place, and the calls that led there.
fn chain(machine: &mut Machine, cpu: &Cpu) -> Vec<String> {
    by_rules(machine, cpu, &mut |_| None)
}

/// The same with call frame information, by linked address.
fn by_rules(
    machine: &mut Machine,
    cpu: &Cpu,
    rules: &mut dyn FnMut(u64) -> Option<Rules>,
) -> Vec<String> {
    let layout = Layout {
        context: Some(CONTEXT - 0x1000),
        boundary: Some(BOUNDARY),
    };
    let mut memory = machine.memory();
    let code = &mut Code {
        symbols: &symbols(),
        rules,
    };
    let found = memory.complete(|memory| follow(memory, layout, code, cpu));
    let (symbol, calls) = found.expect("the link holds");
    let calls = calls.into_iter();
    let names = calls.map(|frame| frame.symbol.unwrap_or_else(|| format!("{:#x}", frame.pc)));
    symbol.into_iter().chain(names).collect()
}

#[test]
fn el2s_calls_lead_to_where_the_host_was() {
    assert_eq!(
        chain(&mut machine(), &registers(&[])),
        [
            "map+0x8",
            "trap+0x20",
            &format!("{:#x}", el2(0xf00)),
            "loop+0x30",
            "idle+0x10"
        ]
    );
}

#[test]
fn a_function_without_frame_is_known_by_its_link_register() {
    let leaf = [("pc", el2(LEAF)), ("x30", el2(MAP + 0x40))];
    let calls = chain(&mut machine(), &registers(&leaf));
    assert_eq!(calls[..3], ["leaf", "map+0x40", "trap+0x20"]);
    // Where the record says the same already, it is its own; at a function's first instruction, that of one which called
    // itself from there.
    let calls_at = |at| {
        let recorded = [("pc", el2(at)), ("x30", el2(TRAP + 0x20))];
        chain(&mut machine(), &registers(&recorded))
    };
    let outer = format!("{:#x}", el2(0xf00));
    assert_eq!(calls_at(MAP + 4)[..3], ["map+0x4", "trap+0x20", &outer]);
    assert_eq!(calls_at(TRAP)[..3], ["trap", "trap+0x20", "trap+0x20"]);
}

/// What a compiler writes: CFA = a register + a number, and where x29 and x30 are below it, if they are saved.
fn rules((register, offset): (u16, i64), x29: Option<i64>) -> Rules {
    let saved = x29.map(|at| format!(r#""29":{{"at":{at}}},"30":{{"at":{}}}"#, at + 8));
    let text = format!(
        r#"{{"cfa":{{"register":[{register},{offset}]}},"registers":{{{}}},"return_address":30,"signal":false}}"#,
        saved.unwrap_or_default()
    );
    serde_json::from_str(&text).expect("rules")
}

const SP: u16 = 31;
const X29: u16 = 29;

/// `map` calls itself: in its first instruction and in its last one, x29 is the frame of the one that called it.
#[test]
fn a_function_that_called_itself_is_told_by_its_rules() {
    let mut machine = machine();
    let frame = STACK + 0x80;
    machine.put(STACK + 0x60, &[frame + HYP, el2(MAP + 0x40)]);
    let inside = |linked: u64| {
        let offset = linked.wrapping_sub(el1(MAP));
        let pushed = (8..0xf8).contains(&offset);
        (offset < 0x100)
            .then(|| rules((SP, if pushed { 0x20 } else { 0 }), pushed.then_some(-0x20)))
    };
    for (at, sp, x29) in [
        (MAP, frame, frame),
        (MAP + 4, frame, frame),
        (MAP + 8, STACK + 0x60, frame),
        (MAP + 0x20, STACK + 0x60, STACK + 0x60),
        (MAP + 0xf8, frame, frame),
        (MAP + 0xfc, frame, frame),
    ] {
        let registers = registers(&[
            ("pc", el2(at)),
            ("sp", sp + HYP),
            ("x29", x29 + HYP),
            ("x30", el2(MAP + 0x40)),
            ("SPSR_EL2", AT_EL2),
        ]);
        let calls = by_rules(&mut machine, &registers, &mut |linked| inside(linked));
        assert_eq!(calls[1..3], ["map+0x40", "trap+0x20"], "{at:#x}");
        let alone = chain(&mut machine, &registers);
        let right = at == MAP || at == MAP + 0x20;
        assert_eq!(alone[1..3] == calls[1..3], right, "{at:#x}: {alone:?}");
    }
}

/// `leaf` and `trap` are assembly, `map` is not.
#[test]
fn rules_and_frame_records_take_turns() {
    let leaf = [("pc", el2(LEAF + 4)), ("x30", el2(MAP + 0x40))];
    let trapped = chain(&mut machine(), &registers(&[]));
    let expected = ["leaf+0x4", "map+0x40"].map(str::to_owned);
    for map in [
        rules((X29, 0x40), Some(-0x40)),
        // What rests on SP is not known any more; frame records do as well.
        rules((SP, 0x40), Some(-0x40)),
    ] {
        let mut asked = 0;
        let mut of_map = |linked| {
            let is_map = (el1(MAP)..el1(LEAF)).contains(&linked);
            asked += usize::from(is_map);
            is_map.then(|| map.clone())
        };
        let calls = by_rules(&mut machine(), &registers(&leaf), &mut of_map);
        assert_eq!(calls, [&expected[..], &trapped[1..]].concat());
        assert!(asked > 0);
    }
    // `trap` has them again, and says where the caller of `map` is.
    let mut machine = machine();
    machine.put(STACK + 0x100, &[0, el2(LEAF + 0x20)]);
    let mut of_trap = |linked| {
        let is_trap = (el1(TRAP)..el1(MAP)).contains(&linked);
        is_trap.then(|| rules((X29, 0x50), Some(-0x10)))
    };
    let calls = by_rules(&mut machine, &registers(&[]), &mut of_trap);
    assert_eq!(calls[..3], ["map+0x8", "trap+0x20", "leaf+0x20"]);
}

#[test]
fn rules_that_lead_nowhere_end_it() {
    for (what, frames) in [
        // To the same place again and again, and ever further on.
        (rules((SP, 0), None), 1),
        (rules((SP, 16), None), MAX_FRAMES),
    ] {
        let registers = registers(&[("x30", el2(MAP + 0x40)), ("SPSR_EL2", AT_EL2)]);
        let calls = by_rules(&mut machine(), &registers, &mut |_| Some(what.clone()));
        assert_eq!(calls.len(), 1 + frames);
    }
    // To memory that cannot be read: there the frame record does.
    let outside = rules((SP, 0), Some(-0x1000_0000));
    let calls = by_rules(&mut machine(), &registers(&[]), &mut |_| {
        Some(outside.clone())
    });
    assert_eq!(calls, chain(&mut machine(), &registers(&[])));
}

/// Where EL2 came from, the host's registers are those that it saved.
#[test]
fn the_hosts_registers_are_its_own() {
    let mut machine = machine();
    machine.put(HOST_STACK + 0x80, &[HOST_STACK + KERNEL, el1(IDLE + 0x20)]);
    let of_loop = |linked| {
        let is_loop = (el1(LOOP)..el1(LOOP + 0x100)).contains(&linked);
        is_loop.then(|| rules((28, 0x10), Some(-0x10)))
    };
    let registers = registers(&[]);
    machine.put(CONTEXT - 8, &[HOST_STACK + 0x80 + KERNEL]);
    let calls = by_rules(&mut machine, &registers, &mut |linked| of_loop(linked));
    assert_eq!(calls[3..], ["loop+0x30", "idle+0x20", "idle+0x10"]);
}

#[test]
fn where_the_cpu_came_from() {
    let user = 0x40_0000;
    for (changes, expected) in [
        // The host's user space, though EL2 has something at that address.
        (
            vec![("SPSR_EL2", 0x3c0), ("ELR_EL2", el2(MAP))],
            vec![format!("{:#x}", el2(MAP))],
        ),
        // EL2 itself: a panic of its own.
        (vec![("SPSR_EL2", AT_EL2)], vec![]),
        // A guest.
        (vec![("VTTBR_EL2", 1 << 48)], vec![]),
        (
            vec![("cpsr", AT_EL1), ("pc", el1(LOOP)), ("VTTBR_EL2", 1 << 48)],
            vec![],
        ),
        // User space.
        (vec![("cpsr", 0x3c0), ("pc", user)], vec![]),
        (vec![("cpsr", 0x3c0), ("pc", el2(MAP))], vec![]),
    ] {
        let cpu = registers(&changes);
        let calls = chain(&mut machine(), &cpu);
        let after = if cpu.el == Some(2) { 3 } else { 0 };
        assert_eq!(calls[after..], expected, "{changes:x?}");
    }
}

#[test]
fn the_hosts_kernel_is_followed_on_its_own_stack() {
    let host = [
        ("cpsr", AT_EL1),
        ("pc", el1(LOOP + 4)),
        ("x29", HOST_STACK + KERNEL),
        ("x30", el1(LOOP)),
    ];
    let mut machine = machine();
    assert_eq!(
        chain(&mut machine, &registers(&host)),
        ["loop+0x4", "idle+0x10"]
    );
    // One for the only level of its tables, one for the stack.
    assert_eq!(machine.waits, 2);
    let off = [host.as_slice(), &[("SCTLR_EL1", 0)]].concat();
    assert_eq!(chain(&mut machine, &registers(&off)), ["loop+0x4"]);
}

#[test]
fn a_call_that_never_returns_is_named_itself() {
    for (behind, name) in [
        (IDLE + 0x10, "idle+0x10"),
        // The next function begins there.
        (LOOP, "idle+0xfc"),
        // Nothing does.
        (LOOP + 0x100, "loop+0xfc"),
    ] {
        let host = [
            ("cpsr", AT_EL1),
            ("pc", el1(LOOP + 4)),
            ("x29", HOST_STACK + KERNEL),
            ("x30", el1(LOOP)),
        ];
        let mut machine = machine();
        machine.put(HOST_STACK, &[HOST_STACK + 0x40 + KERNEL, el1(behind)]);
        assert_eq!(chain(&mut machine, &registers(&host)), ["loop+0x4", name]);
    }
}

/// The host is in `trap`, an interrupt's handler called from `map`, on a stack of its own; `loop` was interrupted on that of
/// `idle`, and in its turn had interrupted `leaf`.
#[test]
fn exceptions_lead_to_what_they_interrupted() {
    let irq_stack = RAM.start + 0x5_0000;
    let [outer, inner] = [HOST_STACK + 0x200, HOST_STACK + 0x400];
    let mut machine = machine();
    let record = |at: u64| at + BOUNDARY + KERNEL;
    let mut save = |at: u64, x29: u64, x30: u64, pc: u64, kind: u64| {
        machine.put(at + 29 * 8, &[x29, x30, 0, pc]);
        machine.put(at + BOUNDARY, &[0, 0, kind]);
    };
    // A handler begins exactly where the interrupt came; it is not the call before it.
    save(inner, record(outer), el1(IDLE + 0x20), el1(LOOP), 2);
    save(outer, HOST_STACK + KERNEL, el1(IDLE + 4), el1(LEAF + 4), 2);
    machine.put(irq_stack, &[record(inner), el1(MAP + 0x20)]);
    let host = [
        ("cpsr", AT_EL1),
        ("pc", el1(TRAP + 4)),
        ("x29", irq_stack + KERNEL),
        ("x30", el1(MAP + 0x20)),
    ];
    let all = [
        "trap+0x4",
        "map+0x20",
        "loop",
        "idle+0x20",
        "leaf+0x4",
        "idle+0x4",
        "idle+0x10",
    ];
    assert_eq!(chain(&mut machine, &registers(&host)), all);
    // What is not the registers of an exception in the kernel is the end.
    for kind in [0, 1, 3, u64::MAX] {
        machine.put(outer + BOUNDARY, &[0, 0, kind]);
        let calls = chain(&mut machine, &registers(&host));
        assert_eq!(calls, all[..4], "{kind}");
    }
    // One that leads to itself ends, too.
    machine.put(outer + BOUNDARY, &[0, 0, 2]);
    machine.put(outer + 29 * 8, &[record(outer)]);
    let calls = chain(&mut machine, &registers(&host));
    assert_eq!(calls, all[..6]);
}

#[test]
fn in_the_vector_x29_is_the_hosts_still() {
    let vector = [
        ("x29", HOST_STACK + KERNEL),
        ("x30", el1(LOOP + 0x30)),
        ("ELR_EL2", el1(LOOP + 4)),
    ];
    assert_eq!(
        chain(&mut machine(), &registers(&vector)),
        ["map+0x8", "loop+0x4", "idle+0x10"]
    );
}

#[test]
fn loops_and_what_is_no_stack_end_it() {
    for (x29, frames) in [
        (STACK + 0x80 + HYP, 2),
        (STACK + 0x84 + HYP, 0),
        (STACK + HYP, 0),
        (CONTEXT + HYP, 0),
        (0, 0),
        (!(7 | 1 << 55), 0),
    ] {
        let calls = chain(
            &mut machine(),
            &registers(&[("x29", x29), ("SPSR_EL2", AT_EL2)]),
        );
        assert_eq!(calls.len(), 1 + frames, "{x29:#x}");
    }
    let mut machine = machine();
    machine.put(STACK + 0x80, &[STACK + 0x80 + HYP, el2(TRAP)]);
    let calls = chain(&mut machine, &registers(&[("SPSR_EL2", AT_EL2)]));
    assert_eq!(calls, ["map+0x8", "trap"]);
}

#[test]
fn a_long_chain_is_cut_off() {
    let mut machine = machine();
    for n in 0..200 {
        let at = HOST_STACK + n * 16;
        machine.put(at, &[at + 16 + KERNEL, el1(LOOP)]);
    }
    let host = [
        ("cpsr", AT_EL1),
        ("pc", el1(IDLE)),
        ("x29", HOST_STACK + KERNEL),
    ];
    assert_eq!(chain(&mut machine, &registers(&host)).len(), 1 + MAX_FRAMES);
}

#[test]
fn a_call_that_never_returns_is_in_its_own_function() {
    let mut machine = machine();
    machine.put(STACK + 0x88, &[el2(MAP)]);
    let calls = chain(&mut machine, &registers(&[]));
    assert_eq!(calls[..2], ["map+0x8", "trap+0xfc"]);
}

/// The vectors are in the private range too.
#[test]
fn code_has_its_name_at_all_its_addresses() {
    let alias = 0x10_0000_0000;
    let mut machine = machine();
    machine.map_for_hyp(alias, RAM.start);
    let mut memory = machine.memory();
    memory.physvirt_offset = Some(0_u64.wrapping_sub(HYP));
    let mut name = |pc| {
        let name = memory.complete(|memory| hyp_name(memory, &symbols(), pc));
        name.expect("the link holds")
    };
    assert_eq!(name(el2(MAP)).as_deref(), Some("map"));
    let offset = CODE - RAM.start;
    assert_eq!(name(alias + offset + MAP).as_deref(), Some("map"));
    assert_eq!(name(alias + offset + 0x8000), None);
    assert_eq!(name(0x20_0000_0000), None);
}

proptest! {
    #[test]
    fn any_stack_ends(
        words in proptest::collection::vec((0..0x40_u64, any::<bool>(), any::<u64>()), 64),
        x29 in 0..0x200_u64,
        el in 1..3_u64,
        rule in proptest::option::of((28..33_u16, -64..64_i64, proptest::option::of(-64..64_i64))),
    ) {
        let mut machine = machine();
        let base = if el == 2 { HYP } else { KERNEL };
        let stack: Vec<_> = words
            .iter()
            .map(|(slot, near, far)| if *near { STACK + slot * 8 + base } else { *far })
            .collect();
        machine.put(STACK, &stack);
        let changes = [
            ("cpsr", el << 2 | 1),
            ("sp", STACK + base),
            ("x29", STACK + x29 + base),
        ];
        let rule = rule.map(|(register, offset, x29)| rules((register, offset * 8), x29.map(|at| at * 8)));
        let calls = by_rules(&mut machine, &registers(&changes), &mut |linked| {
            rule.clone().filter(|_| linked / 64 % 2 == 0)
        });
        prop_assert!(calls.len() <= 2 * (MAX_FRAMES + 2));
    }
}
