//! hyp with its built-in host, which does in between what it is ordered to: blocks that a share splits, a pool that runs
//! dry, a panic.

use crate::client::Client;
use crate::qemu_hyp::{COMMON, arguments, ask, essence, read, working};
use crate::run::{inspector, succeed};
use crate::tables::{Root, difference, number, stages, written, written_in};
use fixtures::qemu::{Boot, Machine};
use inspector::image::Images;
use serde_json::Value;
use std::collections::BTreeMap;

/// `HOST.order` of the built-in host.
const TOUCH: u64 = 1;
const SHARE: u64 = 2;
/// Memory that the host does not touch unless it is ordered to: a block of 2 MiB, and another.
pub(crate) const BLOCK: u64 = 0x4360_0000;
pub(crate) const OTHER_BLOCK: u64 = 0x4380_0000;
pub(crate) const BLOCK_SIZE: u64 = 2 << 20;
/// More RAM than hyp's first table of 1 GiB is for, and its end in the middle of a block: what is behind it can be mapped
/// by pages only, whose two tables have nothing else in them.
const UNEVEN: &str = "1048584K";
const BEHIND_RAM: u64 = 0x8000_3000;

pub(crate) fn open(machine: &Machine) -> Images {
    let image = machine.image();
    Images::open(&[image.hyp.clone(), image.host.clone()]).expect("two ELF files")
}

/// Where a variable is in physical memory; the host's are where they are linked.
pub(crate) fn place(images: &mut Images, path: &str) -> u64 {
    let place = images.place(path).expect(path).address;
    images.load_address(place).unwrap_or(place)
}

/// The packet that writes a word.
pub(crate) fn writing(at: u64, value: u64) -> String {
    let bytes = value.to_le_bytes().map(|byte| format!("{byte:02x}"));
    format!("M{at:x},8:{}", bytes.concat())
}

/// A machine that stands, and where things are in it.
struct Ordered {
    machine: Machine,
    images: Images,
    host: Root,
    hyp: Root,
}

impl Ordered {
    fn start(boot: &Boot) -> Self {
        let machine = working(boot);
        let images = open(&machine);
        // From here on it stands between two questions.
        Client::connect(machine.gdb()).order("Qqemu.PhyMemMode:0");
        let info = ask(&machine, &["info"]);
        Self {
            host: Root::of(&info),
            hyp: Root::named(&info, "hyp-s1"),
            machine,
            images,
        }
    }

    /// Reads or writes physical memory.
    fn memory<T>(&self, work: impl FnOnce(&mut Client) -> T) -> T {
        let mut client = Client::connect(self.machine.gdb());
        client.order("Qqemu.PhyMemMode:1");
        let result = work(&mut client);
        client.order("Qqemu.PhyMemMode:0");
        result
    }

    /// All words of both tables.
    fn words(&self) -> [BTreeMap<u64, u64>; 2] {
        self.memory(|client| {
            [&self.host, &self.hyp].map(|root| root.words(&mut |at| read(client, at)))
        })
    }

    fn walk(&self, ipa: u64) -> (u64, i64, u64) {
        self.memory(|client| self.host.walk(ipa, &mut |at| read(client, at)))
    }

    fn set(&mut self, path: &str, value: u64) {
        let at = place(&mut self.images, path);
        self.memory(|client| client.order(&writing(at, value)));
    }

    /// Gives an order that the host has yet to see.
    fn order(&mut self, what: u64, address: u64) {
        self.set("HOST.address", address);
        self.set("HOST.order", what);
    }

    /// Lets the machine run until CPU 0 is about to look for orders, all other CPUs having nothing to do.
    fn run_to_orders(&mut self) {
        let symbols = self.images.symbols();
        let at = symbols.iter().find(|symbol| symbol.name == "host_order");
        let at = at.expect("the host's").address;
        let mut client = Client::connect(self.machine.gdb());
        // It may stand there.
        client.send("vCont;s:1");
        client.stop();
        client.order(&format!("Z1,{at:x},4"));
        client.send("vCont;c");
        client.stop();
        client.order(&format!("z1,{at:x},4"));
    }

    /// Has the host do something at once, unseen.
    fn have(&mut self, what: u64, address: u64) {
        self.run_to_orders();
        self.order(what, address);
        self.run_to_orders();
    }

    fn abort(&self, rest: &[&str]) -> Value {
        let document = ask(&self.machine, &[&["abort"], rest].concat());
        assert_eq!(document["complete"], true);
        document
    }

    /// The one call that the host makes by order, with the words of both tables before and after.
    fn call(&mut self, order: (u64, u64), rest: &[&str]) -> (Value, [[BTreeMap<u64, u64>; 2]; 2]) {
        self.run_to_orders();
        self.order(order.0, order.1);
        let before = self.words();
        let document = self.abort(&[&["--call", "share", "--count", "1"], rest].concat());
        (document["calls"][0].clone(), [before, self.words()])
    }
}

/// Every word that a call has written is in its story, and nothing else.
fn exactly(call: &Value, [before, after]: &[[BTreeMap<u64, u64>; 2]; 2]) {
    for (index, regime) in ["host-s2", "hyp-s1"].into_iter().enumerate() {
        let seen = difference(&before[index], &after[index]);
        assert!(!seen.is_empty(), "{regime}: {call}");
        assert_eq!(written_in(call, regime), seen, "{regime}");
    }
    let side = |name: &str| {
        let page = &call["pages"][0][name];
        (page["host"].clone(), page["hyp"].clone())
    };
    assert_eq!(call["return"], 0, "{call}");
    assert_eq!(side("before"), ("owned".into(), "no-page".into()));
    assert_eq!(
        side("after"),
        ("shared-owned".into(), "shared-borrowed".into())
    );
}

/// One page of a block is shared: the block goes, and a table with this page alone comes. Stepped, the same is told.
#[test]
fn a_block_is_split_by_a_share() {
    let mut ordered = Ordered::start(&Boot::hyp().expect("the image builds").cpus(2));
    let mut stories = Vec::new();
    for (block, rest) in [(BLOCK, &[][..]), (OTHER_BLOCK, &["--steps"])] {
        ordered.have(TOUCH, block);
        let (slot, level, word) = ordered.walk(block);
        assert_eq!((level, word & 3), (2, 1), "{word:#x}");
        let page = block + 0x5000;
        let (call, tables) = ordered.call((SHARE, page), rest);
        assert_eq!(number(&call["arguments"][0]) << 12, page);
        exactly(&call, &tables);
        let (leaf, level, shared) = ordered.walk(page);
        // SW1:SW0, bits 56:55: shared and owned.
        assert_eq!((level, shared >> 55 & 3), (3, 1), "{shared:#x}");
        let table = leaf & !0xfff;
        assert_eq!(written(&call), {
            let mut words = [(slot, word, table | 3), (leaf, 0, shared)];
            words.sort_unstable();
            words
        });
        assert_eq!(call["changes"]["tables_linked"][0], format!("{table:#x}"));
        let owners = call["changes"]["owners"].as_array().expect("an array");
        let owners: Vec<_> = owners
            .iter()
            .map(|change| (number(&change["pa"]), change["size"].as_u64()))
            .collect();
        assert_eq!(owners, [(page, Some(0x1000))], "no other page of the block");
        let instructions = call["instructions"].as_u64();
        assert_eq!(
            instructions.is_some_and(|count| count > 100),
            !rest.is_empty(),
            "{instructions:?}"
        );
        assert_eq!(call["road"]["stepped"], !rest.is_empty());
        stories.push(call);
    }
    let said = |call: &Value| {
        (
            call["outcome"].clone(),
            stages(call).contains(&"map"),
            written(call).len(),
        )
    };
    assert_eq!(said(&stories[0]), said(&stories[1]));
}

/// By QEMU's server and by hyp's channel.
#[test]
fn one_cpu_is_followed_and_stepped() {
    let boot = Boot::hyp().expect("the image builds").cpus(2).channel();
    let machine = working(&boot);
    let line = ["abort", "--cpu", "1", "--count", "3", "--ipa", COMMON];
    let stepping = [&line[..], &["--steps"]].concat();
    for (target, rest) in [machine.gdb(), machine.channel()]
        .into_iter()
        .flat_map(|target| [(target, &line[..]), (target, &stepping)])
    {
        let document = succeed(arguments(&machine, target, rest)).json();
        assert_eq!(document["complete"], true);
        let stories = document["aborts"].as_array().expect("an array");
        assert_eq!(stories.len(), 3);
        for story in stories {
            assert_eq!(story["cpu"], 1);
            let stepped = rest.contains(&"--steps");
            // What decided a refusal is found out by steps, if it is not known yet.
            if !stepped && story["outcome"] == "refused" {
                continue;
            }
            assert_eq!(story["road"]["stepped"], stepped);
            assert_eq!(
                story["instructions"]
                    .as_u64()
                    .is_some_and(|count| count > 50),
                stepped,
                "{story}"
            );
        }
    }
}

/// The pool is dry when a table is needed: hyp unmaps what is no RAM, has two pages again, and goes on.
#[test]
fn a_pool_that_runs_dry_is_refilled_by_devices() {
    let boot = Boot::hyp()
        .expect("the image builds")
        .cpus(2)
        .memory(UNEVEN);
    let mut ordered = Ordered::start(&boot);
    ordered.have(TOUCH, BLOCK);
    ordered.have(TOUCH, BEHIND_RAM);
    let (leaf, level, word) = ordered.walk(BEHIND_RAM);
    assert_eq!((level, word & 3), (3, 3), "{word:#x}");
    let pages = ordered.make_dry();
    let (call, tables) = ordered.call((SHARE, BLOCK + 0x5000), &[]);
    exactly(&call, &tables);
    let is_ram = |ia: u64| (0x4000_0000..BEHIND_RAM & !0xfff).contains(&ia);
    let gone: Vec<_> = call["writes"]
        .as_array()
        .expect("an array")
        .iter()
        .filter(|write| {
            write["regime"] == "host-s2"
                && write["old"]["kind"] != "table"
                && !write["old"].is_null()
                && !is_ram(number(&write["ia"]))
        })
        .collect();
    assert!(
        gone.iter().any(|write| number(&write["at"]) == leaf),
        "{call}"
    );
    assert!(
        gone.iter()
            .all(|write| write["new"].is_null() || number(&write["new"]["raw"]) == 0),
        "{call}"
    );
    for device in [BEHIND_RAM, 0x0900_0000] {
        assert_eq!(ordered.walk(device).2, 0, "{device:#x}");
    }
    let freed = call["changes"]["tables_freed"]
        .as_array()
        .expect("an array");
    assert_eq!(freed.len(), 2, "{call}");
    let told = |text: &str| call["steps"].to_string().contains(text);
    assert!(told("the pool was exhausted"), "{call}");
    // It goes on with its devices, which come back.
    ordered.set("HYP.host.pool.pages", pages);
    ordered.have(TOUCH, 0x0900_0000);
    assert_ne!(ordered.walk(0x0900_0000).2, 0);
}

/// There is nothing to be had back: hyp panics.
#[test]
fn a_panic_is_the_end_of_a_story() {
    let boot = Boot::hyp().expect("the image builds").memory(UNEVEN);
    let mut ordered = Ordered::start(&boot);
    ordered.run_to_orders();
    ordered.make_dry();
    ordered.order(TOUCH, BEHIND_RAM);
    let [before, _] = ordered.words();
    let document = ordered.abort(&["--until", "panic"]);
    let stories = document["aborts"].as_array().expect("an array");
    let [story] = &stories[..] else {
        panic!("{document}");
    };
    assert_eq!(story["outcome"], "panic");
    let at = story["result"]["symbol"].as_str().expect("a name");
    assert!(at.contains("hyp_panic"), "{at}");
    assert_eq!(number(&story["ipa"]), BEHIND_RAM);
    assert_eq!(story["after"], Value::Null);
    let [after, _] = ordered.words();
    assert_eq!(written(story), difference(&before, &after), "{story}");
}

/// Nobody waits for what cannot come: neither who saw the panic, though of something else, nor who comes later.
#[test]
fn a_panic_is_the_end_for_all() {
    let boot = Boot::hyp().expect("the image builds").memory(UNEVEN);
    let mut ordered = Ordered::start(&boot.channel());
    ordered.run_to_orders();
    ordered.make_dry();
    ordered.order(TOUCH, BEHIND_RAM);
    let machine = &ordered.machine;
    let ends = |target: &str| {
        let line = ["abort", "--call", "unshare", "--count", "1000"];
        let ran = inspector(arguments(machine, target, &line));
        assert_eq!(ran.status, 3, "{}", ran.stderr);
        let sentence = format!("{target}: the machine has panicked, and no trap is followed");
        assert!(ran.stderr.contains(&sentence), "{}", ran.stderr);
    };
    ends(machine.gdb());
    // It was found standing, and hyp's server has to run.
    Client::connect(machine.gdb()).order("D");
    ends(machine.gdb());
    ends(machine.channel());
}

impl Ordered {
    /// Has the pool of the host's tables end behind the pages that are in use. Says how many there were.
    fn make_dry(&mut self) -> u64 {
        let at = place(&mut self.images, "HYP.host.pool.pages");
        let pages = self.memory(|client| read(client, at));
        let [host, _] = self.words();
        let tables = host
            .keys()
            .map(|at| at >> 12)
            .collect::<std::collections::BTreeSet<_>>();
        // Pages are taken from the first free one on; the second root is empty.
        let used = tables.len() as u64 + self.host.pages - 1;
        self.set("HYP.host.pool.pages", used);
        pages
    }
}

/// Hypercalls by which a round of one CPU shares pages, before it looks for orders.
const SHARES: &str = "8";

/// What stops the machine gives the order, too, and leaves it so.
pub(crate) fn order_by(
    target: &str,
    machine: &Machine,
    images: &mut Images,
    (order, address): (u64, u64),
) {
    let words = [("HOST.address", address), ("HOST.order", order)];
    let words = words.map(|(path, value)| (place(images, path), value));
    memory_by(target, machine, |client| {
        for (at, value) in words {
            client.order(&writing(at, value));
        }
    });
}

/// Reads or writes physical memory by either road. What stops the machine leaves it so.
pub(crate) fn memory_by<T>(
    target: &str,
    machine: &Machine,
    work: impl FnOnce(&mut Client) -> T,
) -> T {
    let mut client = Client::connect(target);
    let is_qemu = target == machine.gdb();
    client.ask(match is_qemu {
        true => "Qqemu.PhyMemMode:1",
        false => "qSupported:swbreak+",
    });
    let result = work(&mut client);
    if is_qemu {
        client.order("Qqemu.PhyMemMode:0");
    }
    result
}

/// The same machine in the same state, by QEMU's server and by hyp's channel. Its entry is the vector, and the channel's the
/// function called from there: some tens of instructions later.
#[test]
fn every_story_is_the_same_through_hyps_channel() {
    let boot = Boot::hyp().expect("the image builds").channel();
    let [one, other] = [Machine::gdb, Machine::channel].map(|road| {
        let machine = working(&boot);
        let mut images = open(&machine);
        let target = road(&machine).to_owned();
        let [area, other_area] =
            [BLOCK, OTHER_BLOCK].map(|block| format!("{block:#x}..{:#x}", block + BLOCK_SIZE));
        let page = BLOCK + 0x5000;
        [
            ("refused", &["--ipa", "0x40200000..0x40201000"][..], (0, 0)),
            ("mapped", &["--ipa", &area], (TOUCH, page + 0x40)),
            ("returned", &["--call", "share"], (SHARE, page)),
            (
                "mapped",
                &["--ipa", &other_area, "--steps"],
                (TOUCH, OTHER_BLOCK + 0x40),
            ),
            (
                "returned",
                &["--call", "share", "--steps"],
                (SHARE, page + 0x1000),
            ),
        ]
        .map(|(outcome, rest, order)| {
            order_by(&target, &machine, &mut images, order);
            let ask = |rest: &[&str]| {
                let line = [&["abort"], rest].concat();
                succeed(arguments(&machine, &target, &line)).json()
            };
            if order.0 == SHARE {
                ask(&["--call", "share", "--count", SHARES]);
            }
            let document = ask(rest);
            let story = match order.0 {
                SHARE => &document["calls"][0],
                _ => &document["aborts"][0],
            };
            if order.0 == SHARE {
                assert_eq!(number(&story["arguments"][0]), order.1 >> 12, "{story}");
            }
            assert_eq!(story["outcome"], outcome);
            assert_eq!(written(story).is_empty(), order.0 == 0, "{story}");
            let instructions = rest
                .contains(&"--steps")
                .then(|| story["instructions"].as_u64().expect("a number"));
            (essence(story), instructions)
        })
    });
    for ((one, all), (other, some)) in one.iter().zip(&other) {
        assert_eq!(one, other);
        let left_out = all.zip(*some).map(|(all, some)| all.saturating_sub(some));
        assert!(
            left_out.is_none_or(|count| (1..100).contains(&count)),
            "{all:?}, {some:?}"
        );
    }
}
