//! hyp's built-in host executes what it is ordered to, and walks tables of its own where it is ordered to: aborts that are
//! no load's and no store's.

use crate::client::Client;
use crate::qemu_hyp::{arguments, ask, read, working};
use crate::qemu_orders::{BLOCK, BLOCK_SIZE, memory_by, open, order_by, writing};
use crate::run::{Ran, succeed};
use crate::tables::{Root, check, number, written};
use fixtures::qemu::{Boot, Machine};
use inspector::image::Images;
use serde_json::Value;

/// `HOST.order` of the built-in host.
const EXECUTE: u64 = 3;
const WALK: u64 = 4;
/// What it reads then, by the fourth entry of the table that it is told, which its last entry of 1 GiB names.
const THROUGH: u64 = 511 << 30 | 3 << 21 | 0x5040;
const ENTRY: u64 = 3 * 8;
/// A page of hyp's own code, which the host's rounds do not touch.
const HYP: u64 = 0x4020_1000;

/// RET, with nothing behind it.
const RET: u64 = 0xd65f_03c0;
/// A block of 2 MiB: AF, SH inner, attribute 0.
const BLOCK_DESCRIPTOR: u64 = BLOCK | 1 << 10 | 3 << 8 | 1;

/// `ESR_EL2`: an instruction of 32 bits, and the class.
const IL: u64 = 1 << 25;
const FETCH: u64 = 0x20 << 26 | IL;
const DATA: u64 = 0x24 << 26 | IL;
/// `S1PTW`: on the host's own walk.
const ON_WALK: u64 = 1 << 7;
/// xFSC: a translation fault at these levels; an external abort.
const LEVEL_2: u64 = 0x06;
const LEVEL_3: u64 = 0x07;
const EXTERNAL: u64 = 0x10;
/// From EL2's class of an abort to that of the same level.
const SAME_LEVEL: u64 = 1 << 26;

/// What the host is told, what a debugger has written before, and what becomes of it.
struct Scene {
    order: u64,
    address: u64,
    /// A word in the page, for the host to find.
    word: Option<(u64, u64)>,
    esr: u64,
    far: u64,
    is_refused: bool,
    /// What that is in words.
    words: &'static str,
}

/// A page in each of two blocks that nobody has touched, and hyp's code.
fn scenes(block: u64) -> [Scene; 4] {
    let [code, table] = [block + 0x7000, block + BLOCK_SIZE + 0x9000];
    [
        Scene {
            order: EXECUTE,
            address: code,
            word: Some((code, RET)),
            esr: FETCH | LEVEL_2,
            far: code,
            is_refused: false,
            words: "instruction abort from a lower level: translation fault, level 2",
        },
        Scene {
            order: WALK,
            address: table,
            word: Some((table + ENTRY, BLOCK_DESCRIPTOR)),
            esr: DATA | ON_WALK | LEVEL_2,
            far: THROUGH,
            is_refused: false,
            words: "data abort from a lower level: translation fault, level 2, read, on a stage-1 walk",
        },
        Scene {
            order: EXECUTE,
            address: HYP,
            word: None,
            esr: FETCH | LEVEL_3,
            far: HYP,
            is_refused: true,
            words: "instruction abort from a lower level: translation fault, level 3",
        },
        Scene {
            order: WALK,
            address: HYP,
            word: None,
            // QEMU 7.2 gives the level of the host's own walk, DDI 0487 (ESR_EL2) asks for that of stage 2's, which is 3.
            esr: DATA | ON_WALK | LEVEL_2,
            far: THROUGH,
            is_refused: true,
            words: "data abort from a lower level: translation fault, level 2, read, on a stage-1 walk",
        },
    ]
}

fn symbol(place: &Value) -> &str {
    place["symbol"].as_str().expect("a name")
}

impl Scene {
    /// What the hardware says, what is there, and what became of it.
    fn check(&self, story: &Value, by_qemu: bool) {
        assert_eq!(number(&story["esr"]), self.esr, "{story}");
        assert_eq!(story["what"], self.words);
        assert_eq!(number(&story["far"]), self.far, "{story}");
        assert_eq!(number(&story["hpfar"]), self.address >> 12 << 4, "{story}");
        assert_eq!(number(&story["ipa"]), self.address, "{story}");
        assert_eq!(story["from_el"], 1);
        let pc = number(&story["pc"]);
        match self.order {
            // What is to be executed is what the abort returns to.
            EXECUTE => assert_eq!(pc, self.address),
            _ => assert!(symbol(story).starts_with("host_order+")),
        }
        assert_eq!(
            story["memory"]["kind"],
            ["ram", "taken"][usize::from(self.is_refused)]
        );
        assert_eq!(story["walk"]["ia"], story["ipa"]);
        match self.is_refused {
            false => self.check_mapped(story),
            true => self.check_refused(story, by_qemu),
        }
    }

    /// The same in text.
    fn check_text(&self, text: &str) {
        let end = match self.is_refused {
            false => format!("mapped, 2M at {:#x}", self.address & !(BLOCK_SIZE - 1)),
            true => "refused, the host takes".to_owned(),
        };
        let first = format!(": {}, IPA {:#x}: {end}", self.words, self.address);
        assert!(
            text.lines()
                .next()
                .is_some_and(|line| line.contains(&first)),
            "{text}"
        );
        let far = match self.order {
            EXECUTE => "virtual address",
            _ => "virtual address, whose walk reads the IPA",
        };
        let memory = match self.is_refused {
            false => "RAM, in the region 0x40000000..=0x5fffffff",
            true => "memory of hyp: its text",
        };
        for (name, value, meaning) in [
            ("ESR_EL2", self.esr, self.words),
            ("FAR_EL2", self.far, far),
            (
                "HPFAR_EL2",
                self.address >> 12 << 4,
                "page of the IPA, in bits 43:4",
            ),
            ("IPA", self.address, memory),
        ] {
            let value = format!("{value:#x}");
            let is_it = |line: &str| {
                let rest = line
                    .strip_prefix(name)
                    .and_then(|line| line.trim_start().strip_prefix(&value));
                rest.is_some_and(|rest| rest.trim() == meaning)
            };
            assert!(text.lines().any(is_it), "{name} {value} {meaning}: {text}");
        }
        let ends = format!("walk of {:#x} in host-s2 before: ", self.address);
        let ends = ends + ["hole", "invalid"][usize::from(self.is_refused)];
        assert!(text.lines().any(|line| line == ends), "{ends}: {text}");
    }

    /// The host does it once more.
    fn check_mapped(&self, story: &Value) {
        assert_eq!(story["outcome"], "mapped", "{story}");
        let block = self.address & !(BLOCK_SIZE - 1);
        assert_eq!(number(&story["result"]["ia"]), block, "{story}");
        assert_eq!(story["result"]["size"], BLOCK_SIZE);
        assert_eq!(story["after"]["pc"], story["pc"], "{story}");
    }

    /// The host takes an external abort of the same class, where it is.
    fn check_refused(&self, story: &Value, by_qemu: bool) {
        assert_eq!(story["outcome"], "refused", "{story}");
        assert_eq!(
            (&story["memory"]["owner"], &story["memory"]["section"]),
            (&"hyp".into(), &"text".into())
        );
        assert_eq!(written(story), [], "{story}");
        let result = &story["result"];
        assert_eq!(result["vector"], "0x200", "{story}");
        // hyp's channel does not know EL1's registers.
        if by_qemu {
            let class = self.esr & !(ON_WALK | 0x3f);
            assert_eq!(number(&result["esr"]), (class + SAME_LEVEL) | EXTERNAL);
            assert_eq!(result["far"], story["far"]);
            assert_eq!(result["elr"], story["pc"]);
        }
        assert_eq!(symbol(&story["after"]), "host_vectors+0x200", "{story}");
    }
}

/// A machine with its host's orders, asked by one road.
struct Asked<'a> {
    machine: &'a Machine,
    target: &'a str,
    images: Images,
}

impl Asked<'_> {
    fn memory<T>(&self, work: impl FnOnce(&mut Client) -> T) -> T {
        memory_by(self.target, self.machine, work)
    }

    /// Has the host do it, and asks what became of that.
    fn ask(&mut self, scene: &Scene, format: &str) -> Ran {
        if let Some((at, word)) = scene.word {
            self.memory(|client| client.order(&writing(at, word)));
        }
        let order = (scene.order, scene.address);
        order_by(self.target, self.machine, &mut self.images, order);
        let range = format!("{:#x}..{:#x}", scene.address, scene.address + 0x1000);
        let mut line = arguments(self.machine, self.target, &["abort", "--ipa", &range]);
        line.retain(|word| *word != "--json");
        line.extend(["--format", format]);
        succeed(line)
    }
}

fn fetches_and_walks(by_qemu: bool) {
    let machine = working(&Boot::hyp().expect("the image builds").channel());
    let target = match by_qemu {
        true => machine.gdb(),
        false => machine.channel(),
    };
    let root = Root::of(&ask(&machine, &["info"]));
    let mut asked = Asked {
        machine: &machine,
        target,
        images: open(&machine),
    };
    for scene in scenes(BLOCK) {
        let document = asked.ask(&scene, "json").json();
        assert_eq!(document["complete"], true);
        let story = &document["aborts"][0];
        scene.check(story, by_qemu);
        asked.memory(|client| check(story, &root, &mut |at| read(client, at)));
    }
    for scene in scenes(BLOCK + 2 * BLOCK_SIZE) {
        scene.check_text(&asked.ask(&scene, "text").stdout);
    }
}

/// By QEMU's server.
#[test]
fn fetches_and_table_walks_are_told_by_qemu() {
    fetches_and_walks(true);
}

/// By hyp's channel.
#[test]
fn fetches_and_table_walks_are_told_by_hyps_channel() {
    fetches_and_walks(false);
}
