use super::*;
use proptest::prelude::*;

const LIMIT: usize = 0x1000;

fn decode(bytes: &[u8]) -> Vec<Event> {
    let mut events = VecDeque::new();
    Decoder::new(LIMIT).feed(bytes, &mut events);
    events.into()
}

fn packet(body: &[u8]) -> Event {
    Event::Packet(body.to_vec())
}

/// Frames a body as it stands: already escaped and run-length coded.
fn framed(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    [b"$", body, format!("#{sum:02x}").as_bytes()].concat()
}

#[test]
fn every_kind_of_event_is_told_apart() {
    use Event::*;
    let cases: &[(&[u8], &[Event])] = &[
        (b"", &[]),
        (b"+", &[Ack]),
        (b"-", &[Nak]),
        (b"\x03", &[Interrupt]),
        (b"$#00", &[packet(b"")]),
        (b"$OK#9a", &[packet(b"OK")]),
        (b"$OK#9A", &[packet(b"OK")]),
        (b"+$OK#9a+", &[Ack, packet(b"OK"), Ack]),
        (b"%Stop#a6", &[Notification(b"Stop".to_vec())]),
        (b"$OK#9b", &[Damaged(Damage::Checksum)]),
        (b"$OK#zz", &[Damaged(Damage::Checksum)]),
        (b"$OK", &[]),
        (b"$OK#9", &[]),
        (b"noise$OK#9anoise", &[packet(b"OK")]),
        (b"$lost$OK#9a", &[Damaged(Damage::Restarted), packet(b"OK")]),
        (b"$OK#9b$OK#9a", &[Damaged(Damage::Checksum), packet(b"OK")]),
    ];
    for (bytes, events) in cases {
        assert_eq!(&decode(bytes), events, "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn escapes_and_runs_are_undone() {
    let cases: &[(&[u8], &[u8])] = &[
        (b"}\x03", b"#"),
        (b"}\x04", b"$"),
        (b"}]", b"}"),
        (b"}\x0a", b"*"),
        // 32 - 29 = 3 more; 126 - 29 = 97 more, the longest run.
        (b"0* ", b"0000"),
        (b"a0*\x22b", b"a000000b"),
        (b"x*~", &[b'x'; 98]),
        // A run repeats what an escape decoded to.
        (b"}]* ", b"}}}}"),
        (b"0* 1*!", b"000011111"),
    ];
    for (coded, plain) in cases {
        assert_eq!(
            decode(&framed(coded)),
            [packet(plain)],
            "{}",
            String::from_utf8_lossy(coded)
        );
    }
}

#[test]
fn wrong_coding_is_refused() {
    for coded in [&b"* "[..], b"a*\x1c", b"a*\x7f", b"a*", b"a}"] {
        assert_eq!(
            decode(&framed(coded)),
            [Event::Damaged(Damage::Coding)],
            "{coded:?}"
        );
    }
}

#[test]
fn the_limit_holds_to_the_byte_and_the_next_packet_is_fine() {
    let fits = framed(&vec![b'a'; LIMIT]);
    assert_eq!(decode(&fits), [packet(&vec![b'a'; LIMIT])]);

    let mut beyond = framed(&vec![b'a'; LIMIT + 1]);
    beyond.extend(b"$OK#9a");
    assert_eq!(
        decode(&beyond),
        [Event::Damaged(Damage::Oversize), packet(b"OK")]
    );

    let runs = framed(&[&b"a"[..], &b"*~".repeat(LIMIT / 97 + 1)].concat());
    assert_eq!(decode(&runs), [Event::Damaged(Damage::Oversize)]);
}

#[test]
fn noise_is_counted() {
    let mut decoder = Decoder::new(LIMIT);
    decoder.feed(b"SSH-2.0\r\n$OK#9a", &mut VecDeque::new());
    // The dash is a refusal, everything else means nothing.
    assert_eq!(decoder.skipped(), 8);
}

#[test]
fn hexadecimal_digits() {
    assert_eq!(from_hex(b"00fFa9"), Some(vec![0, 0xff, 0xa9]));
    assert_eq!(from_hex(b""), Some(vec![]));
    assert_eq!(from_hex(b"0"), None);
    assert_eq!(from_hex(b"0g"), None);
    assert_eq!(to_hex(&[0, 0xff, 0x1a]), "00ff1a");
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = Vec::new();
        encode(&body, &mut bytes);
        prop_assert_eq!(decode(&bytes), [packet(&body)]);
    }

    #[test]
    fn where_the_stream_is_cut_makes_no_difference(
        bytes in proptest::collection::vec(
            prop_oneof![Just(b'$'), Just(b'#'), Just(b'*'), Just(b'}'), Just(b'0'), any::<u8>()],
            0..300,
        ),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..5),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = VecDeque::new();
        let mut decoder = Decoder::new(64);
        let mut from = 0;
        for to in cuts.into_iter().chain([bytes.len()]) {
            decoder.feed(&bytes[from..to], &mut pieces);
            from = to;
        }
        let mut whole = VecDeque::new();
        Decoder::new(64).feed(&bytes, &mut whole);
        prop_assert_eq!(&pieces, &whole);
        // Byte by byte there is no short cut for plain bytes.
        let mut decoder = Decoder::new(64);
        let single: VecDeque<_> = bytes.iter().filter_map(|byte| decoder.push(*byte)).collect();
        prop_assert_eq!(&single, &whole);
        for event in whole {
            if let Event::Packet(body) | Event::Notification(body) = event {
                prop_assert!(body.len() <= 64);
            }
        }
    }

    #[test]
    fn garbage_before_a_packet_never_eats_it(
        noise in proptest::collection::vec(any::<u8>(), 0..100),
        body in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        // A first packet may be swallowed as the checksum of what the noise began; a second never is.
        let mut bytes = noise;
        encode(&body, &mut bytes);
        encode(&body, &mut bytes);
        prop_assert_eq!(decode(&bytes).pop(), Some(packet(&body)));
    }

    #[test]
    fn a_changed_byte_never_yields_another_packet(
        body in proptest::collection::vec(any::<u8>(), 0..50),
        at in any::<proptest::sample::Index>(),
        with in 1_u8..=255,
    ) {
        let mut bytes = Vec::new();
        encode(&body, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        // A new frame around the rest may be right by accident: a sum of eight bits is no more than that.
        prop_assume!(!matches!(bytes[at], b'$' | b'#'));
        for event in decode(&bytes) {
            if let Event::Packet(got) = event {
                // Only the case of a checksum digit may change without harm.
                prop_assert_eq!(got, body.clone());
            }
        }
    }
}
