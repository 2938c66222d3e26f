//! The inspector's answers in the oracle's form, and the comparison.

use crate::machine::{CPUS, Linux};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const PAGE: u64 = 4096;

pub(crate) fn array<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().expect("an array")
}

/// The number in `"0x…"`.
pub(crate) fn number(value: &Value) -> u64 {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    u64::from_str_radix(digits.expect("a number in hex"), 16).expect("a number in hex")
}

fn hex(value: u64) -> Value {
    format!("{value:#x}").into()
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

/// Fails with the first element that differs, not with all of both.
fn assert_same(what: &str, found: &[Value], expected: &[Value]) {
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found, expected, "{what} {at}");
    }
    assert_eq!(found.len(), expected.len(), "{what}");
    assert!(!found.is_empty(), "{what}: nothing was compared");
}

/// Everything the oracle knows, which is what it said of the machine: it stands still since.
pub(crate) fn assert_agrees(linux: &Linux, oracle: &Value) {
    info(linux, oracle);
    list(linux, oracle);
    owners(linux, oracle);
    vms(linux, oracle);
    locks(linux, oracle);
}

/// Regimes that the oracle knows: not a guest's where its tables are the host's own affair.
fn is_tracked(name: &Value) -> bool {
    !name.as_str().expect("a name").starts_with("guest-s2:vmid-")
}

fn regimes(of: &Value) -> Vec<Value> {
    let regimes = array(of, "regimes").iter();
    regimes
        .filter(|regime| is_tracked(&regime["name"]))
        .cloned()
        .collect()
}

/// Release, mode, memory, geometry of all regimes and where the kernel is.
fn info(linux: &Linux, oracle: &Value) {
    let info = linux.ask(&["info"]);
    let mut hypervisor = object(&info["hypervisor"]);
    let release = hypervisor.remove("release").expect("a release");
    assert_eq!(release, linux.machine.kernel().release.as_str());
    assert_eq!(Value::from(hypervisor), oracle["hypervisor"]);
    assert_eq!(info["cpus"], CPUS);
    assert_same("regime", &regimes(&info), array(oracle, "regimes"));

    let mut ram = Vec::<(u64, u64)>::new();
    for region in array(oracle, "ram") {
        let (base, size) = (
            number(&region["base"]),
            region["size"].as_u64().expect("a size"),
        );
        match ram.last_mut() {
            Some((before, length)) if *before + *length == base => *length += size,
            _ => ram.push((base, size)),
        }
    }
    let ram: Vec<_> = ram
        .iter()
        .map(|(base, size)| json!({"base": hex(*base), "size": size}))
        .collect();
    assert_same("memory region", array(&info, "ram"), &ram);

    let facts: BTreeMap<_, _> = array(&info, "facts")
        .iter()
        .filter_map(|fact| Some((fact["what"].as_str()?, &fact["value"])))
        .collect();
    let kernel = &oracle["kernel"];
    assert_eq!(*facts["KASLR slide"], kernel["slide"]);
    assert_eq!(*facts["physvirt offset"], kernel["hyp_physvirt_offset"]);
}

/// Every descriptor of every regime.
fn list(linux: &Linux, oracle: &Value) {
    let list = linux.ask(&["list", "--no-merge"]);
    assert_same("regime", &regimes(&list), array(oracle, "regimes"));
    let found: Vec<_> = array(&list, "entries")
        .iter()
        .filter(|entry| is_tracked(&entry["regime"]))
        .collect();
    let owners = Owners::of(oracle);
    let expected: Vec<_> = array(oracle, "entries")
        .iter()
        .map(|entry| expected_entry(entry, &owners))
        .collect();
    let found: Vec<_> = found.into_iter().map(found_entry).collect();
    assert_same("entry", &found, &expected);
}

/// Members without a value say nothing, and `sw` says nothing of what is no leaf.
fn said(entry: &Value) -> Map<String, Value> {
    let mut entry = object(entry);
    entry.retain(|_, value| !value.is_null());
    if !entry.contains_key("oa") {
        entry.remove("sw");
    }
    entry
}

fn found_entry(entry: &Value) -> Value {
    let mut entry = said(entry);
    assert_eq!(entry.remove("count"), Some(json!(1)), "{entry:?}");
    entry.into()
}

/// The oracle's entry, with the frame number as an address, and with the owner of what leaves map.
fn expected_entry(entry: &Value, owners: &Owners) -> Value {
    let mut entry = said(entry);
    entry.remove("handle");
    if let Some(gfn) = entry.remove("gfn") {
        entry.insert("guest_ipa".to_owned(), hex(number(&gfn) * PAGE));
    }
    let side = match entry["regime"].as_str().expect("a name") {
        "host-s2" => "host".to_owned(),
        "hyp-s1" => "hyp".to_owned(),
        guest => guest.replacen("-s2", "", 1),
    };
    if entry.contains_key("oa") {
        let owner = match entry.get("state").and_then(Value::as_str) {
            Some("owned" | "shared-owned") => Some(side),
            Some("shared-borrowed") => Some(owners.at(number(&entry["oa"]))),
            _ => None,
        };
        entry.extend(owner.map(|owner| ("owner".to_owned(), owner.into())));
    }
    entry.into()
}

/// Joint owners by address.
struct Owners(BTreeMap<u64, (u64, String)>);

impl Owners {
    fn of(oracle: &Value) -> Self {
        let range = |range: &Value| {
            let owner = range["owner"].as_str().expect("an owner").to_owned();
            let size = range["size"].as_u64().expect("a size");
            (number(&range["pa"]), (size, owner))
        };
        Self(array(oracle, "ranges").iter().map(range).collect())
    }

    fn at(&self, pa: u64) -> String {
        let (start, (size, owner)) = self.0.range(..=pa).next_back().expect("memory");
        assert!(pa - start < *size, "{pa:#x} is no memory");
        owner.clone()
    }
}

/// Every range, without what the oracle does not know; neighbours are one that then say the same.
fn owners(linux: &Linux, oracle: &Value) {
    let owners = linux.ask(&["owners"]);
    let mut found = Vec::<Map<String, Value>>::new();
    for range in array(&owners, "ranges") {
        let mut range = object(range);
        for name in ["refcount", "rule"] {
            range.remove(name).expect("a member");
        }
        let size = range["size"].as_u64().expect("a size");
        match found.last_mut() {
            Some(last) if continues(last, &range) => {
                last["size"] = json!(last["size"].as_u64().expect("a size") + size);
            }
            _ => found.push(range),
        }
    }
    let found: Vec<_> = found.into_iter().map(Value::from).collect();
    assert_same("owner range", &found, array(oracle, "ranges"));
}

/// Whether `next` begins where `range` ends, and says the same.
fn continues(range: &Map<String, Value>, next: &Map<String, Value>) -> bool {
    let size = range["size"].as_u64().expect("a size");
    let mut moved = range.clone();
    moved["size"] = next["size"].clone();
    moved["pa"] = hex(number(&range["pa"]) + size);
    for guest in moved["guests"].as_array_mut().expect("an array") {
        guest["ipa"] = hex(number(&guest["ipa"]) + size);
    }
    moved == *next
}

/// VMs; the numbers of pages are those of the oracle's entries.
fn vms(linux: &Linux, oracle: &Value) {
    let vms = linux.ask(&["vms"]);
    let expected: Vec<_> = array(oracle, "vms")
        .iter()
        .map(|vm| expected_vm(vm, oracle))
        .collect();
    assert_eq!(array(&vms, "vms"), expected);
}

fn expected_vm(vm: &Value, oracle: &Value) -> Value {
    let handle = vm["handle"].as_str().expect("a handle");
    let regime = format!("guest-s2:{handle}");
    let bytes = |state: &str| -> u64 {
        let entries = array(oracle, "entries").iter();
        entries
            .filter(|entry| entry["regime"] == *regime && entry["state"] == *state)
            .map(|entry| entry["size"].as_u64().expect("a size"))
            .sum()
    };
    let mut vm = object(vm);
    vm.remove("root");
    assert_eq!(vm.remove("dying"), Some(json!(false)), "{handle}");
    vm.insert("state".to_owned(), json!("created"));
    let pages = json!({
        "owned": bytes("owned"),
        "shared_owned": bytes("shared-owned"),
        "shared_borrowed": bytes("shared-borrowed"),
        "poisoned": 0,
    });
    vm.insert("pages".to_owned(), pages);
    vm.into()
}

/// Locks by where they are: names are the inspector's own.
fn locks(linux: &Linux, oracle: &Value) {
    let tickets = |of: &Value| -> BTreeMap<u64, Value> {
        let locks = array(of, "locks").iter();
        let tickets = locks.map(|lock| {
            let mut lock = object(lock);
            for name in ["name", "symbol", "holder", "pa"] {
                lock.remove(name);
            }
            lock.into()
        });
        let places = array(of, "locks").iter().map(|lock| number(&lock["pa"]));
        places.zip(tickets).collect()
    };
    let locks = linux.ask(&["locks"]);
    assert_eq!(tickets(&locks), tickets(oracle));
    assert_eq!(array(&locks, "locks").len(), array(oracle, "locks").len());
}
