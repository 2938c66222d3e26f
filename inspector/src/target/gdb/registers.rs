//! Which registers a server has, by name: its target description read and understood.
//!
//! QEMU numbers system registers by the CPU model (VTTBR_EL2 is 212 on a cortex-a57, 123 on `max`), so nothing but
//! the name can be relied on.

use super::link::{Link, printable};
use super::target_xml::{Register, Scanner};
use crate::target::rsp;
use crate::target::{Registers, TargetError};
use std::collections::VecDeque;

/// The most text a target description may have, all its parts together.
const XML_LIMIT: usize = 1 << 20;
/// The most parts.
const PARTS_LIMIT: usize = 32;

/// The registers of a server and how each is asked for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Layout {
    /// In the order of their numbers.
    registers: Vec<Register>,
    /// How many of them a `g` packet holds.
    in_g: usize,
}

impl Layout {
    /// Reads the target description and finds out what a `g` packet holds.
    pub(super) fn read(link: &mut Link, packet_size: usize) -> Result<Self, TargetError> {
        let mut scanner = Scanner::default();
        let mut size = 0;
        let mut wanted = VecDeque::from(["target.xml".to_owned()]);
        let mut parts = 0;
        while let Some(part) = wanted.pop_front() {
            parts += 1;
            let doing = format!("reading the target description's {part}");
            if parts > PARTS_LIMIT {
                return Err(link.protocol(&doing, "it has too many parts"));
            }
            let text = read_part(link, &doing, &part, packet_size, XML_LIMIT - size)?;
            size += text.len();
            // An include stands for the text it names, so its parts come before what follows.
            for include in scanner.scan(&text).into_iter().rev() {
                wanted.push_front(include);
            }
        }
        let mut layout = Self {
            registers: scanner.registers,
            in_g: 0,
        };
        layout.registers.sort_by_key(|register| register.number);
        let g = link.ask("reading the general registers", "g")?;
        layout.in_g = layout.count_in(g.len() / 2);
        if !layout.names().any(|name| name == "pc") {
            return Err(link.protocol(
                "reading the target description",
                "it has no register `pc`: this is no AArch64 machine",
            ));
        }
        Ok(layout)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.registers
            .iter()
            .filter_map(|register| register.name.as_deref())
    }

    /// How many registers, in the order of their numbers, fill `bytes`.
    fn count_in(&self, bytes: usize) -> usize {
        let mut end = 0_usize;
        self.registers
            .iter()
            .take_while(|register| {
                end = end.saturating_add(register.bytes);
                end <= bytes
            })
            .count()
    }

    /// The request that reads the selected thread's PC, which [`Self::read`] has made sure of.
    pub(super) fn pc_request(&self) -> String {
        let is_pc = |register: &&Register| register.name.as_deref() == Some("pc");
        let number = self.registers.iter().find(is_pc).map(|pc| pc.number);
        format!("p{:x}", number.unwrap_or_default())
    }

    /// The requests that read every register of the selected thread.
    pub(super) fn requests(&self) -> Vec<String> {
        let singles = self.registers[self.in_g..]
            .iter()
            .filter(|register| register.name.is_some())
            .map(|register| format!("p{:x}", register.number));
        std::iter::once("g".to_owned()).chain(singles).collect()
    }

    /// Those that have one of these names.
    fn named(&self, names: &[&str]) -> impl Iterator<Item = &Register> {
        let is_asked_for = |register: &&Register| {
            let name = register.name.as_deref();
            name.is_some_and(|name| names.contains(&name))
        };
        self.registers.iter().filter(is_asked_for)
    }

    /// The requests that read the selected thread's registers of these names, one each.
    pub(super) fn requests_for(&self, names: &[&str]) -> Vec<String> {
        let registers = self.named(names);
        registers
            .map(|register| format!("p{:x}", register.number))
            .collect()
    }

    /// The registers out of the replies to [`Self::requests_for`]. What the server has no value for is left out.
    pub(super) fn values_of(&self, names: &[&str], replies: &[Vec<u8>]) -> Registers {
        let mut registers = Registers::default();
        for (register, reply) in self.named(names).zip(replies) {
            register.insert(reply, &mut registers);
        }
        registers
    }

    /// The registers out of the replies to [`Self::requests`]. What the server has no value for is left out.
    pub(super) fn values(
        &self,
        link: &Link,
        doing: &str,
        replies: &[Vec<u8>],
    ) -> Result<Registers, TargetError> {
        let mut registers = Registers::default();
        let (g, singles) = replies
            .split_first()
            .ok_or_else(|| link.protocol(doing, "no reply"))?;
        let mut rest = g.as_slice();
        for register in &self.registers[..self.in_g] {
            let Some((digits, later)) = rest.split_at_checked(register.bytes * 2) else {
                return Err(link.protocol(
                    doing,
                    format!("the general registers are cut short: `{}`", printable(g)),
                ));
            };
            rest = later;
            register.insert(digits, &mut registers);
        }
        let named = self.registers[self.in_g..]
            .iter()
            .filter(|register| register.name.is_some());
        for (register, reply) in named.zip(singles) {
            register.insert(reply, &mut registers);
        }
        Ok(registers)
    }
}

impl Register {
    /// Keeps the value that `digits` say, least significant byte first; `xxxx`, an error or nothing is no value.
    fn insert(&self, digits: &[u8], registers: &mut Registers) {
        let Some(name) = &self.name else { return };
        let Some(bytes) = rsp::from_hex(digits) else {
            return;
        };
        if bytes.is_empty() || bytes.len() > 8 || bytes.len() < self.bytes {
            return;
        }
        let value = bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte));
        registers.0.insert(name.clone(), value);
    }
}

fn read_part(
    link: &mut Link,
    doing: &str,
    part: &str,
    packet_size: usize,
    limit: usize,
) -> Result<String, TargetError> {
    let chunk = packet_size.saturating_sub(16).clamp(64, 0x4000);
    let mut text = Vec::new();
    loop {
        let request = format!("qXfer:features:read:{part}:{:x},{chunk:x}", text.len());
        let reply = link.ask(doing, &request)?;
        match reply.as_slice() {
            [b'l', more @ ..] => {
                text.extend(more);
                break;
            }
            [b'm', more @ ..] if !more.is_empty() && text.len() + more.len() <= limit => {
                text.extend(more);
            }
            other => {
                return Err(
                    link.protocol(doing, format!("the server answered `{}`", printable(other)))
                );
            }
        }
    }
    if text.len() > limit {
        return Err(link.protocol(doing, "it is too long"));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_general_packet_is_cut_at_what_it_holds() {
        let register = |number, bytes| Register {
            name: None,
            number,
            bytes,
        };
        let layout = Layout {
            registers: vec![register(0, 8), register(1, 4), register(2, 8)],
            in_g: 0,
        };
        assert_eq!(layout.count_in(0), 0);
        assert_eq!(layout.count_in(11), 1);
        assert_eq!(layout.count_in(12), 2);
        assert_eq!(layout.count_in(1000), 3);
    }

    #[test]
    fn values_are_little_endian_and_may_be_missing() {
        let register = |bytes| Register {
            name: Some("r".to_owned()),
            number: 0,
            bytes,
        };
        let value = |bytes, digits: &[u8]| {
            let mut registers = Registers::default();
            register(bytes).insert(digits, &mut registers);
            registers.get("r")
        };
        assert_eq!(value(8, b"0807060504030201"), Some(0x0102_0304_0506_0708));
        assert_eq!(value(4, b"785634ff"), Some(0xff34_5678));
        assert_eq!(value(8, b"xxxxxxxxxxxxxxxx"), None);
        assert_eq!(value(8, b"E14"), None);
        assert_eq!(value(8, b""), None);
        assert_eq!(value(8, b"01"), None);
    }
}
