//! QEMU's gdb server: physical memory through a mode that outlives the client, and where RAM is.

use super::link::{Link, printable};
use crate::addr::Span;
use crate::target::{ReadError, TargetError, covered, merge, rsp};

/// The most bytes QEMU reads at once; one more is answered E22.
const MOST: u64 = 0x800;
/// Chunks per exchange, so that the list of requests stays small.
const CHUNKS: usize = 4096;
const DOING: &str = "reading physical memory";

/// What is particular to QEMU.
#[derive(Debug)]
pub(super) struct Qemu {
    pub(super) ram: Vec<Span>,
    /// Bytes a read.
    chunk: u64,
    /// Whether physical mode may be on.
    physical: bool,
}

impl Qemu {
    /// Finds out where RAM is.
    pub(super) fn new(link: &mut Link, packet_size: usize) -> Result<Self, TargetError> {
        let doing = "asking QEMU for its memory map";
        let ram = parse_mtree(&link.monitor(doing, "info mtree -f")?);
        if ram.is_empty() {
            return Err(link.protocol(
                doing,
                "`info mtree -f` names no RAM, and reading what is no RAM could disturb a device",
            ));
        }
        Ok(Self {
            ram,
            chunk: MOST.min(packet_size as u64 / 2).max(1),
            physical: false,
        })
    }

    /// Whether the physical mode may be on: a read was broken off.
    pub(super) fn is_physical(&self) -> bool {
        self.physical
    }

    /// Switches the physical mode off if it may be on.
    pub(super) fn restore(&mut self, link: &mut Link) -> Result<(), TargetError> {
        if self.physical {
            switch_off(link)?;
            self.physical = false;
        }
        Ok(())
    }

    /// Reads what is RAM; does not touch what is not: there QEMU would answer zeros, or read a device.
    pub(super) fn read(
        &mut self,
        link: &mut Link,
        spans: &[Span],
    ) -> Result<Vec<Result<Vec<u8>, ReadError>>, TargetError> {
        let mut answers: Vec<_> = spans
            .iter()
            .map(|span| match covered(&self.ram, *span) {
                true => Ok(Vec::new()),
                false => Err(ReadError::Unbacked(*span)),
            })
            .collect();
        let chunks: Vec<_> = spans
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
        for chunks in chunks.chunks(CHUNKS) {
            let replies = self.exchange(link, chunks)?;
            for (&(index, chunk), reply) in chunks.iter().zip(replies) {
                let answer = &mut answers[index];
                let Ok(bytes) = answer else { continue };
                match rsp::from_hex(&reply).filter(|got| got.len() as u64 == chunk.size) {
                    Some(got) => bytes.extend(got),
                    None => {
                        *answer = Err(ReadError::Refused {
                            span: spans[index],
                            reason: format!("QEMU answered `{}` for {chunk}", printable(&reply)),
                        });
                    }
                }
            }
        }
        Ok(answers)
    }

    /// The physical mode is on only between the first and the last request of one exchange, so that a client killed
    /// between two reads leaves nothing behind.
    fn exchange(
        &mut self,
        link: &mut Link,
        chunks: &[(usize, Span)],
    ) -> Result<Vec<Vec<u8>>, TargetError> {
        let reads = chunks
            .iter()
            .map(|(_, chunk)| format!("m{:x},{:x}", chunk.start, chunk.size));
        let requests: Vec<_> = std::iter::once("Qqemu.PhyMemMode:1".to_owned())
            .chain(reads)
            .chain(["Qqemu.PhyMemMode:0".to_owned()])
            .collect();
        self.physical = true;
        let mut replies = link.exchange(DOING, &requests)?;
        let off = replies.pop();
        if replies.is_empty() || replies.remove(0) != b"OK" || off.as_deref() != Some(b"OK") {
            return Err(link.protocol(DOING, "QEMU refused to switch its physical memory mode"));
        }
        self.physical = false;
        Ok(replies)
    }
}

/// Tells QEMU from another server, by a query that only QEMU answers, and switches its physical mode off. The `bool` says
/// that an earlier client left it on.
pub(super) fn leave_physical_mode(link: &mut Link) -> Result<Option<bool>, TargetError> {
    let reply = link.ask("asking whether this is QEMU", "qqemu.PhyMemMode")?;
    match reply.as_slice() {
        b"0" => Ok(Some(false)),
        b"1" => {
            switch_off(link)?;
            Ok(Some(true))
        }
        _ => Ok(None),
    }
}

fn switch_off(link: &mut Link) -> Result<(), TargetError> {
    let doing = "switching QEMU's physical memory mode off";
    let reply = link.ask(doing, "Qqemu.PhyMemMode:0")?;
    if reply != b"OK" {
        return Err(link.protocol(doing, format!("QEMU answered `{}`", printable(&reply))));
    }
    Ok(())
}

/// RAM out of `info mtree -f`: the view of the address space `memory`, lines such as
/// `  0000000040000000-0000000047ffffff (prio 0, ram): mach-virt.ram`.
///
/// ROM and flash (`romd`) are left out: flash is a device once it is written to.
fn parse_mtree(text: &str) -> Vec<Span> {
    let mut memory = false;
    let mut ram = Vec::new();
    for line in text.lines() {
        if line.starts_with("FlatView") {
            memory = false;
        } else if line.trim_start().starts_with("AS \"memory\"") {
            memory = true;
        } else if memory {
            ram.extend(parse_mtree_line(line));
        }
    }
    merge(ram)
}

fn parse_mtree_line(line: &str) -> Option<Span> {
    let (range, what) = line.trim().split_once(" (prio ")?;
    let (_, kind) = what.split_once(", ")?;
    let (kind, _) = kind.split_once(')')?;
    if !matches!(kind, "ram" | "nv-ram") {
        return None;
    }
    let (first, last) = range.split_once('-')?;
    let first = u64::from_str_radix(first, 16).ok()?;
    let last = u64::from_str_radix(last, 16).ok()?;
    Some(Span::new(first, last.checked_sub(first)?.checked_add(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_is_what_the_memory_view_says() {
        let text = "FlatView #0\n AS \"gpex-root\", root: bus\n Root memory region: system\n\
            \x20 0000000000000000-0000000000ffffff (prio 0, ram): not.ours\n\nFlatView #1\r\n\
            \x20AS \"memory\", root: system\n AS \"cpu-memory-0\", root: system\n Root memory region: system\n\
            \x20 0000000000000000-0000000003ffffff (prio 0, romd): virt.flash0\n\
            \x20 0000000009000000-0000000009000fff (prio 0, i/o): pl011\n\
            \x20 0000000040000000-000000004fffffff (prio 0, ram): mach-virt.ram KVM\r\n\
            \x20 0000000050000000-000000005fffffff (prio 0, ram): more @0000000010000000\n\
            \x20 0000000080000000-0000000080000fff (prio -1, nv-ram): nv\n\
            \x20 00000000a0000000-00000000a0000fff (prio 0, rom): rom\n\nFlatView #2\n AS \"I/O\", root: io\n\
            \x20 0000000000000000-000000000000ffff (prio 0, ram): io\n";
        assert_eq!(
            parse_mtree(text),
            [
                Span::new(0x4000_0000, 0x2000_0000),
                Span::new(0x8000_0000, 0x1000)
            ]
        );
    }

    #[test]
    fn odd_lines_are_no_ram() {
        for line in [
            "",
            "(prio 0, ram)",
            "0-z (prio 0, ram): x",
            "0000000000000000-ffffffffffffffff (prio 0, ram): x",
            "0000000000001000-0000000000000000 (prio 0, ram): x",
            "0-1 (prio 0, ram",
        ] {
            assert_eq!(parse_mtree_line(line), None, "{line}");
        }
    }
}
