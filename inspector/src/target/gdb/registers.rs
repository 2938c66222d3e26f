//! Which registers a server has, by name: its target description read and understood.
//!
//! QEMU numbers system registers by the CPU model (VTTBR_EL2 is 212 on a cortex-a57, 123 on `max`), so nothing but
//! the name can be relied on.

use super::link::{Link, printable};
use crate::target::rsp;
use crate::target::{Registers, TargetError};
use std::collections::{BTreeMap, VecDeque};

/// The most text a target description may have, all its parts together.
const XML_LIMIT: usize = 1 << 20;
/// The most parts.
const PARTS_LIMIT: usize = 32;
/// The general registers' feature; the other standard ones of the architecture hold vectors and the like.
const CORE: &str = "org.gnu.gdb.aarch64.core";
const STANDARD: &str = "org.gnu.gdb.aarch64.";

/// One register of a target description.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Register {
    /// Our name, or `None` where the register is of no use here and only takes its place.
    name: Option<String>,
    number: u32,
    bytes: usize,
}

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

    /// The requests that read every register of the selected thread.
    pub(super) fn requests(&self) -> Vec<String> {
        let singles = self.registers[self.in_g..]
            .iter()
            .filter(|register| register.name.is_some())
            .map(|register| format!("p{:x}", register.number));
        std::iter::once("g".to_owned()).chain(singles).collect()
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

/// Collects registers from the parts of a target description, in document order.
///
/// Tags and attributes are all there is to know of these files, and QEMU's use the prefix `xi` without declaring it,
/// which a proper XML reader refuses.
#[derive(Default)]
struct Scanner {
    registers: Vec<Register>,
    next_number: u32,
}

impl Scanner {
    /// Takes in one part; returns the parts it includes.
    fn scan(&mut self, text: &str) -> Vec<String> {
        let mut includes = Vec::new();
        let mut feature = String::new();
        let mut rest = text;
        while let Some((_, tail)) = rest.split_once('<') {
            if let Some(comment) = tail.strip_prefix("!--") {
                rest = comment.split_once("-->").map_or("", |(_, after)| after);
                continue;
            }
            let (tag, after) = tail.split_once('>').unwrap_or((tail, ""));
            rest = after;
            let (kind, attributes) = tag
                .split_once(|c: char| c.is_ascii_whitespace())
                .unwrap_or((tag, ""));
            let attributes = attributes_of(attributes);
            match kind {
                "xi:include" => includes.extend(attributes.get("href").map(|s| (*s).to_owned())),
                "feature" => feature = attributes.get("name").map_or("", |s| *s).to_owned(),
                "reg" => self.register(&feature, &attributes),
                _ => {}
            }
        }
        includes
    }

    fn register(&mut self, feature: &str, attributes: &BTreeMap<&str, &str>) {
        let number = attributes
            .get("regnum")
            .and_then(|number| number.parse().ok())
            .unwrap_or(self.next_number);
        self.next_number = number.saturating_add(1);
        let bits = attributes
            .get("bitsize")
            .and_then(|bits| bits.parse::<u32>().ok())
            .unwrap_or(64);
        let name = attributes.get("name").copied().unwrap_or_default();
        let useful =
            !name.is_empty() && bits <= 64 && (feature == CORE || !feature.starts_with(STANDARD));
        self.registers.push(Register {
            name: useful.then(|| canonical(feature, name)),
            number,
            bytes: bits.div_ceil(8) as usize,
        });
    }
}

/// The attributes of a tag: `name="value"`, either kind of quote.
fn attributes_of(mut text: &str) -> BTreeMap<&str, &str> {
    let mut attributes = BTreeMap::new();
    while let Some((name, rest)) = text.split_once('=') {
        let rest = rest.trim_start();
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            break;
        };
        let Some((value, rest)) = rest[1..].split_once(quote) else {
            break;
        };
        attributes.insert(name.trim(), value);
        text = rest;
    }
    attributes
}

/// System registers that QEMU names after their AArch32 twin or without the exception level.
const RENAMED: [(&str, &str); 10] = [
    ("AIDR", "AIDR_EL1"),
    ("AMAIR0", "AMAIR_EL1"),
    ("CLIDR", "CLIDR_EL1"),
    ("CNTKCTL", "CNTKCTL_EL1"),
    ("CPACR", "CPACR_EL1"),
    ("CSSELR", "CSSELR_EL1"),
    ("L2ACTLR", "L2ACTLR_EL1"),
    ("SCTLR", "SCTLR_EL1"),
    ("VBAR", "VBAR_EL1"),
    ("CONTEXTIDR", "CONTEXTIDR_EL1"),
];

fn canonical(feature: &str, name: &str) -> String {
    if feature == CORE {
        return name.to_ascii_lowercase();
    }
    let name = name.to_ascii_uppercase();
    if let Some((_, ours)) = RENAMED.iter().find(|(theirs, _)| *theirs == name) {
        return (*ours).to_owned();
    }
    // What AArch32 calls ID_PFR0 is ID_PFR0_EL1 here.
    if name.starts_with("ID_") && !name.contains("_EL") {
        return name + "_EL1";
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Scanner {
        let mut scanner = Scanner::default();
        scanner.scan(text);
        scanner
    }

    fn names(scanner: &Scanner) -> Vec<(Option<&str>, u32, usize)> {
        scanner
            .registers
            .iter()
            .map(|r| (r.name.as_deref(), r.number, r.bytes))
            .collect()
    }

    #[test]
    fn includes_are_found_in_order() {
        let text = r#"<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target>
            <xi:include href="core.xml"/><xi:include href='sys.xml'/></target>"#;
        assert_eq!(Scanner::default().scan(text), ["core.xml", "sys.xml"]);
    }

    #[test]
    fn numbers_follow_on_unless_they_are_given() {
        let scanner = scan(
            r#"<feature name="org.gnu.gdb.aarch64.core"><reg name="x0" bitsize="64"/>
               <reg name="PC" bitsize="64" type="code_ptr"/><reg name="cpsr" bitsize="32"/></feature>
               <feature name="org.gnu.gdb.aarch64.fpu"><reg name="fpsr" bitsize="32"/></feature>
               <!-- <reg name="ghost" bitsize="64"/> -->
               <feature name="org.qemu.gdb.arm.sys.regs">
               <reg name="VBAR" bitsize="64" regnum="107"/><reg name="vbar_el2" bitsize="64"/>
               <reg name="WIDE" bitsize="128"/></feature>"#,
        );
        assert_eq!(
            names(&scanner),
            [
                (Some("x0"), 0, 8),
                (Some("pc"), 1, 8),
                (Some("cpsr"), 2, 4),
                (None, 3, 4),
                (Some("VBAR_EL1"), 107, 8),
                (Some("VBAR_EL2"), 108, 8),
                (None, 109, 16),
            ]
        );
    }

    #[test]
    fn names_are_those_of_the_architecture() {
        for (theirs, ours) in [
            ("VTTBR_EL2", "VTTBR_EL2"),
            ("SCTLR", "SCTLR_EL1"),
            ("AMAIR0", "AMAIR_EL1"),
            ("ID_MMFR0", "ID_MMFR0_EL1"),
            ("ID_AA64AFR2_EL1_RESERVED", "ID_AA64AFR2_EL1_RESERVED"),
        ] {
            assert_eq!(canonical("org.qemu.gdb.arm.sys.regs", theirs), ours);
            assert_eq!(canonical("hyp.el2", ours), ours);
        }
        assert_eq!(canonical(CORE, "PC"), "pc");
    }

    #[test]
    fn odd_text_ends_somewhere() {
        for text in [
            "<",
            "<reg",
            "<reg name=",
            "<reg name=\"a",
            "<reg name=a>",
            "<!--",
            "<reg =\"\"",
            "=<=",
            "<reg name=\"a\" regnum=\"4294967295\"/><reg name=\"b\"/>",
            "<reg bitsize=\"-1\"/>",
            "é<é=é>",
            "<reg name=é\"x\"/>",
        ] {
            scan(text);
        }
    }

    #[test]
    fn a_general_packet_is_cut_at_what_it_holds() {
        let layout = Layout {
            registers: scan(
                r#"<feature name="org.gnu.gdb.aarch64.core"><reg name="x0" bitsize="64"/>
                   <reg name="cpsr" bitsize="32"/><reg name="pc" bitsize="64"/></feature>"#,
            )
            .registers,
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
