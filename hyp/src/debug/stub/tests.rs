//! Packets in, packets out: the protocol as a client sees it.

use super::super::fake::{Fake, HOST_ROOT};
use super::super::registers::System;
use super::super::server::tests::script::{converse, frame, stub};
use super::*;
use std::prelude::rust_2024::*;

/// The replies to requests, without acknowledgements and frames; binary data stays escaped.
fn ask(stub: &mut Stub<Fake>, requests: &[&str]) -> Vec<String> {
    let steps = requests
        .iter()
        .map(|request| frame(request.as_bytes()))
        .collect();
    let (heard, _) = converse(stub, false, steps);
    String::from_utf8_lossy(&heard.concat())
        .split('$')
        .skip(1)
        .map(|reply| reply.split('#').next().unwrap().to_owned())
        .collect()
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn features_and_threads() {
    let answers = ask(
        &mut stub(),
        &[
            "qSupported:swbreak+",
            "?",
            "qfThreadInfo",
            "qsThreadInfo",
            "T2",
            "T3",
        ],
    );
    assert!(
        answers[0].contains("qXfer:features:read+"),
        "{}",
        answers[0]
    );
    assert!(answers[0].contains("QStartNoAckMode+"), "{}", answers[0]);
    assert_eq!(answers[1..], ["T05thread:01;", "m01,02", "l", "OK", "E01"]);
}

#[test]
fn registers_of_a_thread() {
    let mut stub = stub();
    stub.inferior.set(1, Register::Pc, 0x40_4000_2100);
    stub.inferior.set(1, Register::Cpsr, 0x3c9);
    stub.inferior
        .set(1, Register::System(System::ELR_EL2), 0x1234);
    let answers = ask(
        &mut stub,
        &["Hg2", "p20", "p21", "p22", "p0", "pffff", "Hg3", "p22"],
    );
    assert_eq!(
        answers,
        [
            "OK",
            "0021004040000000",
            "c9030000",
            "3412000000000000",
            "xxxxxxxxxxxxxxxx",
            "",
            "E03",
            "3412000000000000",
        ]
    );
}

#[test]
fn registers_are_written_one_by_one_and_all_together() {
    let mut stub = stub();
    for register in Register::all() {
        stub.inferior.set(0, register, 1);
    }
    let whole = ask(&mut stub, &["g"]).remove(0);
    let changed = format!("G{}{}", "2a00000000000000", &whole[16..]);
    let answers = ask(
        &mut stub,
        &[
            &changed,
            "P1=0700000000000000",
            "P1=07",
            "P2a=0700000000000000",
        ],
    );
    assert_eq!(
        answers,
        ["OK", "OK", "E79", "E01"],
        "TCR_EL2 is read-only here"
    );
    assert_eq!(stub.inferior.register(0, Register::X(0)), Some(42));
    assert_eq!(stub.inferior.register(0, Register::X(1)), Some(7));
}

#[test]
fn a_cpu_that_does_not_stand_has_no_registers() {
    let mut stub = stub();
    stub.inferior.set(1, Register::Cpsr, 0x3c9);
    let answers = ask(
        &mut stub,
        &[
            "p20",
            "g",
            &format!("G{}", "0".repeat((33 * 8 + 4 + System::ALL.len() * 8) * 2)),
            "m4040002000,2",
            "qThreadExtraInfo,1",
            "qThreadExtraInfo,2",
            "qThreadExtraInfo,3",
        ],
    );
    assert_eq!(answers[0], "x".repeat(16));
    assert_eq!(answers[1].trim_matches('x'), "");
    assert_eq!(
        answers[2..],
        [
            "E03",
            "0000",
            &hex("CPU 0 off or running"),
            &hex("CPU 1 EL2"),
            ""
        ]
    );
}

#[test]
fn what_a_client_could_not_read_it_does_not_write() {
    let mut stub = stub();
    stub.inferior.set(0, Register::Pc, 4);
    let whole = ask(&mut stub, &["g"]).remove(0);
    assert_eq!(ask(&mut stub, &[&format!("G{whole}")]), ["OK"]);
    let unchanged = [(0, Register::Pc, 4)];
    assert_eq!(stub.inferior.registers, unchanged);
}

#[test]
fn memory_is_virtual_and_crosses_pages() {
    let mut stub = stub();
    stub.inferior
        .words
        .insert(0x4000_1ff8, 0x1122_3344_5566_7788);
    stub.inferior.words.insert(0x4000_2000, 0xaa);
    let answers = ask(
        &mut stub,
        &[
            "m4040001ff8,a",
            "m4040000ff8,10",
            "m4040004ffe,8",
            "mffffffffffffffff,4",
            "M4040002000,2:beef",
            "m4040002000,2",
            "M4040000000,1:00",
            "Mffffffffffffffff,2:0000",
        ],
    );
    assert_eq!(
        answers,
        [
            "8877665544332211aa00",
            "E0e",
            "0000",
            "E0e",
            "OK",
            "beef",
            "E0e",
            "E0e"
        ]
    );
}

#[test]
fn a_machine_is_resumed_as_asked() {
    let mut stub = stub();
    for request in ["vCont;c", "vCont;s:2;c", "vCont;c:1"] {
        assert_eq!(
            ask(&mut stub, &[request]),
            [""; 0],
            "no answer before it stops"
        );
    }
    let all = u64::MAX;
    assert_eq!(
        stub.inferior.resumed,
        [
            Resume {
                run: all,
                step: None
            },
            Resume {
                run: all,
                step: Some(1)
            },
            Resume {
                run: 0b01,
                step: None
            },
        ]
    );
}

#[test]
fn breakpoints_reach_the_machine() {
    let mut stub = stub();
    let answers = ask(
        &mut stub,
        &[
            "Z0,4040002100,4",
            "z0,4040002100,4",
            "z0,4040002100,4",
            "Z1,10,4",
        ],
    );
    assert_eq!(answers, ["OK", "OK", "E16", "OK"]);
}

#[test]
fn files_are_opened_read_and_closed() {
    let mut stub = stub();
    let open = |name: &str| format!("vFile:open:{},0,1c0", hex(name));
    let answers = ask(
        &mut stub,
        &[
            &open("hyp/description"),
            "vFile:pread:0,b,2",
            &open("hyp/physmem"),
            &format!("vFile:pread:1,8,{:x}", HOST_ROOT + 8),
            "vFile:pread:1,8,9000000",
            "vFile:close:1",
            &open("nothing"),
            &format!("vFile:open:{},1,1c0", hex("hyp/stats")),
            "vFile:pread:63,8,0",
            "vFile:close:63",
        ],
    );
    assert_eq!(answers[..2], ["F00", "F0b;format\":\"hy"]);
    assert_eq!(answers[2], "F01");
    assert!(answers[3].starts_with("F08;"), "{}", answers[3]);
    assert_eq!(
        answers[4..],
        ["F-1,0e", "F0", "F-1,02", "F-1,1e", "F-1,09", "F-1,09"]
    );
}

#[test]
fn the_target_description_comes_in_pieces() {
    let mut stub = stub();
    let mut whole = String::new();
    write_target_xml(&mut whole).unwrap();
    let mut read = String::new();
    loop {
        let request = format!("qXfer:features:read:target.xml:{:x},fff", read.len());
        let answer = ask(&mut stub, &[&request]).remove(0);
        if answer == "l" {
            break;
        }
        read.push_str(answer.strip_prefix('m').unwrap());
    }
    assert_eq!(read, whole);
    assert_eq!(
        ask(&mut stub, &["qXfer:features:read:other.xml:0,fff"]),
        ["E79"]
    );
}

#[test]
fn monitor_commands_answer_on_the_console() {
    let answers = ask(&mut stub(), &[&format!("qRcmd,{}", hex("stats"))]);
    assert_eq!(answers.last().unwrap(), "OK");
    let text: String = answers[..answers.len() - 1]
        .iter()
        .map(|answer| answer.strip_prefix('O').unwrap())
        .collect();
    assert_eq!(text, hex("steps: 12\nhost-aborts: 3\n"));
}
