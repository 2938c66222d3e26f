//! hyp's file of another build than what runs: the inspector and the scripts say so, by every road.

use crate::compare::{assert_says, gdb, remote};
use crate::run::{inspector, succeed};
use fixtures::LIMIT;
use fixtures::qemu::Boot;
use object::{Object, ObjectSection};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A copy that is the same but for the last byte of its build id, and both ids.
fn other_build(hyp: &Path, copy: &Path) -> [String; 2] {
    let mut bytes = fs::read(hyp).expect("the image");
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let notes = file.section_by_name(".note.gnu.build-id");
    let notes = notes.and_then(|section| section.file_range());
    let (start, size) = notes.expect("a build id");
    let last = (start + size) as usize - 1;
    let mut id = || {
        let file = object::File::parse(&*bytes).expect("an ELF file");
        let id = file.build_id().expect("sound notes").expect("a build id");
        let id = id.iter().map(|byte| format!("{byte:02x}")).collect();
        bytes[last] ^= 1;
        id
    };
    let ids = [id(), id()];
    bytes[last] ^= 1;
    fs::write(copy, bytes).expect("a file");
    ids
}

#[test]
fn another_build_is_told_by_both_ids() {
    let boot = Boot::hyp().expect("the image builds").cpus(2).channel();
    let mut machine = boot.start().expect("QEMU starts");
    machine
        .wait_for("round 2 done", LIMIT)
        .expect("the host runs");
    let right = machine.image().hyp.clone();
    let folder = TempDir::new().expect("a folder");
    let (wrong, saved) = (folder.path().join("hyp.elf"), folder.path().join("saved"));
    let [running, other] = other_build(&right, &wrong);
    let refusal = format!(
        "{} is not the hyp that runs: its build id is {other}, the running hyp's is {running}; ",
        text(&wrong)
    );

    let (server, channel) = (machine.gdb(), machine.channel());
    let info = succeed(["info", server, "--image", text(&right)]).stdout;
    assert!(info.contains(&running), "{info}");
    succeed(["save", server, text(&saved), "--image", text(&right)]);
    let notes = format!("{} is used instead", text(&right));
    for (target, instead, regimes) in [
        (server, "give the file of that build", 0),
        (channel, "what hyp says of itself is used instead", 2),
        (text(&saved), &notes, 2),
    ] {
        let list = inspector(["list", target, "--image", text(&wrong), "--json"]);
        assert_eq!(list.status, 3, "{}", list.stderr);
        assert!(
            list.stderr.contains(&format!("{refusal}{instead}")),
            "{list:?}"
        );
        let list = list.json();
        assert_eq!(list["complete"], false);
        assert_eq!(list["regimes"].as_array().map(Vec::len), Some(regimes));
    }
    let abort = inspector(["abort", server, "--image", text(&wrong)]);
    assert!(abort.stderr.contains(&refusal), "{abort:?}");

    for (connect, shown) in [
        (remote(server), false),
        (remote(channel), true),
        (format!("core-file {}", text(&saved)), false),
    ] {
        // The last command's success is gdb's.
        let info = ["set width 0", &connect, "hyp info", "echo"];
        let said = gdb(&wrong, &info, &[]);
        assert_says(
            &said,
            &[&format!("{refusal}give gdb the file of that build")],
        );
        assert_eq!(said.contains("host-s2"), shown, "{said}");
        let said = gdb(&right, &info, &[]);
        assert!(
            !said.contains("is not the hyp") && !said.contains("is of the build"),
            "{said}"
        );
    }
}
