//! Commands that do more than to show, and what is odd: on hyp, whose host never ends to fault.

use crate::compare::{
    PHYSICAL, VIRTUAL, assert_agree, assert_agree_on_damage, assert_keeps, assert_says, command,
    document, gdb, remote, test_script,
};
use fixtures::LIMIT;
use fixtures::qemu::{Boot, Machine};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Asks QEMU whether memory packets are about physical addresses.
const MODE: &str = "maint packet qqemu.PhyMemMode";

fn started() -> Machine {
    started_with(2)
}

fn started_with(cpus: u32) -> Machine {
    let boot = Boot::hyp().expect("the image builds").cpus(cpus);
    let mut machine = boot.start().expect("QEMU starts");
    machine
        .wait_for("round 2 done", LIMIT)
        .expect("the host runs");
    machine
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// gdb on the machine, which stands still before and after.
fn session(machine: &Machine, commands: &[&str], environment: &[(&str, &Path)]) -> String {
    let connect = remote(machine.gdb());
    let line = [&[connect.as_str()], commands, &["disconnect"]].concat();
    gdb(&machine.image().hyp, &line, environment)
}

#[test]
fn they_load_fast_and_say_nothing() {
    let machine = started();
    let hyp = &machine.image().hyp;
    assert_eq!(gdb(hyp, &[], &[]), "");
    let before = "python import time; before = time.process_time()";
    let source = format!("source {}", text(&crate::compare::scripts().join("hyp.py")));
    let after = "python print('fast' if time.process_time() - before < 0.2 else 'slow')";
    assert_eq!(gdb(hyp, &[before, &source, after], &[]).trim(), "fast");
}

/// Beside pwndbg, gef and whatever else lives in the same gdb.
#[test]
fn they_add_what_is_named_after_hyp_and_change_nothing() {
    let output = Command::new("gdb-multiarch")
        .args(["-nx", "-batch", "-ex", &test_script("beside.py")])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output();
    let output = output.expect("gdb-multiarch is missing: `cargo fixtures setup` installs it");
    let said = String::from_utf8(output.stdout).expect("text");
    assert_says(&said, &["function hyp_pa", "hyp abort", "name hyp_load"]);
    let ours = ["+ hyp", "+ name hyp", "+ function hyp_", "+ function s2_"];
    for line in said.lines() {
        assert!(ours.iter().any(|start| line.starts_with(start)), "{said}");
    }
}

#[test]
fn el2_is_stopped_and_its_abort_explained() {
    let machine = started();
    let said = session(
        &machine,
        &[
            "hyp break handle_host_mem_abort",
            "continue",
            "delete",
            "hyp abort",
            "hyp symbols",
            "complete hyp break handle_host_m",
            "complete hyp s2 /ow",
            "complete hyp walk hyp",
            "hyp break no_such_function",
            "print/x $hyp_pa($hyp_va(0x40200000))",
            "set language c",
            "print $s2_owner(0x40200000)",
            "print $s2_state(0x42000000)",
            "print $s2_state(0x10)",
            "set language rust",
            "print $s2_owner(0x40200000)",
            "print hyp_image::uart::CONSOLE",
            "hyp s2 /odd",
            MODE,
        ],
        &[],
    );
    assert_says(
        &said,
        &[
            "Breakpoint 1 at 0x40",
            "hit Breakpoint 1, hyp::init::Hyp::handle_host_mem_abort",
            "data abort from a lower level: ",
            "  IPA 0x",
            "  L1 table 0x",
            "is linked where it runs",
            "hyp break handle_host_mem_abort\n",
            "hyp s2 /owner\n",
            "hyp walk hyp-s1\n",
            "= 0x40200000\n",
            "= \"hyp\"\n",
            "= \"shared-owned\"\n",
            "= \"hyp\"\n",
            "= free, ticket ",
            "received: \"0\"",
            // What went wrong is on standard error.
            "has no function no_such_function at EL2",
            "0x10 is no RAM",
            "/odd is no option here",
        ],
    );
}

/// The only CPU has not come to the lock yet.
#[test]
fn values_print_as_what_they_say() {
    let machine = started_with(1);
    let said = session(
        &machine,
        &[
            "hyp break handle_host_mem_abort",
            "continue",
            "delete",
            &test_script("places.py"),
            PHYSICAL,
            "set language rust",
            "print *($annotation as *mut hyp::desc::Desc)",
            "print *($record as *mut hyp::pool::PageRecord)",
            "print *($lock as *mut hyp::lock::TicketLock)",
            VIRTUAL,
        ],
        &[],
    );
    assert_says(
        &said,
        &["= 0x4 invalid, owner 1\n", "= refcount ", "= free, ticket "],
    );
}

#[test]
fn its_snapshot_opens_in_the_inspector() {
    let machine = started();
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("snapshot");
    let said = session(&machine, &[&format!("hyp snapshot {}", text(&file))], &[]);
    assert_says(&said, &["open it with: inspector tui "]);
    let images = ["--image", text(&machine.image().hyp)];
    assert_keeps(text(&file), machine.gdb(), &images);
    let again = document(&machine.image().hyp, &format!("core-file {}", text(&file)));
    assert_agree(&again, text(&file), &images);
}

#[test]
fn the_inspectors_screen_takes_over_and_gives_back() {
    let machine = started();
    let folder = TempDir::new().expect("a folder");
    let program = folder.path().join("inspector");
    fs::write(&program, "#!/bin/sh\necho \"the screen: $*\"\n").expect("it is written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let said = session(
        &machine,
        &["hyp tui", "hyp info"],
        &[("INSPECTOR", &program)],
    );
    let line = format!(
        "the screen: tui {} --image {}",
        machine.gdb(),
        text(&machine.image().hyp)
    );
    assert_says(&said, &[&line, "hyp 0.", "host-s2: stage 2"]);
}

/// Ctrl-C is this exception, wherever Python is at that moment.
#[test]
fn an_interrupt_ends_the_command_and_leaves_the_mode_as_it_was() {
    let machine = started();
    let interrupt = "python import hypgdb.target as t; kept = t.read_inferior; \
                     t.read_inferior = lambda *a: (_ for _ in ()).throw(KeyboardInterrupt())";
    let said = session(
        &machine,
        &[
            interrupt,
            "hyp s2",
            MODE,
            "python t.read_inferior = kept",
            "hyp owners",
            MODE,
        ],
        &[],
    );
    assert_says(
        &said,
        &[
            "received: \"0\"",
            "host owned, hyp no-page",
            "received: \"0\"",
        ],
    );
    assert!(!said.contains("Traceback"), "{said}");
}

#[test]
fn ctrl_c_ends_what_takes_long_and_not_gdb() {
    let machine = started();
    let connect = remote(machine.gdb());
    let endless =
        "python\nprint('begun', flush=True)\nwhile True: gdb.execute('hyp s1', to_string=True)";
    let line = [
        &connect,
        endless,
        MODE,
        "hyp owners /owner none",
        "disconnect",
    ];
    let mut gdb = command(&machine.image().hyp, &line)
        .stdout(Stdio::piped())
        .spawn()
        .expect("gdb starts");
    let mut output = BufReader::new(gdb.stdout.take().expect("a pipe"));
    let mut said = String::new();
    while !said.ends_with("begun\n") {
        assert!(output.read_line(&mut said).expect("text") > 0, "{said}");
    }
    let id = gdb.id().to_string();
    let killed = Command::new("kill").args(["-INT", &id]).status();
    assert!(killed.expect("kill runs").success());
    output.read_to_string(&mut said).expect("text");
    assert!(gdb.wait().expect("it ends").success());
    assert_says(&said, &["received: \"0\"", "  nothing"]);
}

/// The tables on the way of the first entries of a level that the scripts have walked to.
fn table(document: &Value, level: i64) -> u64 {
    let walks = document["walks"].as_array().expect("an array").iter();
    let steps = walks
        .filter(|walk| walk["regime"] == "host-s2")
        .flat_map(|walk| walk["steps"].as_array().expect("an array"));
    let step = steps
        .into_iter()
        .find(|step| step["level"] == level)
        .expect("a step");
    let digits = step["table"]
        .as_str()
        .and_then(|text| text.strip_prefix("0x"));
    u64::from_str_radix(digits.expect("a number in hex"), 16).expect("a number in hex")
}

#[test]
fn damaged_tables_are_marked_and_the_rest_is_shown() {
    let machine = started();
    let (hyp, connect) = (&machine.image().hyp, remote(machine.gdb()));
    let sound = document(hyp, &connect);
    let images = ["--image", text(hyp)];
    // Of the last descriptor of each table, nothing is mapped there.
    for (level, word, mark) in [
        (3, 0x4200_0001, "are reserved at level 3"),
        (2, table(&sound, 2) | 3, "was walked already"),
        (2, 0x7_0000_0003, "0x700000000 is no RAM"),
    ] {
        let at = table(&sound, level) + 8 * 511;
        let write = |word: u64| {
            let set = format!("set {{unsigned long}}{at:#x} = {word:#x}");
            let on = ["set language c", PHYSICAL, &set, VIRTUAL, "hyp s2"];
            session(&machine, &on, &[])
        };
        let said = write(word);
        let marked: Vec<_> = said
            .lines()
            .filter(|line| line.starts_with("! 0x"))
            .collect();
        assert!(
            matches!(marked[..], [line] if line.contains(mark)),
            "{said}"
        );
        assert_agree_on_damage(&document(hyp, &connect), machine.gdb(), &images);
        write(0);
    }
    assert_agree(&document(hyp, &connect), machine.gdb(), &images);
}
