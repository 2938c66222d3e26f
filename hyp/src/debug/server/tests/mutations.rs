//! Every packet that is known, cut short and changed at every byte, and any bytes at all.

use super::script::{converse, frame, read, stub};
use crate::debug::Stop;
use proptest::prelude::*;
use std::prelude::rust_2024::*;

/// One of each kind. Names of files and commands are in hexadecimal.
const KNOWN: &[&str] = &[
    "qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+",
    "QStartNoAckMode",
    "?",
    "qC",
    "qAttached:1",
    "qfThreadInfo",
    "qsThreadInfo",
    "qThreadExtraInfo,p1.2",
    "Hgp1.2",
    "Hc-1",
    "T2",
    "g",
    "p20",
    "P0=0102030405060708",
    "m4040002000,8",
    "M4040002000,2:beef",
    "X4040002000,3:a}\u{3}b",
    "Z0,4040002100,4",
    "z0,4040002100,4",
    "Z1,4040002100,4",
    "Z4,4040002000,8",
    "vCont?",
    "vCont;s:p1.2;c:p1.-1",
    "vCont;C05:1;S05:2",
    "c",
    "s",
    "D;1",
    "vKill;1",
    "k",
    "qXfer:features:read:target.xml:0,ffb",
    // hyp/description
    "vFile:open:6879702f6465736372697074696f6e,0,1c0",
    "vFile:pread:1,40,40100000",
    "vFile:close:0",
    // page 0x40001000
    "qRcmd,70616765203078343030303130303030",
    "vMustReplyEmpty",
];

/// What bytes become: all that means something somewhere, and some that means nothing.
const CHANGES: [u8; 25] = *b"$#}*+-\x03\x000189aAfFgpx,;:=?\xff";

/// What every client says first, whatever the one before did, and the end of what it hears.
const HELLO: &[u8] = b"qSupported";
const FEATURES: &str = "qXfer:features:read+]";

/// Has each of `attempts` made by a client of its own, and the next client served as it should be.
fn survives(attempts: impl Iterator<Item = Vec<u8>>) {
    let attempts: Vec<_> = attempts.collect();
    let steps = attempts
        .iter()
        .flat_map(|attempt| [attempt.clone(), frame(HELLO), frame(b"m4040002000,1")])
        .collect();
    let mut stub = stub();
    let (heard, running) = converse(&mut stub, false, steps);
    assert!(!running);
    for (attempt, heard) in attempts.iter().zip(heard.chunks(3)) {
        let attempt = String::from_utf8_lossy(attempt);
        assert!(read(&heard[1]).ends_with(FEATURES), "{attempt}");
        let memory = read(&heard[2]);
        assert!(
            memory.starts_with("+[") && memory.len() == 5,
            "{attempt}: {memory}"
        );
    }
}

#[test]
fn cut_short_anywhere() {
    for known in KNOWN {
        let whole = frame(known.as_bytes());
        survives((0..whole.len()).map(|length| whole[..length].to_vec()));
        survives((0..known.len()).map(|length| frame(&known.as_bytes()[..length])));
    }
}

#[test]
fn changed_anywhere() {
    for known in KNOWN {
        let known = known.as_bytes();
        let changed = |bytes: &[u8]| {
            let bytes = bytes.to_vec();
            (0..bytes.len()).flat_map(move |at| {
                let bytes = bytes.clone();
                CHANGES.into_iter().map(move |byte| {
                    let mut bytes = bytes.clone();
                    bytes[at] = byte;
                    bytes
                })
            })
        };
        survives(changed(&frame(known)));
        survives(changed(known).map(|body| frame(&body)));
    }
}

/// Something a client may say.
fn utterance() -> impl Strategy<Value = Vec<u8>> {
    let known = || prop::sample::select(KNOWN).prop_map(|known| known.as_bytes().to_vec());
    let numbers = "[0-9a-f,;:=p.-]{0,24}";
    prop_oneof![
        4 => known().prop_map(|body| frame(&body)),
        2 => (known(), numbers).prop_map(|(mut body, end)| {
            body.truncate(body.len() / 2);
            body.extend(end.bytes());
            frame(&body)
        }),
        1 => (known(), known(), any::<prop::sample::Index>()).prop_map(|(one, other, at)| {
            let (one, other) = (frame(&one), frame(&other));
            [&one[..at.index(one.len())], &other].concat()
        }),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|body| frame(&body)),
        1 => Just(b"\x03".to_vec()),
        1 => Just(b"-".to_vec()),
        1 => Just(Vec::new()),
    ]
}

fn stop() -> impl Strategy<Value = Option<Stop>> {
    prop_oneof![
        4 => Just(None),
        1 => Just(Some(Stop::Breakpoint { cpu: 1 })),
        1 => Just(Some(Stop::Step { cpu: 0 })),
        1 => Just(Some(Stop::Panic { cpu: 1 })),
    ]
}

proptest! {
    /// Whatever clients say and wherever the machine stops, the next client is served, and knows from what it hears
    /// first whether the machine ran.
    #[test]
    fn any_conversation_is_survived(
        utterances in prop::collection::vec(utterance(), 0..20),
        stops in prop::collection::vec(stop(), 0..20),
        running in any::<bool>(),
    ) {
        let attempt = |utterances| {
            let mut stub = stub();
            stub.inferior.stops = stops.clone().into();
            converse(&mut stub, running, utterances)
        };
        let (_, running) = attempt(utterances.clone());
        let (heard, stands) = attempt([utterances, vec![frame(HELLO)]].concat());
        let heard = read(heard.last().unwrap());
        prop_assert!(heard.ends_with(FEATURES), "{}", heard);
        prop_assert_eq!(heard.starts_with("[T02thread:01;]+["), running);
        prop_assert_eq!(heard.starts_with("+["), !running);
        prop_assert!(!stands);
    }
}
