//! hyp's own gdb server: physical memory and the self-description as virtual files.

use super::link::{Link, printable};
use crate::addr::Span;
use crate::target::{ReadError, TargetError, covered, merge, rsp};
use serde::Deserialize;

/// The self-description, as JSON.
const DESCRIPTION: &str = "hyp/description";
/// Physical memory: the offset is the address.
const PHYSMEM: &str = "hyp/physmem";
/// The most a description may be.
const DESCRIPTION_LIMIT: u64 = 1 << 22;
/// Bytes of replies outstanding, together: a virtio console drops what its socket has no room for.
const IN_FLIGHT: u64 = 1 << 16;
/// Chunks per exchange, so that the list of requests stays small.
const CHUNKS: usize = 4096;
const DOING: &str = "reading physical memory";

/// What is particular to hyp's channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) ram: Vec<Span>,
    pub(super) description: String,
    /// Handle of [`PHYSMEM`].
    physmem: u64,
    /// Bytes a read.
    chunk: u64,
}

/// Of the self-description only what a target needs; the rest is the hypervisor layer's.
#[derive(Deserialize)]
struct Facts {
    ram: Vec<Range>,
}

#[derive(Deserialize)]
struct Range {
    base: String,
    size: u64,
}

/// What a server said to a read of a file.
#[derive(PartialEq, Eq, Debug)]
enum Reply<'a> {
    Bytes(&'a [u8]),
    /// A number of the protocol's own list, which follows Unix.
    Errno(u64),
    /// Something else.
    Odd,
}

impl Channel {
    /// Tells hyp from another server, by the file that only hyp has.
    pub(super) fn detect(link: &mut Link, packet_size: usize) -> Result<Option<Self>, TargetError> {
        let doing = "asking whether this is hyp";
        let Some(handle) = open(link, doing, DESCRIPTION)? else {
            return Ok(None);
        };
        link.stop_acknowledging(doing)?;
        let chunk = packet_size.clamp(64, 0x4000);
        let doing = "reading hyp's self-description";
        let description = read_file(link, doing, handle, chunk as u64)?;
        link.ask(doing, &format!("vFile:close:{handle:x}"))?;
        let ram = parse_ram(&description).map_err(|reason| link.protocol(doing, reason))?;
        let physmem = open(link, DOING, PHYSMEM)?
            .ok_or_else(|| link.protocol(DOING, format!("hyp has no virtual file `{PHYSMEM}`")))?;
        Ok(Some(Self {
            ram,
            description,
            physmem,
            chunk: chunk as u64,
        }))
    }

    /// Reads what is RAM.
    pub(super) fn read(
        &self,
        link: &mut Link,
        spans: &[Span],
    ) -> Result<Vec<Result<Vec<u8>, ReadError>>, TargetError> {
        let mut answers: Vec<_> = spans
            .iter()
            .map(|span| match covered(&self.ram, *span) {
                true => Ok(vec![0; usize::try_from(span.size).unwrap_or(0)]),
                false => Err(ReadError::Unbacked(*span)),
            })
            .collect();
        let mut pending: Vec<_> = spans
            .iter()
            .enumerate()
            .filter(|(index, _)| answers[*index].is_ok())
            .flat_map(|(index, span)| {
                let size = self.chunk;
                (0..span.size.div_ceil(size)).map(move |n| {
                    let at = n * size;
                    (index, Span::new(span.start + at, size.min(span.size - at)))
                })
            })
            .collect();
        // Each round brings at least one byte of every chunk, or its end.
        while !pending.is_empty() {
            let mut short = Vec::new();
            for chunks in pending.chunks(CHUNKS) {
                let requests: Vec<_> = chunks
                    .iter()
                    .map(|(_, chunk)| pread(self.physmem, chunk.size, chunk.start))
                    .collect();
                let largest = chunks.iter().map(|(_, chunk)| chunk.size).max();
                link.limit_outstanding(outstanding(largest.unwrap_or(0)));
                let replies = link.exchange(DOING, &requests);
                // All other replies are short.
                link.limit_outstanding(usize::MAX);
                let replies = replies?;
                for (&(index, chunk), reply) in chunks.iter().zip(replies) {
                    match store(&mut answers[index], spans[index], chunk, &reply) {
                        Ok(Some(rest)) => short.push((index, rest)),
                        Ok(None) => {}
                        Err(reason) => {
                            answers[index] = Err(ReadError::Refused {
                                span: spans[index],
                                reason: format!("hyp {reason} for {chunk}"),
                            });
                        }
                    }
                }
            }
            pending = short;
        }
        Ok(answers)
    }
}

/// How many replies of at most `size` bytes of memory may be under way: a byte that is escaped takes two.
fn outstanding(size: u64) -> usize {
    usize::try_from(IN_FLIGHT / (2 * size).max(1)).unwrap_or(usize::MAX)
}

/// Puts what came for one chunk in its place; returns what is still missing of it.
fn store(
    answer: &mut Result<Vec<u8>, ReadError>,
    span: Span,
    chunk: Span,
    reply: &[u8],
) -> Result<Option<Span>, String> {
    let Ok(bytes) = answer else { return Ok(None) };
    let got = match parse_pread(reply) {
        Reply::Bytes(got) if !got.is_empty() && got.len() as u64 <= chunk.size => got,
        Reply::Bytes([]) => return Err("says that memory ends".to_owned()),
        Reply::Errno(errno) => return Err(format!("answered error {errno}")),
        Reply::Bytes(_) | Reply::Odd => return Err(format!("answered `{}`", printable(reply))),
    };
    let length = got.len() as u64;
    let place = usize::try_from(chunk.start - span.start)
        .ok()
        .and_then(|at| bytes.get_mut(at..at + got.len()));
    if let Some(place) = place {
        place.copy_from_slice(got);
    }
    let rest = Span::new(chunk.start + length, chunk.size - length);
    Ok((rest.size > 0).then_some(rest))
}

fn open(link: &mut Link, doing: &str, file: &str) -> Result<Option<u64>, TargetError> {
    let request = format!("vFile:open:{},0,0", rsp::to_hex(file.as_bytes()));
    let reply = link.ask(doing, &request)?;
    Ok(reply.strip_prefix(b"F").and_then(parse_hex))
}

fn pread(handle: u64, count: u64, offset: u64) -> String {
    format!("vFile:pread:{handle:x},{count:x},{offset:x}")
}

fn read_file(link: &mut Link, doing: &str, handle: u64, chunk: u64) -> Result<String, TargetError> {
    let mut text = Vec::new();
    loop {
        let reply = link.ask(doing, &pread(handle, chunk, text.len() as u64))?;
        match parse_pread(&reply) {
            Reply::Bytes([]) => break,
            Reply::Bytes(got) if (text.len() + got.len()) as u64 <= DESCRIPTION_LIMIT => {
                text.extend(got);
            }
            Reply::Bytes(_) => return Err(link.protocol(doing, "it does not end")),
            Reply::Errno(_) | Reply::Odd => {
                let reason = format!("hyp answered `{}`", printable(&reply));
                return Err(link.protocol(doing, reason));
            }
        }
    }
    String::from_utf8(text).map_err(|_| link.protocol(doing, "it is not UTF-8"))
}

/// `F<count>;<bytes>` or `F-1,<errno>`, numbers in hexadecimal.
fn parse_pread(reply: &[u8]) -> Reply<'_> {
    let Some(result) = reply.strip_prefix(b"F") else {
        return Reply::Odd;
    };
    if let Some(errno) = result.strip_prefix(b"-1,") {
        return parse_hex(errno).map_or(Reply::Odd, Reply::Errno);
    }
    let semicolon = result.iter().position(|byte| *byte == b';');
    let parts = semicolon.and_then(|at| Some((parse_hex(&result[..at])?, &result[at + 1..])));
    match parts {
        Some((count, bytes)) if count == bytes.len() as u64 => Reply::Bytes(bytes),
        _ => Reply::Odd,
    }
}

fn parse_hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The RAM that a self-description lists.
fn parse_ram(description: &str) -> Result<Vec<Span>, String> {
    let facts: Facts = serde_json::from_str(description)
        .map_err(|error| format!("it is not what it should be: {error}"))?;
    facts
        .ram
        .iter()
        .map(|range| {
            let base = range
                .base
                .strip_prefix("0x")
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .ok_or_else(|| format!("`{}` is no address of RAM", range.base))?;
            Ok(Span::new(base, range.size))
        })
        .collect::<Result<_, _>>()
        .map(merge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_to_a_read() {
        let cases: &[(&[u8], Reply)] = &[
            (b"F3;a;b", Reply::Bytes(b"a;b")),
            (b"F0;", Reply::Bytes(b"")),
            (b"F-1,e", Reply::Errno(14)),
            (b"F3;ab", Reply::Odd),
            (b"F3", Reply::Odd),
            (b"F-1,", Reply::Odd),
            (b"Fxyz;", Reply::Odd),
            (b"", Reply::Odd),
            (b"E01", Reply::Odd),
        ];
        for (reply, parsed) in cases {
            assert_eq!(&parse_pread(reply), parsed, "{reply:?}");
        }
    }

    #[test]
    fn what_is_under_way_fits_the_socket() {
        assert_eq!(
            [0x4000, 0x1000, 8].map(outstanding),
            [2, 8, 4096],
            "of the largest chunk, of table pages, of words"
        );
        assert_eq!(outstanding(0), IN_FLIGHT as usize);
    }

    #[test]
    fn ram_of_a_description() {
        let text = r#"{"format":"hyp.description/1","ram":[{"base":"0x41000000","size":16777216},
            {"base":"0x40000000","size":16777216},{"base":"0x80000000","size":4096}]}"#;
        assert_eq!(
            parse_ram(text).unwrap(),
            [
                Span::new(0x4000_0000, 0x200_0000),
                Span::new(0x8000_0000, 0x1000)
            ]
        );
        for wrong in [
            "",
            "{}",
            r#"{"ram":[{"base":"40","size":1}]}"#,
            r#"{"ram":[{"base":"0x","size":1}]}"#,
        ] {
            assert!(parse_ram(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_short_answer_leaves_a_rest() {
        let span = Span::new(0x1000, 8);
        let mut answer = Ok(vec![0; 8]);
        let rest = store(&mut answer, span, Span::new(0x1002, 4), b"F3;abc");
        assert_eq!(rest, Ok(Some(Span::new(0x1005, 1))));
        assert_eq!(answer, Ok(b"\0\0abc\0\0\0".to_vec()));
        for (reply, reason) in [
            (&b"F0;"[..], "says that memory ends"),
            (b"F-1,e", "answered error 14"),
            (b"F5;abcde", "answered `F5;abcde`"),
            (b"E01", "answered `E01`"),
        ] {
            assert_eq!(
                store(&mut answer, span, Span::new(0x1000, 4), reply),
                Err(reason.to_owned())
            );
        }
    }
}
