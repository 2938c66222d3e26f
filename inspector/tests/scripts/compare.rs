//! What the scripts say, and the comparison.

use crate::run::{Ran, inspector, succeed};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../gdb-scripts")
}

/// gdb with the scripts, and these commands.
pub(crate) fn command(program: &Path, commands: &[&str]) -> Command {
    let mut gdb = Command::new("gdb-multiarch");
    gdb.args(["-nx", "-batch"]).arg(program);
    gdb.arg("-ex")
        .arg(format!("source {}", scripts().join("hyp.py").display()));
    for command in commands {
        gdb.args(["-ex", command]);
    }
    gdb.env("LC_ALL", "C.UTF-8")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    gdb
}

/// What these commands make gdb print, errors last.
pub(crate) fn gdb(program: &Path, commands: &[&str], environment: &[(&str, &Path)]) -> String {
    let output = command(program, commands)
        .envs(environment.iter().copied())
        .output()
        .expect("gdb-multiarch is missing: install it (`cargo fixtures setup` does)");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (said, complaints) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}{complaints}");
    said + &complaints
}

/// One of the scripts that are for tests only, as a command.
pub(crate) fn test_script(name: &str) -> String {
    format!("source {}", scripts().join("tests").join(name).display())
}

/// Memory packets are about physical addresses: an address of EL2's is nothing where the host runs.
pub(crate) const PHYSICAL: &str = "maint packet Qqemu.PhyMemMode:1";
pub(crate) const VIRTUAL: &str = "maint packet Qqemu.PhyMemMode:0";

/// Fails unless all of that is said, in this order.
#[track_caller]
pub(crate) fn assert_says(said: &str, texts: &[&str]) {
    let mut rest = said;
    for text in texts {
        let found = rest.split_once(text);
        rest = found
            .unwrap_or_else(|| panic!("{text:?} is missing, or not in its place, in:\n{said}"))
            .1;
    }
}

/// Everything the scripts say of the target that gdb connects to.
pub(crate) fn document(program: &Path, connect: &str) -> Value {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("document");
    let script = test_script("document.py");
    let mut commands = vec!["set width 0", connect, &script];
    if connect.starts_with("target remote") {
        commands.push("disconnect");
    }
    let said = gdb(program, &commands, &[("HYPGDB_DOCUMENT", &file)]);
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{error}: {said}"));
    serde_json::from_str(&text).expect("JSON")
}

/// How gdb connects to a server, by the name that the inspector takes.
pub(crate) fn remote(name: &str) -> String {
    format!("target remote {}", name.trim_start_matches("unix:"))
}

/// Fails with the first thing that the two say differently.
pub(crate) fn assert_agree(scripts: &Value, target: &str, images: &[&str]) {
    agree(scripts, &|words| {
        succeed([&words[..1], &[target], &words[1..], images, &["--json"]].concat())
    });
}

/// The same where the inspector says that it could not read everything.
pub(crate) fn assert_agree_on_damage(scripts: &Value, target: &str, images: &[&str]) {
    agree(scripts, &|words| {
        let ran = inspector([&words[..1], &[target], &words[1..], images, &["--json"]].concat());
        assert!(
            words[0] == "walk" || ran.json()["complete"] == false,
            "{words:?}"
        );
        ran
    });
}

/// Fails unless the inspector says the same of a snapshot as of the machine, which stands still.
pub(crate) fn assert_keeps(file: &str, machine: &str, images: &[&str]) {
    for command in ["info", "list", "owners", "locks", "vms"] {
        let ask = |target| succeed([&[command, target, "--json"], images].concat());
        let (saved, live) = (ask(file), ask(machine));
        assert_eq!(saved.without_target(), live.without_target(), "{command}");
    }
}

fn agree(scripts: &Value, ask: &dyn Fn(&[&str]) -> Ran) {
    let ask = |words: &[&str]| ask(words).json();
    assert_eq!(scripts["problems"], Value::Array(vec![]));
    let info = ask(&["info"]);
    for part in ["hypervisor", "ram", "sections"] {
        assert_eq!(scripts[part], info[part], "{part}");
    }
    let list = ask(&["list", "--no-merge"]);
    let tracked = |value: &Value| {
        let name = value["regime"].as_str().or(value["name"].as_str());
        !name.expect("a name").starts_with("guest-s2:vmid-")
    };
    assert_same(
        "regime",
        scripts,
        "regimes",
        &chosen(&list, "regimes", tracked),
        &[],
    );
    let entries = chosen(&list, "entries", tracked);
    assert_same("entry", scripts, "entries", &entries, &["count", "problem"]);
    let ranges = chosen(&ask(&["owners"]), "ranges", |_| true);
    assert_same("range", scripts, "ranges", &ranges, &[]);
    locks(scripts, &ask(&["locks"]));
    cpus(scripts, &ask(&["cpus"]));
    let vms = chosen(&ask(&["vms"]), "vms", |_| true);
    assert_same(
        "VM",
        scripts,
        "vms",
        &vms,
        &["pages", "state", "dying", "root"],
    );
    for walk in array(scripts, "walks") {
        let text = |name: &str| walk[name].as_str().expect("text");
        let found = ask(&["walk", text("regime"), text("ia")]);
        let steps = chosen(&found, "steps", |_| true);
        assert_same(
            text("ia"),
            walk,
            "steps",
            &steps,
            &["size", "kind", "oa", "problem", "fields"],
        );
    }
}

fn array<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of[name].as_array().expect("an array")
}

fn chosen(of: &Value, name: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let all = array(of, name).iter();
    all.filter(|value| wanted(value)).cloned().collect()
}

/// Members without a value say nothing, `sw` says nothing of what is no leaf, and the scripts do not say the `others`.
fn plain(value: &Value, others: &[&str]) -> Map<String, Value> {
    let mut value = value.as_object().expect("an object").clone();
    value.retain(|name, value| !value.is_null() && !others.contains(&name.as_str()));
    if !value.contains_key("memory") {
        for name in ["sw", "oa"] {
            value.remove(name);
        }
    }
    value
}

fn assert_same(what: &str, scripts: &Value, name: &str, inspector: &[Value], others: &[&str]) {
    let scripts = array(scripts, name);
    for (at, (script, inspector)) in scripts.iter().zip(inspector).enumerate() {
        assert_eq!(
            plain(script, others),
            plain(inspector, others),
            "{what} {at}"
        );
    }
    assert_eq!(scripts.len(), inspector.len(), "{what}: so many");
}

fn number(value: &Value) -> u64 {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    u64::from_str_radix(digits.expect("a number in hex"), 16).expect("a number in hex")
}

/// The holder that a lock records is the same, and one that is worked out is among those that may be it.
fn locks(scripts: &Value, locks: &Value) {
    let mut locks = chosen(locks, "locks", |_| true);
    locks.sort_by_key(|lock| number(&lock["pa"]));
    let others = ["name", "symbol", "holder", "candidates"];
    assert_same("lock", scripts, "locks", &locks, &others);
    for (script, lock) in array(scripts, "locks").iter().zip(&locks) {
        let holder = &lock["holder"];
        if holder["how"] == "inferred" {
            let candidates = array(script, "candidates");
            assert!(candidates.contains(&holder["cpu"]), "{script} {lock}");
        }
        let recorded = (holder["how"] == "recorded").then_some(holder);
        for name in ["cpu", "how", "pc"] {
            let known = recorded.map_or(&Value::Null, |holder| &holder[name]);
            assert_eq!(&script["holder"][name], known, "{script} {lock}");
        }
    }
}

/// Fails unless both say the same of the locks, of which one at least is held, by a holder that is known where it can be no
/// other: where several CPUs are at EL2 the inspector may not tell.
pub(crate) fn assert_agree_on_held_locks(scripts: &Value, target: &str, images: &[&str]) {
    let said = succeed([&["locks", target, "--json"], images].concat()).json();
    let held = chosen(&said, "locks", |lock| lock["held"] == true);
    assert!(!held.is_empty(), "{said}");
    for lock in held.iter().filter(|lock| lock["holder"].is_null()) {
        let mut same = array(scripts, "locks").iter();
        let script = same.find(|script| script["pa"] == lock["pa"]);
        let script = script.unwrap_or_else(|| panic!("not told of by the scripts: {lock}"));
        assert!(array(script, "candidates").len() > 1, "{script} {lock}");
    }
    locks(scripts, &said);
}

/// Where each CPU is, and those of its registers that both know.
fn cpus(scripts: &Value, cpus: &Value) {
    let (scripts, cpus) = (array(scripts, "cpus"), array(cpus, "cpus"));
    assert_eq!(scripts.len(), cpus.len());
    for (script, cpu) in scripts.iter().zip(cpus) {
        for name in ["cpu", "el", "pc"] {
            assert_eq!(script[name], cpu[name], "{script}");
        }
        let known = cpu["registers"].as_object().expect("an object");
        let mut both = 0;
        for (name, value) in script["registers"].as_object().expect("an object") {
            if let Some(known) = known.get(name) {
                assert_eq!(value, known, "{name}");
                both += 1;
            }
        }
        assert!(both > 8, "{script}");
    }
}
