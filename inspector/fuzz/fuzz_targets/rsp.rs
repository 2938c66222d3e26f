//! Any bytes from a server, cut anywhere, are events within the limit, and the same ones.
#![no_main]

use inspector::target::rsp::{Decoder, Event};
use libfuzzer_sys::fuzz_target;
use std::collections::VecDeque;

const LIMIT: usize = 256;

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let (first, second) = bytes.split_at(cut % (bytes.len() + 1));
    let mut events = VecDeque::new();
    let mut decoder = Decoder::new(LIMIT);
    decoder.feed(first, &mut events);
    decoder.feed(second, &mut events);
    let mut decoder = Decoder::new(LIMIT);
    let single: VecDeque<_> = bytes.iter().filter_map(|byte| decoder.push(*byte)).collect();
    assert_eq!(events, single);
    for event in events {
        if let Event::Packet(body) | Event::Notification(body) = event {
            assert!(body.len() <= LIMIT);
        }
    }
});
