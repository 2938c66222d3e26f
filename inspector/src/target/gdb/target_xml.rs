//! Target descriptions: which registers a server names, in XML.

use std::collections::BTreeMap;

/// The general registers' feature; the other standard ones of the architecture hold vectors and the like.
const CORE: &str = "org.gnu.gdb.aarch64.core";
const STANDARD: &str = "org.gnu.gdb.aarch64.";

/// One register of a target description.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Register {
    /// Our name, or `None` where the register is of no use here and only takes its place.
    pub(super) name: Option<String>,
    /// Its number in `p` requests.
    pub(super) number: u32,
    /// Its size in bytes.
    pub(super) bytes: usize,
}

/// Collects registers from the parts of a target description, in document order.
///
/// Tags and attributes are all there is to know of these files, and QEMU's use the prefix `xi` without declaring it,
/// which a proper XML reader refuses.
#[derive(Default)]
pub(super) struct Scanner {
    /// What was found so far.
    pub(super) registers: Vec<Register>,
    next_number: u32,
}

impl Scanner {
    /// Takes in one part; returns the parts it includes.
    pub(super) fn scan(&mut self, text: &str) -> Vec<String> {
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
}
