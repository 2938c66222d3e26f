//! hyp's own channel.

use super::*;

/// hyp's channel: files, and pieces shorter than asked for.
fn hyp(description: &'static str) -> Server {
    let mut qemu = Qemu::default();
    Server::start(b"", move |request, out| {
        let describe = to_hex(b"hyp/description");
        let physmem = to_hex(b"hyp/physmem");
        let numbers = |arguments: &str| -> Vec<u64> {
            let numbers = arguments.split(',');
            numbers
                .map(|n| u64::from_str_radix(n, 16).unwrap())
                .collect()
        };
        let mut file = |content: &[u8]| {
            let head = format!("F{:x};", content.len());
            encode(&[head.as_bytes(), content].concat(), out);
        };
        match request {
            "qqemu.PhyMemMode" => encode(b"", out),
            "QStartNoAckMode" => encode(b"OK", out),
            _ if request == format!("vFile:open:{describe},0,0") => encode(b"F1", out),
            _ if request == format!("vFile:open:{physmem},0,0") => encode(b"F2", out),
            _ if request.starts_with("vFile:close:") => encode(b"F0", out),
            _ => match request.strip_prefix("vFile:pread:").map(numbers) {
                Some(arguments) => match arguments[..] {
                    [1, count, offset] => {
                        let rest = &description.as_bytes()[offset as usize..];
                        file(&rest[..rest.len().min(count as usize).min(20)]);
                    }
                    [2, _, 0x4000_5000..0x4000_6000] => encode(b"F-1,e", out),
                    // Every byte value occurs, so escapes do, too.
                    [2, count, offset] => file(&content(Span::new(offset, count.min(700)))),
                    _ => encode(b"F-1,9", out),
                },
                None => return qemu.answer(request, out),
            },
        }
        true
    })
}

const DESCRIPTION: &str =
    r#"{"format":"hyp.description/1","ram":[{"base":"0x40000000","size":1048576}]}"#;

#[test]
fn hyps_channel_is_read_through_its_files() {
    let server = hyp(DESCRIPTION);
    let mut gdb = server.attach(PATIENT).unwrap();
    assert_eq!(gdb.description().unwrap().as_deref(), Some(DESCRIPTION));
    assert_eq!(gdb.ram().unwrap(), Some(vec![RAM]));
    assert_eq!(
        gdb.registers(0).unwrap().get("pc"),
        Some(0x0202_0202_0202_0202)
    );
    let refused = Span::new(0x4000_5000, 8);
    let spans = [
        Span::new(RAM.start, 0x3001),
        refused,
        Span::new(0x900_0000, 4),
        Span::new(RAM.start + 0x701, 1),
    ];
    assert_eq!(
        gdb.read_phys(&spans).unwrap(),
        [
            Ok(content(spans[0])),
            Err(ReadError::Refused {
                span: refused,
                reason: "hyp answered error 14 for 0x40005000..=0x40005007".to_owned()
            }),
            Err(ReadError::Unbacked(spans[2])),
            Ok(content(spans[3])),
        ]
    );
    drop(gdb);
    let log = server.log();
    assert!(
        !log.iter()
            .any(|request| request.starts_with('m') || request.starts_with('D'))
    );
    assert_eq!(modes(&log), [""; 0]);
}

#[test]
fn a_self_description_that_is_none_is_an_error() {
    for (description, says) in [
        ("", "it is not what it should be"),
        (
            "{\"ram\":[{\"base\":\"here\",\"size\":1}]}",
            "`here` is no address of RAM",
        ),
    ] {
        let error = hyp(description).attach(PATIENT).unwrap_err().to_string();
        assert!(error.contains("reading hyp's self-description"), "{error}");
        assert!(error.contains(says), "{error}");
    }
}

/// A server behind a serial console cannot see that a client is gone, and answers the next one what that one asked.
#[test]
fn answers_to_an_older_client_are_passed_over() {
    let mut qemu = Qemu::default();
    let mut first = true;
    let server = Server::start(b"", move |request, out| {
        if std::mem::take(&mut first) {
            out.extend(b"beef#00");
            encode(b"F3;abc", out);
            encode(b"T05thread:01;", out);
            encode(b"m01", out);
            out.push(b'-');
            return true;
        }
        qemu.answer(request, out)
    });
    let mut gdb = server.attach(PATIENT).unwrap();
    assert_eq!(gdb.cpu_count().unwrap(), 2);
    // The stop was the other client's: this one did not stop anything.
    assert!(!gdb.run_control().unwrap().found_running());
    drop(gdb);
    let log = server.log();
    assert_eq!(log[..2], [HELLO, HELLO]);
    assert!(!log.iter().any(|request| request.starts_with('D')));

    let server = Server::start(b"", |_, out| {
        for _ in 0..2000 {
            encode(b"F0;", out);
        }
        true
    });
    let error = server.attach(PATIENT).unwrap_err().to_string();
    assert!(
        error.contains("greeting the gdb server: the server does not answer what it is asked"),
        "{error}"
    );
}
