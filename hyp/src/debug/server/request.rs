//! Requests as gdbstub takes them right.

use super::{EINVAL, FRAME_SIZE, PACKET_SIZE};
use crate::debug::window::Window;
use core::fmt::{self, Write};

/// The most memory that one reply has room for: two digits a byte.
const MOST_MEMORY: u64 = (PACKET_SIZE - FRAME_SIZE) as u64 / 2;

/// Room for a request that was put in other words.
pub(super) type Scratch = [u8; 64];

/// What to ask of gdbstub for `body`, while `thread` is selected: the same, but for what gdbstub takes otherwise than
/// the protocol has it.
///
/// # Errors
/// The request contradicts itself.
pub(super) fn reword<'a>(
    body: &'a [u8],
    thread: usize,
    scratch: &'a mut Scratch,
) -> Result<&'a [u8], u8> {
    match body {
        // The features a client has are for the server; gdbstub reads none but `multiprocess`.
        _ if is_hello(body) => Ok(b"qSupported:multiprocess-"),
        // It takes more memory than a reply has room for in several reads, and adds up their addresses.
        [b'm', rest @ ..] => match span(rest) {
            Some((va, size, [])) => {
                let size = size.min(MOST_MEMORY);
                Ok(format(scratch, format_args!("m{va:x},{size:x}")))
            }
            _ => Err(EINVAL),
        },
        // It takes the data that is there, whatever length was announced.
        [b'M', rest @ ..] => match span(rest) {
            Some((_, size, [b':', data @ ..]))
                if size.checked_mul(2) == Some(data.len() as u64) =>
            {
                Ok(body)
            }
            _ => Err(EINVAL),
        },
        [b'X', rest @ ..] => match span(rest) {
            Some((_, size, [b':', data @ ..])) if size == unescaped_size(data) => Ok(body),
            _ => Err(EINVAL),
        },
        // It resumes only the CPU that stopped.
        b"c" => Ok(b"vCont;c"),
        b"s" => Ok(format(scratch, format_args!("vCont;s:{thread:x};c"))),
        // It resumes a CPU where that stands, whatever address was given.
        [b'c' | b's', ..] => Err(EINVAL),
        _ => Ok(body),
    }
}

/// Whether a client begins a session: `qSupported`, and its features if it has any.
pub(super) fn is_hello(body: &[u8]) -> bool {
    matches!(body.strip_prefix(b"qSupported"), Some([] | [b':', ..]))
}

/// Writes a request into `scratch`, as far as it has room.
pub(super) fn format<'a>(scratch: &'a mut Scratch, request: fmt::Arguments<'_>) -> &'a [u8] {
    let mut window = Window::new(0, scratch);
    // Fails only when the window is full.
    let _ = window.write_fmt(request);
    let kept = window.kept();
    &scratch[..kept]
}

/// `ADDRESS,SIZE`, and what stands behind it.
fn span(text: &[u8]) -> Option<(u64, u64, &[u8])> {
    let comma = text.iter().position(|byte| *byte == b',')?;
    let (va, rest) = (&text[..comma], &text[comma + 1..]);
    let digits = rest.iter().take_while(|byte| **byte != b':').count();
    let (size, rest) = rest.split_at(digits);
    Some((number(va)?, number(size)?, rest))
}

/// How many bytes binary data stands for: `}` announces one that must not be sent as it is.
fn unescaped_size(data: &[u8]) -> u64 {
    let mut bytes = data.iter();
    let mut size = 0;
    while let Some(byte) = bytes.next() {
        if *byte == b'}' {
            bytes.next();
        }
        size += 1;
    }
    size
}

/// The value of a number of the protocol: hexadecimal, without a sign.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let add = |value: u64, byte: &u8| value.checked_mul(16)?.checked_add(digit(*byte)?.into());
    if text.is_empty() {
        None
    } else {
        text.iter().try_fold(0, add)
    }
}

/// The value of a hexadecimal digit.
pub(super) fn digit(byte: u8) -> Option<u8> {
    // At most 15.
    char::from(byte).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::prelude::rust_2024::*;

    #[test]
    fn requests_are_reworded_or_refused_or_left_alone() {
        let cases: &[(&str, Option<&str>)] = &[
            ("m40,8", Some("m40,8")),
            ("m0040,7ffe", Some("m40,7ffe")),
            ("m40,7fff", Some("m40,7ffe")),
            ("m40,ffffffffffffffff", Some("m40,7ffe")),
            ("mffffffffffffffff,0", Some("mffffffffffffffff,0")),
            ("m40,10000000000000000", None),
            ("m10000000000000000,1", None),
            ("m40", None),
            ("m40,", None),
            ("m,8", None),
            ("m", None),
            ("m0x40,8", None),
            ("m-1,8", None),
            ("m40,8:", None),
            ("m40,8,8", None),
            ("M40,2:beef", Some("M40,2:beef")),
            ("M40,0:", Some("M40,0:")),
            ("M40,2:bee", None),
            ("M40,2:beefbe", None),
            ("M40,ffffffffffffffff:", None),
            ("M40,8000000000000000:", None),
            ("M40,2", None),
            ("X40,2:ab", Some("X40,2:ab")),
            ("X40,2::,", Some("X40,2::,")),
            ("X40,2:}\u{3}}]", Some("X40,2:}\u{3}}]")),
            ("X40,0:", Some("X40,0:")),
            ("X40,2:}\u{3}", None),
            ("X40,1:", None),
            ("X40,1", None),
            ("c", Some("vCont;c")),
            ("s", Some("vCont;s:2;c")),
            ("c40", None),
            ("s40", None),
            ("qSupported", Some("qSupported:multiprocess-")),
            ("qSupported:", Some("qSupported:multiprocess-")),
            ("qSupported:;;a", Some("qSupported:multiprocess-")),
            ("qSupportedX", Some("qSupportedX")),
            ("", Some("")),
            ("vCont;c", Some("vCont;c")),
        ];
        for (body, expected) in cases {
            let mut scratch = [0; 64];
            let request = reword(body.as_bytes(), 2, &mut scratch);
            let expected = expected.map(str::as_bytes).ok_or(EINVAL);
            assert_eq!(request, expected, "{body}");
        }
    }

    #[test]
    fn the_longest_rewording_fits() {
        let mut scratch = [0; 64];
        let request = format!("m{:x},{MOST_MEMORY:x}", u64::MAX);
        assert_eq!(
            reword(request.as_bytes(), usize::MAX, &mut scratch),
            Ok(request.as_bytes())
        );
        let step = format!("vCont;s:{:x};c", usize::MAX);
        assert_eq!(reword(b"s", usize::MAX, &mut scratch), Ok(step.as_bytes()));
    }

    #[test]
    fn numbers_are_hexadecimal_and_fit() {
        for (text, value) in [
            ("0", Some(0)),
            ("00fF", Some(0xff)),
            ("ffffffffffffffff", Some(u64::MAX)),
            ("0000000000000000001", Some(1)),
            ("10000000000000000", None),
            ("", None),
            ("x", None),
            ("+1", None),
            ("-1", None),
        ] {
            assert_eq!(number(text.as_bytes()), value, "{text}");
        }
    }
}
