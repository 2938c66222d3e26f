//! A Linux that has come where a test wants it, and questions to it.

use crate::run::{Ran, inspector};
pub(crate) use fixtures::LIMIT;
use fixtures::{Boot, Machine};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Each machine has as many.
pub(crate) const CPUS: u32 = 2;

/// A machine with its memory in a file, for the oracle.
pub(crate) struct Linux {
    pub(crate) machine: Machine,
    ram: PathBuf,
    _folder: TempDir,
}

impl Linux {
    /// Boots until these lines have been printed.
    pub(crate) fn boot(boot: Boot, lines: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let ram = folder.path().join("ram");
        let mut machine = boot.cpus(CPUS).ram_file(&ram).start().expect("QEMU starts");
        for line in lines {
            machine.wait_for(line, LIMIT).expect("Linux gets there");
        }
        Self {
            machine,
            ram,
            _folder: folder,
        }
    }

    /// What the oracle says. From then on the machine stands still.
    pub(crate) fn oracle(&self) -> Value {
        fixtures::oracle::pkvm(&self.machine, &self.ram).expect("the oracle knows the machine")
    }

    /// What the inspector says with this kernel file, whatever its exit status.
    pub(crate) fn ask_with(&self, image: &Path, words: &[&str]) -> Ran {
        let image = image.to_str().expect("a plain path");
        let target = self.machine.gdb();
        let line = [&words[..1], &[target], &words[1..]].concat();
        inspector([line.as_slice(), &["--image", image, "--json"]].concat())
    }

    /// What it says without any file, whatever its exit status.
    pub(crate) fn ask_without(&self, words: &[&str]) -> Ran {
        let line = [&words[..1], &[self.machine.gdb()], &words[1..], &["--json"]].concat();
        inspector(line)
    }

    /// The same with the kernel that runs, whatever it is that makes it incomplete.
    pub(crate) fn try_ask(&self, words: &[&str]) -> Ran {
        self.ask_with(&self.machine.kernel().vmlinux, words)
    }

    /// No abort comes of a kernel that has panicked, and nobody waits for one.
    pub(crate) fn assert_nothing_to_follow(&self) {
        let abort = self.try_ask(&["abort"]);
        assert_eq!(abort.status, 3, "{}", abort.stderr);
        let sentence = "the machine has panicked, and no trap is followed after that";
        assert!(abort.stderr.contains(sentence), "{}", abort.stderr);
        assert_eq!(abort.stderr.lines().count(), 1, "{}", abort.stderr);
    }

    /// A complete answer, silent on standard error.
    pub(crate) fn ask(&self, words: &[&str]) -> Value {
        let ran = self.try_ask(words);
        let head: String = ran.stdout.chars().take(400).collect();
        assert_eq!(
            (ran.status, ran.stderr.as_str()),
            (0, ""),
            "{words:?}: {head}"
        );
        let answer = ran.json();
        assert_eq!(answer["complete"], true, "{words:?}");
        answer
    }
}
