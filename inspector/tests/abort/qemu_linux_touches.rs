//! Linux that runs, and does what its console says: touches memory of the hypervisor's and of a guest's, devices, and the
//! same page on two CPUs. Nothing of it needs more than the kernels themselves offer to user space.

use crate::client::Client;
use crate::qemu_linux::{LIMIT, RAM, arguments, word};
use crate::run::succeed;
use crate::tables::{ADDRESS, Root, check, number, written};
use fixtures::{Boot, Cpu, Finally, Guests, Kernel, Machine};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use tempfile::TempDir;

/// QEMU's PCIe window of 512 GiB, whose reads are all ones where there is no device: the first address of a level-0 entry.
const WINDOW: u64 = 0x80_0000_0000;
/// What a level-0 entry covers.
pub(crate) const LEVEL_0: u64 = 1 << 39;
const MIB_512: u64 = 512 << 20;
/// `S1PTW`, by which Linux's pKVM marks what it injects.
const MARK: u64 = 1 << 7;

/// A machine that stands whenever nobody asks it.
pub(crate) struct Obedient {
    pub(crate) machine: Machine,
    /// Whether the inspector is given the kernel's file.
    has_file: bool,
    ram: File,
    root: Root,
    _folder: TempDir,
}

impl Obedient {
    pub(crate) fn new(kernel: Kernel) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("ram");
        let boot = Boot::linux(kernel).expect("the kernel is there");
        let boot = boot.cpu(Cpu::CortexA72).cpus(2).ram_file(&path);
        let boot = boot.guests(Guests::All).finally(Finally::Obey);
        let mut machine = boot.start().expect("QEMU starts");
        machine.wait_for("init: obeys", LIMIT).expect("it boots");
        // Attaching stops it, and going away without a word leaves it so.
        Client::connect(machine.gdb()).order("Qqemu.PhyMemMode:0");
        let root = Root::of(&succeed(arguments(&machine, &["info"])).json());
        let ram = File::open(path).expect("QEMU made it");
        Self {
            machine,
            has_file: true,
            ram,
            root,
            _folder: folder,
        }
    }

    /// Stories of what Linux does when it is told this, about these addresses.
    pub(crate) fn stories(
        &mut self,
        line: &str,
        start: u64,
        size: u64,
        until: &[&str],
    ) -> Vec<Value> {
        self.machine.tell(line).expect("it listens");
        let range = format!("{start:#x}..{:#x}", start + size);
        let rest = [&["abort", "--ipa", &range], until].concat();
        let mut line = arguments(&self.machine, &rest);
        if !self.has_file {
            let vmlinux = self.machine.kernel().vmlinux.to_str();
            line.retain(|word| *word != "--image" && Some(*word) != vmlinux);
        }
        let document = succeed(line).json();
        assert_eq!(document["complete"], true);
        document["aborts"].as_array().expect("an array").clone()
    }

    /// The only one, which is held against the tables as they then are.
    fn story(&mut self, line: &str, start: u64) -> Value {
        let story = self.stories(line, start, 0x1000, &[]).remove(0);
        check(&story, &self.root, &mut |at| word(&self.ram, at));
        story
    }

    fn words(&self) -> BTreeMap<u64, u64> {
        self.root.words(&mut |at| word(&self.ram, at))
    }

    fn leaf(&self, ipa: u64) -> u64 {
        self.root.walk(ipa, &mut |at| word(&self.ram, at)).2
    }

    /// Lets it run until it says so.
    pub(crate) fn says(&mut self, text: &str) -> String {
        let mut client = Client::connect(self.machine.gdb());
        client.order("Qqemu.PhyMemMode:0");
        client.send("vCont;c");
        let line = self.machine.wait_for(text, LIMIT).expect("it goes on");
        client.interrupt();
        client.stop();
        line
    }
}

/// A word that the walk before ended in.
fn last_word(story: &Value) -> u64 {
    let steps = story["walk"]["steps"].as_array().expect("an array");
    number(&steps.last().expect("a step")["raw"])
}

/// What the host was given in place of its access: the same fault, marked, at its own vector.
fn assert_injected(story: &Value, from: u64, vector: &str, esr: u64) {
    let result = &story["result"];
    assert_eq!(
        (&story["outcome"], story["from_el"].as_u64()),
        (&"refused".into(), Some(from)),
        "{story}"
    );
    assert_eq!(result["vector"], vector, "{story}");
    assert_eq!(number(&result["esr"]), esr, "{story}");
    assert_eq!(result["elr"], story["pc"], "{story}");
    assert_eq!(result["far"], story["far"], "{story}");
    let what = result["what"].as_str().expect("words");
    assert!(what.ends_with(", marked as stage 2's"), "{what}");
    // A process's vectors may be others than the kernel's.
    let after = number(&story["after"]["pc"]) & 0x7ff;
    assert_eq!(format!("{after:#x}"), vector, "{story}");
    let source = result["branch"]["source"].as_str().expect("a line");
    assert!(source.contains("mem_protect.c:"), "{source}");
}

/// A table of the host's own stage 2, which the kernel reads at EL1.
fn touch_a_table(linux: &mut Obedient) {
    let table = linux.root.at;
    let story = linux.story(&format!("read {table:#x}"), table);
    assert_eq!(
        (&story["memory"]["owner"], &story["memory"]["section"]),
        (&"hyp".into(), &"tables of host-s2".into())
    );
    assert_eq!(last_word(&story), 0x2000_0000_0000_0002, "{story}");
    // From EL1, the class is that of an abort without change of level.
    let esr = (number(&story["esr"]) + (1 << 26)) | MARK;
    assert_injected(&story, 1, "0x200", esr);
    linux.says(&format!("init: read {table:#x}: 0x0"));
}

/// A page that belongs to a protected guest, which a process reads or executes at EL0.
fn touch_a_guests_page(linux: &mut Obedient, verb: &str, index: u64, class: u64) {
    /// Where the guest's memory begins, by its own addresses.
    const FRAME: u64 = 0x4_0000;
    // Type donation, owner guest, its handle, and its frame.
    let is_it = |word: u64| {
        word >> 60 == 2 && word >> 1 & 7 == 2 && word >> 20 & 0xff_ffff == FRAME + index
    };
    let mut pages = (RAM..RAM + MIB_512).step_by(0x1000);
    let page = pages.find(|page| is_it(linux.leaf(*page)));
    let page = page.expect("it has been donated");
    let handle = linux.leaf(page) >> 4 & 0xffff;
    let story = linux.story(&format!("{verb} {index}"), page);
    assert_eq!(class_of(&story), class, "{story}");
    let owner = format!("guest:{handle:#x}");
    assert_eq!(story["memory"]["owner"], owner);
    assert_eq!(story["page"]["owner"], owner);
    assert_injected(&story, 0, "0x400", number(&story["esr"]) | MARK);
    // SIGSEGV.
    linux.says(&format!("init: {verb} {index:#x}: error 1011"));
}

/// `ESR_EL2.EC`.
fn class_of(story: &Value) -> u64 {
    number(&story["esr"]) >> 26
}

/// The first touch of what is no RAM, by a process at EL0. How much the kernel asked for at once is given.
fn touch_a_device(linux: &mut Obedient, window: u64, asked: u64) {
    /// Read and write, accessed, inner shareable, not executable; the host's own tables say which memory it is.
    const DEVICE_BLOCK: u64 = 0x0040_0000_0000_07fd;
    let before = linux.words();
    let line = format!("device {window:#x}");
    let story = linux.stories(&line, window, 0x1000, &[]).remove(0);
    let after = linux.words();
    assert_eq!(
        (&story["outcome"], &story["from_el"]),
        (&"mapped".into(), &0.into())
    );
    assert_eq!(story["memory"]["kind"], "mmio");
    assert_eq!(number(&story["memory"]["base"]), RAM + MIB_512, "{story}");
    assert_eq!(story["choice"]["seen"]["size"], asked, "{story}");
    assert_eq!(
        (number(&story["result"]["ia"]), &story["result"]["size"]),
        (window, &(1_u64 << 30).into())
    );
    assert_eq!(story["road"]["writes_by"], "under-lock", "{story}");
    // Elsewhere Linux has touched other memory for the first time meanwhile.
    let entry = linux.root.at + window / LEVEL_0 * 8;
    let table = after[&entry] & ADDRESS;
    let is_its = |at: u64| at == entry || at & !0xfff == table;
    let changed = after.iter().filter(|(at, _)| is_its(**at));
    let changed: Vec<_> = changed
        .map(|(at, word)| (*at, before.get(at).copied().unwrap_or(0), *word))
        .collect();
    assert_eq!(written(&story), changed);
    // A table, and as many blocks of 1 GiB as were asked for.
    assert_eq!(changed.len() as u64, 1 + (asked >> 30));
    let leaf = linux.leaf(window);
    assert_eq!((leaf & ADDRESS, leaf & !ADDRESS), (window, DEVICE_BLOCK));
    // Outside of the window, the bus says that there is nothing: SIGBUS.
    let value = match window {
        WINDOW => "0xffffffff",
        _ => "error 1007",
    };
    linux.says(&format!("init: device {window:#x}: {value}"));
}

/// Names come out of the kernel's own memory then, of which 6.1 has functions alone: where its lock is, nobody knows.
fn touch_without_a_file(linux: &mut Obedient, asked: u64) {
    linux.has_file = false;
    touch_a_device(linux, 28 * LEVEL_0, asked);
    linux.has_file = true;
}

/// Two processes read the same word for the first time. That both fault is likely, not certain, so there are many words,
/// each in a level-0 entry of its own.
fn race(linux: &mut Obedient) {
    let (first, count) = (2 * LEVEL_0, 24);
    let words = (0..count).map(|index| format!(" {:#x}", first + index * LEVEL_0));
    let line = format!("race{}", words.collect::<String>());
    let until = ["--until", "already-mapped"];
    let stories = linux.stories(&line, first, count * LEVEL_0, &until);
    let late = stories.last().expect("a story");
    assert_eq!(
        (late["outcome"].as_str(), written(late)),
        (Some("already-mapped"), vec![])
    );
    check(late, &linux.root, &mut |at| word(&linux.ram, at));
    let same = |story: &&Value| story["result"]["ia"] == late["result"]["ia"];
    let same: Vec<_> = stories.iter().filter(same).collect();
    // The other one's story may not be at its end yet.
    if let [mapped, _] = same[..] {
        assert_eq!(mapped["outcome"], "mapped", "{mapped}");
        assert_eq!(late["result"]["by"], mapped["cpu"], "{late}");
        assert_ne!(late["cpu"], mapped["cpu"]);
    } else {
        assert_eq!((same.len(), &late["result"]["by"]), (1, &Value::Null));
    }
    linux.says("init: has done: race");
}

/// 7.x has the host take the fault itself, and goes on.
#[test]
fn linux_7_refuses_and_maps_as_its_stories_say() {
    let mut linux = Obedient::new(Kernel::Linux7);
    touch_a_table(&mut linux);
    touch_a_guests_page(&mut linux, "guest", 3, 0x24);
    touch_a_guests_page(&mut linux, "execute", 4, 0x20);
    touch_a_device(&mut linux, WINDOW, 1 << 30);
    race(&mut linux);
    touch_without_a_file(&mut linux, 1 << 30);
}

/// 6.1 asks for all of a hole at a level without blocks, which is more than one block (mended by "KVM: arm64: Adjust range
/// correctly during host stage-2 faults"), and panics where it must refuse.
#[test]
fn linux_6_1_maps_and_panics_as_its_stories_say() {
    let mut linux = Obedient::new(Kernel::Linux61);
    touch_a_device(&mut linux, WINDOW, LEVEL_0);
    race(&mut linux);
    touch_without_a_file(&mut linux, LEVEL_0);
    let table = linux.root.at;
    let until = ["--until", "panic"];
    let story = linux
        .stories(&format!("read {table:#x}"), table, 0x1000, &until)
        .remove(0);
    assert_eq!(
        (&story["from_el"], number(&story["ipa"])),
        (&1.into(), table)
    );
    assert_eq!(
        (&story["memory"]["owner"], &story["memory"]["section"]),
        (&"hyp".into(), &"tables of host-s2".into())
    );
    // Owner 1 in bits 9:2, before and after.
    assert_eq!((last_word(&story), linux.leaf(table)), (4, 4));
    assert_eq!(written(&story), []);
    // The kernel names the same place when it has the news.
    let place = story["result"]["symbol"].as_str().expect("a place");
    let line = linux.says("nVHE hyp BUG at");
    assert!(line.contains(place), "{place}: {line}");
}
