//! Servers that fall silent, go away or answer nonsense.

use super::*;

#[test]
fn a_link_dropped_in_the_middle_of_a_read_is_lost() {
    let server = qemu_that("m4", |out| {
        out.extend(b"$0011");
        false
    });
    let mut gdb = server.attach(PATIENT).unwrap();
    let error = gdb.read_phys(&[RAM]).unwrap_err();
    assert!(matches!(error, TargetError::Lost { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("link lost while reading physical memory")
    );
}

#[test]
fn a_server_that_falls_silent_is_given_up_in_time_and_put_in_order() {
    let mut first = true;
    let mut qemu = Qemu::default();
    let server = Server::start(&packet("T02thread:01;"), move |request, out| {
        if request.starts_with('m') && std::mem::take(&mut first) {
            return true;
        }
        qemu.answer(request, out)
    });
    let mut gdb = server.attach(SHORT_AFTER_WORDS).unwrap();
    let error = gdb.read_phys(&[Span::new(RAM.start, 8)]).unwrap_err();
    // The next reply stands where the read's should: too few replies, so the wait for the last one ends.
    assert!(matches!(error, TargetError::Timeout { .. }), "{error}");
    drop(gdb);
    let log = server.log();
    assert_eq!(modes(&log).last(), Some(&"0"));
    assert_eq!(log.last().unwrap(), "D;1");
}

#[test]
fn a_silent_port_is_given_up() {
    let server = Server::start(b"", |_, _| true);
    let error = server.attach(SHORT).unwrap_err();
    assert!(matches!(error, TargetError::Timeout { .. }), "{error}");
    let error = error.to_string();
    assert!(
        error.contains("no answer within 0.1 s while greeting"),
        "{error}"
    );
    assert!(error.contains("is another client attached?"), "{error}");
}

#[test]
fn a_server_of_something_else_is_recognised() {
    for greeting in [&b"SSH-2.0-OpenSSH\r\n"[..], b"220 mail ready\r\n"] {
        let server = Server::start(greeting, |_, _| true);
        let error = server.attach(SHORT_AFTER_WORDS).unwrap_err().to_string();
        assert!(
            error.contains("does not speak the gdb remote protocol"),
            "{error}"
        );
    }
    let server = Server::start(b"", |_, out| {
        out.extend(b"HTTP/1.1 400 Bad Request\r\n");
        false
    });
    let error = server.attach(PATIENT).unwrap_err().to_string();
    assert!(
        error.contains("does not speak the gdb remote protocol"),
        "{error}"
    );
}

#[test]
fn another_gdb_server_is_named_as_such() {
    let server = Server::start(b"", |_, out| {
        encode(b"", out);
        true
    });
    let error = server.attach(PATIENT).unwrap_err().to_string();
    assert!(error.contains("neither QEMU's nor hyp's"), "{error}");
}

#[test]
fn damaged_packets_are_an_error() {
    for (raw, says) in [
        (&b"$00#01"[..], "its checksum is wrong"),
        (b"$a*\x1c#a7", "coding is wrong"),
        (b"-", "arrived damaged"),
    ] {
        let server = qemu_that("m4", move |out| {
            out.extend(raw);
            true
        });
        let mut gdb = server.attach(PATIENT).unwrap();
        let error = gdb.read_phys(&[Span::new(RAM.start, 1)]).unwrap_err();
        assert!(matches!(error, TargetError::Protocol { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn a_first_packet_that_ended_an_older_clients_is_sent_again() {
    let mut qemu = Qemu::default();
    let mut first = true;
    let server = Server::start(b"", move |request, out| {
        if std::mem::take(&mut first) {
            out.push(b'-');
            return true;
        }
        qemu.answer(request, out)
    });
    server.attach(PATIENT).unwrap();
    assert_eq!(server.log()[..2], [HELLO, HELLO]);
}

#[test]
fn wrong_answers_to_attaching_are_one_sentence_each() {
    let cases = [
        ("qRcmd", "", "`monitor info mtree -f` was answered with ``"),
        ("qRcmd", "OK", "names no RAM"),
        (
            "qfThreadInfo",
            "E01",
            "listing the CPUs: the server answered `E01`",
        ),
        ("qfThreadInfo", "l", "there are none"),
        ("qfThreadInfo", "mzz", "`zz` is no thread"),
        ("qXfer", "E00", "the server answered `E00`"),
        ("qXfer", "m", "the server answered `m`"),
        ("qXfer", "l<target/>", "no register `pc`"),
    ];
    for (request, answer, says) in cases {
        let server = qemu_that(request, move |out| {
            encode(answer.as_bytes(), out);
            true
        });
        let error = server.attach(PATIENT).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn descriptions_without_end_are_refused() {
    let server = qemu_that("qXfer", |out| {
        encode(&[&b"m"[..], &[b' '; 4000]].concat(), out);
        true
    });
    let error = server.attach(PATIENT).unwrap_err().to_string();
    assert!(error.contains("target description"), "{error}");

    let server = qemu_that("qXfer", |out| {
        encode(b"l<xi:include href=\"target.xml\"/>", out);
        true
    });
    let error = server.attach(PATIENT).unwrap_err().to_string();
    assert!(error.contains("too many parts"), "{error}");

    let server = qemu_that("qsThreadInfo", |out| {
        encode(b"m01", out);
        true
    });
    let error = server.attach(PATIENT).unwrap_err().to_string();
    assert!(error.contains("there are too many"), "{error}");
}
