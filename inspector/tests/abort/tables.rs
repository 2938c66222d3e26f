//! A walk of its own over tables with pages of 4 KiB.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Reads a word of physical memory.
pub(crate) type Read<'a> = dyn FnMut(u64) -> u64 + 'a;

/// The address in bits 47:12.
pub(crate) const ADDRESS: u64 = 0xffff_ffff_f000;

/// The number in `"0x…"`.
pub(crate) fn number(value: &Value) -> u64 {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    u64::from_str_radix(digits.unwrap_or_else(|| panic!("no address: {value}")), 16).expect("hex")
}

/// The tables of `list --regime host-s2`: where they begin.
pub(crate) struct Root {
    pub(crate) at: u64,
    pub(crate) level: i64,
    pub(crate) pages: u64,
}

impl Root {
    /// The host's, as the inspector's `list` or `info` has it.
    pub(crate) fn of(document: &Value) -> Self {
        Self::named(document, "host-s2")
    }

    /// The same of any regime.
    pub(crate) fn named(document: &Value, name: &str) -> Self {
        let regimes = document["regimes"].as_array().expect("an array");
        let host = regimes.iter().find(|regime| regime["name"] == name);
        let host = host.expect("the regime");
        Self {
            at: number(&host["root"]),
            level: host["start_level"].as_i64().expect("a level"),
            pages: host["root_pages"].as_u64().expect("a number"),
        }
    }

    /// Where the walk of `ipa` ends: the last word's address, its level and itself.
    pub(crate) fn walk(&self, ipa: u64, read: &mut Read<'_>) -> (u64, i64, u64) {
        let mut table = self.at;
        for level in self.level.. {
            let mut index = ipa >> (39 - 9 * level);
            if level != self.level {
                index &= 511;
            }
            let at = table + index * 8;
            let word = read(at);
            if level == 3 || word & 3 != 3 {
                return (at, level, word);
            }
            table = word & ADDRESS;
        }
        unreachable!("level 3 ends it")
    }

    /// Every word that is not zero, by its address.
    pub(crate) fn words(&self, read: &mut Read<'_>) -> BTreeMap<u64, u64> {
        let roots = (0..self.pages).map(|page| (self.at + page * 4096, self.level));
        let mut tables: Vec<_> = roots.collect();
        let mut words = BTreeMap::new();
        while let Some((table, level)) = tables.pop() {
            for at in (table..table + 4096).step_by(8) {
                let word = read(at);
                if word != 0 {
                    words.insert(at, word);
                }
                if level < 3 && word & 3 == 3 {
                    tables.push((word & ADDRESS, level + 1));
                }
            }
        }
        words
    }
}

/// The words that differ: address, before, after. A word that is in no table is 0.
pub(crate) fn difference(
    before: &BTreeMap<u64, u64>,
    after: &BTreeMap<u64, u64>,
) -> Vec<(u64, u64, u64)> {
    let at: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
    let word = |words: &BTreeMap<u64, u64>, at| words.get(at).copied().unwrap_or(0);
    let words = at.iter().map(|at| (*at, word(before, at), word(after, at)));
    words.filter(|(_, before, after)| before != after).collect()
}

/// The words that a story says were written in the host's tables: address, before, after.
pub(crate) fn written(story: &Value) -> Vec<(u64, u64, u64)> {
    written_in(story, "host-s2")
}

/// The same of any regime.
pub(crate) fn written_in(story: &Value, regime: &str) -> Vec<(u64, u64, u64)> {
    let raw = |side: &Value| match side {
        Value::Null => 0,
        side => number(&side["raw"]),
    };
    let writes = story["writes"].as_array().expect("an array").iter();
    let host = writes.filter(|write| write["regime"] == regime);
    let mut words: Vec<_> = host
        .map(|write| (number(&write["at"]), raw(&write["old"]), raw(&write["new"])))
        .collect();
    words.sort_unstable();
    words
}

/// The stages of a story, in order.
pub(crate) fn stages(story: &Value) -> Vec<&str> {
    let steps = story["steps"].as_array().expect("an array").iter();
    steps.filter_map(|step| step["stage"].as_str()).collect()
}

/// What holds of every story, whatever its outcome, in tables as they are afterwards.
pub(crate) fn check(story: &Value, root: &Root, read: &mut Read<'_>) {
    let ipa = number(&story["ipa"]);
    assert_eq!(ipa >> 12, number(&story["hpfar"]) >> 4, "{story}");
    // ESR_EL2.S1PTW: of a table that the host's own walk reads, the page is known, and FAR is what was being walked.
    let offset = match number(&story["esr"]) >> 7 & 1 {
        1 => 0,
        _ => number(&story["far"]) & 0xfff,
    };
    assert_eq!(ipa & 0xfff, offset, "{story}");
    let (at, level, word) = root.walk(ipa, read);
    let size = 1 << (39 - 9 * level);
    let result = &story["result"];
    match story["outcome"].as_str().expect("an outcome") {
        "mapped" => {
            assert_eq!(story["walk"]["result"], "hole", "{story}");
            assert_eq!(
                (result["size"].as_u64(), result["level"].as_i64()),
                (Some(size), Some(level)),
                "{story}"
            );
            assert_eq!(
                (number(&result["ia"]), word & ADDRESS),
                (ipa & !(size - 1), ipa & !(size - 1)),
                "{story}"
            );
            assert_eq!(story["choice"]["range"], story["choice"]["seen"], "{story}");
            assert_eq!(story["choice"]["level"], level, "{story}");
            let leaf = written(story)
                .into_iter()
                .find(|(written, ..)| *written == at);
            assert_eq!(leaf, Some((at, 0, word)), "{story}");
            for stage in ["trap", "lock", "choose", "map", "unlock", "return"] {
                assert!(stages(story).contains(&stage), "{stage}: {story}");
            }
        }
        // The CPU that mapped it may be changing it again, by sharing it.
        "already-mapped" if result["ia"].is_null() => assert_eq!(written(story), [], "{story}"),
        "already-mapped" => {
            assert_eq!(
                (number(&result["ia"]), word & 1),
                (ipa & !(size - 1), 1),
                "{story}"
            );
            assert_eq!(written(story), [], "{story}");
        }
        "refused" | "emulated" => {
            assert_eq!((word & 1, written(story)), (0, vec![]), "{story}");
            let last = story["walk"]["steps"]
                .as_array()
                .and_then(|steps| steps.last())
                .expect("a step");
            assert_eq!(
                (number(&last["at"]), number(&last["raw"])),
                (at, word),
                "nobody changed it: {story}"
            );
            assert!(stages(story).contains(&"refuse"), "{story}");
        }
        other => panic!("{other}: {story}"),
    }
}
