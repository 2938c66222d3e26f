//! Clients that do not keep to the protocol.

use super::script::{check, converse, frame, read, stub};
use crate::debug::server::{FRAME_SIZE, PACKET_SIZE};
use std::prelude::rust_2024::*;

#[test]
fn requests_that_make_no_sense_are_answered_with_an_error() {
    let mut stub = stub();
    for (request, reply) in [
        // Addresses nowhere.
        ("m0,8", "E0e"),
        ("mffffffffffffffff,1", "E0e"),
        ("mffffffffffffffff,ffffffffffffffff", "E0e"),
        ("M0,1:00", "E0e"),
        ("Mffffffffffffffff,2:0000", "E0e"),
        ("X0,1:a", "E0e"),
        ("vFile:pread:1,8,ffffffffffffffff", "F-1,0e"),
        ("Z0,ffffffffffffffff,4", "E0e"),
        // Lengths that are not so, and numbers that do not fit.
        ("m4040002000,10000000000000000", "E16"),
        ("m10000000000000000,8", "E16"),
        ("M4040002000,ffffffffffffffff:00", "E16"),
        ("X4040002000,ffffffffffffffff:a", "E16"),
        ("X4040002000,1:}", "E16"),
        ("M4040002000,1:0g", "E16"),
        ("P0=00", "E79"),
        ("P0=000000000000000000", "E79"),
        ("P0=", "E79"),
        ("P", "E16"),
        ("P10000000000000000=0", "E16"),
        ("pffffffffffffffff", ""),
        ("p10000000000000000", "E16"),
        ("G00", "E16"),
        ("Gzz", "E16"),
        ("Z0,10000000000000000,4", "E16"),
        ("Z0,4040002100,10000000000000000", "E16"),
        ("Z100,4040002100,4", "E16"),
        ("Z0", "E16"),
        ("z", "E16"),
        ("Hg3", "E03"),
        ("Hg-1", "E16"),
        ("Hg", "E16"),
        ("Hgp1", "E16"),
        ("Hg10000000000000000", "E16"),
        ("H", "E16"),
        ("Hx1", "E16"),
        ("T0", "E16"),
        ("T-1", "E16"),
        ("T3", "E01"),
        ("T", "E16"),
        ("qThreadExtraInfo,0", "E16"),
        ("qThreadExtraInfo,ffffffffffffffff", ""),
        ("qRcmd,0", "OK"),
        ("qRcmd,zz", "E16"),
        (
            "qXfer:features:read:target.xml:ffffffffffffffff,ffffffffffffffff",
            "l",
        ),
        ("qXfer:features:read:target.xml:10000000000000000,1", "E16"),
        ("qXfer:features:read:target.xml:0", "E16"),
        ("qXfer:features:read:nothing.xml:0,fff", "E79"),
        ("qXfer:features:read", "E16"),
        ("qXfer:exec-file:read::0,fff", ""),
        ("vFile:open:zz,0,0", "E16"),
        ("vFile:open:,0,0", "F-1,02"),
        ("vFile:open", "E16"),
        ("vFile:pread:0,1", "E16"),
        ("vFile:pread:ffffffff,1,0", "F-1,09"),
        ("vFile:pread:100000000,1,0", "E16"),
        ("vFile:close:", "E16"),
        ("vFile:pwrite:0,0,00", ""),
        ("vFile:setfs:0", ""),
        ("vKill", "E16"),
        ("kill", "E16"),
        ("QStartNoAckMode+", "E16"),
        // Not known here.
        ("", ""),
        ("!", ""),
        ("R00", ""),
        ("vRun;", ""),
        ("x4040002000,8", ""),
        ("qSupportedToo", "E16"),
        ("\u{0}", ""),
        ("ö", ""),
    ] {
        let sent = format!("[{reply}]");
        let (heard, running) = converse(&mut stub, false, [frame(request.as_bytes())].into());
        let heard = read(&heard[0]);
        // A monitor command may have talked first.
        assert!(
            heard.starts_with('+') && heard.ends_with(&sent),
            "{request}: {heard}"
        );
        assert!(!running, "{request}");
        assert_eq!(stub.inferior.runs, 0, "{request}");
    }
    let inferior = &stub.inferior;
    assert_eq!(
        (&inferior.registers[..], &inferior.breakpoints[..]),
        (&[][..], &[][..])
    );
}

#[test]
fn replies_to_huge_requests_are_as_long_as_a_packet_at_most() {
    for (request, bytes) in [
        ("m4040002000,ffffffffffffffff", 2 * 0x3000),
        ("vFile:pread:1,ffffffffffffffff,40000000", 0),
        ("qXfer:features:read:target.xml:0,ffffffffffffffff", 0),
    ] {
        let (heard, _) = converse(&mut stub(), false, [frame(request.as_bytes())].into());
        let length = heard[0].len() - 1;
        assert!(
            (1000..=PACKET_SIZE).contains(&length),
            "{request}: {length}"
        );
        if bytes > 0 {
            assert_eq!(length, bytes + FRAME_SIZE, "{request}");
        }
    }
}

#[test]
fn a_reply_may_be_as_long_as_a_packet() {
    let mut stub = stub();
    // A block of 2 MiB at the start of RAM, where hyp's linear map has it.
    stub.inferior
        .words
        .insert(0x4010_5000, 0x0040_0000_4000_0741);
    let (heard, _) = converse(&mut stub, false, [frame(b"m4040000000,ffffffff")].into());
    assert_eq!(heard[0].len(), 1 + PACKET_SIZE);
}

#[test]
fn bytes_between_packets_mean_nothing() {
    let table = [
        ("=garbage", ""),
        ("=#00+++", ""),
        ("=\u{0}%Stop:T05#00", ""),
        ("qC", "+[QC01]"),
        ("=???", ""),
        ("QStartNoAckMode", "+[OK]"),
        ("=+ +", ""),
        ("qC", "[QC01]"),
    ];
    check(&mut stub(), false, &table);
}

#[test]
fn damaged_packets_are_asked_for_again_where_packets_are_acknowledged() {
    let table = [
        ("=$qC#00", "-"),
        ("=$qC#zz", "-"),
        ("=$qC#b4", "+[QC01]"),
        ("=-", "[QC01]"),
        ("=--", "[QC01][QC01]"),
        ("QStartNoAckMode", "+[OK]"),
        ("=$qC#00", ""),
        ("=$qC#zz", ""),
        ("=-", ""),
        ("qC", "[QC01]"),
    ];
    check(&mut stub(), false, &table);
}

#[test]
fn a_machine_that_runs_is_stopped_by_whole_packets_only() {
    let mut stub = stub();
    let table = [
        ("vCont;c", "+"),
        ("=garbage+-", ""),
        ("=$qC#00", "-"),
        ("=$m40", ""),
        ("=$qSupported#3", ""),
        ("=\u{3}", "[T02thread:01;]"),
    ];
    assert!(!check(&mut stub, false, &table));
    assert_eq!(stub.inferior.runs, 5);
}

#[test]
fn a_packet_that_is_cut_short_gives_way_to_the_next() {
    for half in [
        "$",
        "$m",
        "$m4040002000,8",
        "$X40,4:\u{3}",
        "$m40,8#",
        "$m40,8#4",
    ] {
        let half = format!("={half}");
        let mut table = vec![(&*half, ""), ("qC", "+[QC01]")];
        check(&mut stub(), false, &table);
        table.extend([("QStartNoAckMode", "+[OK]"), (&*half, ""), ("qC", "[QC01]")]);
        check(&mut stub(), false, &table);
    }
}

#[test]
fn a_packet_may_be_as_long_as_promised_and_no_longer() {
    let most = PACKET_SIZE - FRAME_SIZE;
    let body = |length: usize| frame(&vec![b'u'; length]);
    let write = |length: usize| {
        let header = format!("X4040000000,{length:x}:");
        frame(&[header.as_bytes(), &vec![b'a'; length]].concat())
    };
    let header = "X4040000000,ffee:".len();
    for (said, heard) in [
        (body(most), "+[]"),
        (body(most + 1), "+[E07]"),
        (body(3 * most), "+[E07]"),
        (write(most - header), "+[OK]"),
        (write(most - header + 1), "+[E07]"),
        (
            [&body(most + 1)[..], &frame(b"qC")].concat(),
            "+[E07]+[QC01]",
        ),
    ] {
        let mut stub = stub();
        stub.inferior
            .words
            .insert(0x4010_5000, 0x0040_0000_4000_0741);
        let (replies, _) = converse(&mut stub, false, [said].into());
        assert_eq!(read(&replies[0]), heard);
    }
    // It stops a machine that runs, as any packet does.
    let (replies, running) = converse(&mut stub(), true, [body(most + 1)].into());
    assert_eq!(read(&replies[0]), "[T02thread:01;]+[E07]");
    assert!(!running);
}

#[test]
fn console_text_comes_line_by_line() {
    let request = format!("qRcmd,{}", "6c6f636b73");
    let (heard, _) = converse(&mut stub(), false, [frame(request.as_bytes())].into());
    let heard = read(&heard[0]);
    let pieces: Vec<_> = heard.split_inclusive(']').collect();
    assert_eq!(pieces.len(), 2, "one lock, and OK: {heard}");
    assert!(
        pieces[0].starts_with("+[O") && pieces[0].ends_with("0a]"),
        "{heard}"
    );
    assert_eq!(pieces[1], "[OK]");
}
