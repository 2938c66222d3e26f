//! Running the program.

use std::ffi::OsStr;
use std::process::{Command, Output};

/// What it printed, and its exit status.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Standard output without the one field that names the target.
    pub(crate) fn without_target(&self) -> String {
        let lines = self
            .stdout
            .lines()
            .filter(|line| !line.starts_with(" \"target\":"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Standard output as one JSON document.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The program with these arguments.
pub(crate) fn inspector<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_inspector"))
        .args(arguments)
        .output()
        .expect("the program runs");
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    Ran {
        status: status.code().expect("it ends by itself"),
        stdout: String::from_utf8(stdout).expect("text"),
        stderr: String::from_utf8(stderr).expect("text"),
    }
}

/// Its exit status 0 and silence on standard error are taken for granted.
pub(crate) fn succeed<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ran {
    let ran = inspector(arguments);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    ran
}
