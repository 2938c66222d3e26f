//! Corrupt descriptors written into the running embedded machine: each is marked, everything else is
//! shown as before, and the status is 3.

use crate::run::{Ran, inspector};
use inspector::demo::{self, Demo};
use inspector::session::Opener;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// VA − PA of EL2's linear range.
const LINEAR: u64 = 0x40_0000_0000;

/// Writes a word of hyp's memory by an `M` packet, as a debugger does.
fn poke(demo: &Demo, pa: u64, word: u64) {
    let mut stream = TcpStream::connect(demo.address()).expect("the demo listens");
    let data: String = word
        .to_le_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    // Thread 1 is CPU 0, which stands at EL2.
    for packet in ["Hg1".to_owned(), format!("M{:x},8:{data}", pa + LINEAR)] {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        write!(stream, "${packet}#{sum:02x}").expect("it reads");
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).expect("it answers");
        assert_eq!(&answer, b"+$OK#9a", "{packet}");
        stream.write_all(b"+").expect("it reads");
    }
}

/// Where a zero word of a host table of `level` is: its physical address, the table's, and the
/// input address.
fn zero_slot(demo: &Demo, level: i8) -> (u64, u64, u64) {
    let opener = Opener {
        target: demo.address().to_string(),
        images: Vec::new(),
        timeout: Duration::from_secs(5),
    };
    let system = opener
        .open()
        .and_then(|mut session| Ok(session.capture()?))
        .expect("a sound demo");
    let host = &system.regimes[0];
    let tables = host.tables.iter().filter(|table| table.level == level);
    let (table, index) = tables
        .filter_map(|table| Some((table, table.words.iter().position(|word| *word == 0)?)))
        .next()
        .expect("a table with a zero word");
    let ia = table.ia + index as u64 * host.regime.entry_size(level);
    (table.pa + index as u64 * 8, table.pa, ia)
}

fn list(demo: &Demo) -> Ran {
    inspector(["list", &demo.address().to_string(), "--no-merge", "--json"])
}

fn entries(ran: &Ran) -> Vec<Value> {
    ran.json()["entries"].as_array().expect("an array").clone()
}

#[test]
fn each_corrupt_descriptor_is_marked_and_the_rest_is_shown() {
    type Word = fn(u64) -> u64;
    let cases: [(i8, Word, &str, &str); 3] = [
        (3, |_| 0x4200_0001, "reserved", "reserved at level 3"),
        (2, |table| table | 3, "loop", "0x"),
        (2, |_| 0x7_0000_0003, "unreadable", "0x700000000"),
    ];
    for (level, word, kind, problem) in cases {
        let demo = demo::start().expect("a demo");
        let sound = list(&demo);
        assert_eq!(sound.status, 0, "{}", sound.stderr);
        let (at, table, ia) = zero_slot(&demo, level);
        poke(&demo, at, word(table));

        let damaged = list(&demo);
        assert_eq!(damaged.status, 3, "{kind}");
        assert_eq!(damaged.json()["complete"], json!(false));
        let (marked, others): (Vec<_>, Vec<_>) = entries(&damaged)
            .into_iter()
            .partition(|entry| entry["ia"] == format!("{ia:#x}"));
        assert_eq!(others, entries(&sound), "{kind}");
        assert_eq!(marked.len(), 1);
        let entry = &marked[0];
        assert_eq!(
            (&entry["kind"], &entry["level"]),
            (&json!(kind), &json!(level))
        );
        assert_eq!(entry["raw"], format!("{:#x}", word(table)));
        assert_eq!(
            (&entry["state"], &entry["owner"]),
            (&Value::Null, &Value::Null)
        );
        let said = entry["problem"].as_str().expect("a sentence");
        assert!(said.contains(problem), "{said}");
        // The same sentence is on standard error, with the place.
        assert_eq!(damaged.stderr.lines().count(), 1);
        assert!(
            damaged
                .stderr
                .contains(&format!("host-s2 {ia:#x}, level {level}")),
            "{}",
            damaged.stderr
        );
        assert!(damaged.stderr.contains(said), "{}", damaged.stderr);

        // Every other command still answers, and says that something is missing.
        for command in ["owners", "locks", "cpus", "info"] {
            let ran = inspector([command, &demo.address().to_string(), "--json"]);
            assert_eq!(ran.status, 3, "{command}");
            assert_eq!(ran.json()["complete"], json!(false));
        }
    }
}
