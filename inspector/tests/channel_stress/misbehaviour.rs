//! Clients that break the protocol, and vanish: the next one finds everything in order, and the host goes on.

use crate::client::Client;
use crate::debuggee::{Debuggee, LIMIT};
use crate::stops::run_on;
use fixtures::qemu::Boot;
use inspector::target::rsp;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long a client waits for room before it gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client does with its connection before it is gone.
type Deed = fn(&mut UnixStream);

const DEEDS: [(&str, Deed); 16] = [
    ("says nothing", |_| {}),
    ("sends bytes that mean nothing", |line| {
        send(line, &noise(FLOOD));
    }),
    ("sends nothing but zeros", |line| send(line, &[0; FLOOD])),
    ("sends nothing but beginnings", |line| {
        send(line, &[b'$'; FLOOD]);
    }),
    ("sends nothing but ends", |line| {
        send(line, &b"#00".repeat(FLOOD / 3));
    }),
    ("wants its last reply again and again", |line| {
        be_heard(line, &[b'-'; 2000]);
    }),
    ("stops the machine again and again", |line| {
        send(line, &[rsp::INTERRUPT; FLOOD]);
    }),
    ("breaks off in the middle of a packet", |line| {
        be_heard(line, b"+$qSupported:swbr");
    }),
    ("breaks off in the middle of a checksum", |line| {
        be_heard(line, b"+$g#6");
    }),
    ("sends wrong checksums", |line| {
        be_heard(line, &b"$g#00$vCont;c#00$D#00".repeat(99));
    }),
    ("sends packets that are too long", |line| {
        send(line, &packet(&"0".repeat(FLOOD)));
        send(
            line,
            &packet(&format!("M4040200000,ffff:{}", "f".repeat(0x1_fffe))),
        );
    }),
    ("asks for more than there is", |line| {
        let requests = [
            "m4040200000,ffffffffffffffff",
            "mffffffffffffffff,ffffffffffffffff",
            "X4040200000,ffffffffffffffff:",
            "vFile:pread:1,ffffffffffffffff,ffffffffffffffff",
            "qXfer:features:read:target.xml:ffffffffffffffff,ffffffffffffffff",
            "Hgffffffffffffffff",
            "vCont;s:ffffffffffffffff",
            "Z0,ffffffffffffffff,ffffffffffffffff",
        ];
        be_heard(line, &requests.map(packet).concat());
    }),
    ("never reads", |line| {
        for _ in 0..2000 {
            send(line, &packet("m4040200000,400"));
        }
    }),
    ("breaks off in the middle of a long reply", |line| {
        send(line, &packet("m4040200000,7ff0"));
        let mut some = [0; 100];
        line.read_exact(&mut some).expect("a long reply");
    }),
    (
        "leaves breakpoints everywhere, and CPUs held back",
        |line| {
            let places = (0..80_u64).map(|n| 0x40_4020_4000 + 4 * n);
            let breakpoints = places.flat_map(|va| [0, 1].map(|kind| format!("Z{kind},{va:x},4")));
            let packets: Vec<u8> = breakpoints.flat_map(|body| packet(&body)).collect();
            be_heard(line, &packets);
            be_heard(line, &["QStartNoAckMode", "vCont;c:2"].map(packet).concat());
        },
    ),
    ("lets the machine run, and is gone", |line| {
        be_heard(line, &packet("vCont;c"));
    }),
];

/// More bytes than what lies between a client and hyp keeps, so that most of them arrive.
const FLOOD: usize = 1 << 20;

/// Bytes of all kinds, the same each time.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        // Knuth's numbers for a linear congruence; its upper bits are the better ones.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn packet(body: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    rsp::encode(body.as_bytes(), &mut bytes);
    bytes
}

/// Sends as much as is taken.
fn send(line: &mut UnixStream, bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(count @ 1..) = line.write(rest) {
        rest = &rest[count..];
    }
}

/// Sends bytes in one piece with a request, and waits for its answer: then they have arrived, too.
fn be_heard(line: &mut UnixStream, bytes: &[u8]) {
    send(line, &[packet("qC"), bytes.to_vec()].concat());
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("$QC") {
        let mut byte = [0];
        line.read_exact(&mut byte).expect("an answer");
        heard.extend(byte);
    }
}

/// A client that behaves finds what it expects, whatever was before it; then the host goes on.
fn all_is_well(debuggee: &Debuggee, text: &[u64]) {
    let mut session = debuggee.attach();
    session.all_registers();
    let (start, _) = debuggee.functions("Hyp>::pkvm_host_share_hyp")[0];
    assert_eq!(session.words(start, text.len()), text, "hyp's code");
    let stats = session.monitor("stats");
    assert!(stats.contains("share"), "{stats}");
    let rounds = session.counters().rounds;
    run_on(&mut session, rounds);
}

#[test]
fn qemu_whatever_a_client_does_the_next_one_is_served_and_the_host_goes_on() {
    let boot = Boot::hyp().expect("the image builds");
    let mut debuggee = Debuggee::start(boot, 4);
    let (start, size) = debuggee.functions("Hyp>::pkvm_host_share_hyp")[0];
    let mut session = debuggee.attach();
    session.set_pace(0);
    let text = session.words(start, size as usize / 8);
    drop(session);
    for (what, deed) in DEEDS {
        for runs in [false, true] {
            eprintln!(
                "a client that {what}, while the machine {}",
                if runs { "runs" } else { "stands" }
            );
            if runs {
                debuggee.attach().client.order("D");
            }
            let path = debuggee.machine.channel().strip_prefix("unix:");
            let mut line = UnixStream::connect(path.expect("a Unix socket")).expect("QEMU listens");
            line.set_write_timeout(Some(PATIENCE)).expect("a socket");
            line.set_read_timeout(Some(LIMIT)).expect("a socket");
            deed(&mut line);
            drop(line);
            all_is_well(&debuggee, &text);
        }
    }
    let mut session = debuggee.attach();
    session.set_pace(4);
    let rounds = session.counters().rounds;
    session.client.order("D");
    drop(session);
    debuggee.wait_for_rounds(rounds + 2);
}

/// Virtual addresses at which there is no memory: hyp's and the host's names of devices, and holes. fw_cfg's data
/// register is one, whose reading has an effect.
const NO_MEMORY: [u64; 10] = [
    FW_CFG,
    0x40_0000_0000 + FW_CFG,
    // The UART, which hyp maps.
    0x40_0900_0000,
    0x0900_0000,
    // The distributor, the console's transport.
    0x40_0800_0000,
    0x40_0a00_3e00,
    0,
    // Where RAM ends.
    0x6000_0000,
    0x40_6000_0000,
    u64::MAX - 7,
];
const FW_CFG: u64 = 0x0902_0000;

#[test]
fn qemu_what_is_no_memory_is_refused_and_never_touched() {
    let boot = Boot::hyp().expect("the image builds");
    let mut debuggee = Debuggee::start(boot, 2);
    // fw_cfg's item 0 is a signature. It is read byte by byte, from the selection on.
    let mut qemu = Client::connect(debuggee.machine.gdb());
    qemu.order("Qqemu.PhyMemMode:1");
    qemu.order(&format!("M{:x},2:0000", FW_CFG + 8));
    qemu.order("D");
    drop(qemu);

    let mut session = debuggee.attach();
    for va in NO_MEMORY {
        for request in [
            format!("m{va:x},4"),
            format!("M{va:x},4:00000000"),
            format!("X{va:x},4:0000"),
            format!("Z0,{va:x},4"),
        ] {
            let answer = session.client.ask(&request);
            assert!(answer.starts_with(b"E"), "{request}: {answer:?}");
        }
        let request = format!("vFile:pread:1,4,{:x}", va & 0xff_ffff_ffff);
        let answer = session.client.ask(&request);
        assert!(answer.starts_with(b"F-1"), "{request}: {answer:?}");
    }
    // What the debugger itself is made of is read only.
    for name in ["el2_vectors", "hyp_image::debugger::world::WORLD"] {
        let (va, _) = debuggee.functions(name)[0];
        let word = session.words(va, 1)[0];
        let data = rsp::to_hex(&word.to_le_bytes());
        let answer = session.client.ask(&format!("M{va:x},8:{data}"));
        assert_eq!(answer, b"E01", "{name}");
    }
    session.client.order("D");
    drop(session);

    let mut qemu = Client::connect(debuggee.machine.gdb());
    for expected in [&b"51454d55"[..], b"00000000"] {
        let data = qemu.ask(&format!("m{FW_CFG:x},4"));
        assert_eq!(data, expected, "QEMU, and then nothing more");
    }
    qemu.order("Qqemu.PhyMemMode:0");
    qemu.order("D");
    debuggee.wait_for_rounds(3);
}
