//! What WALKTHROUGH.md shows of hyp is what the program prints there: its commands are run one after the other, and what
//! they print is held against the text, numbers aside.

use fixtures::{Boot, Machine};
use run::succeed;
use std::fs;
use std::path::Path;

#[path = "support/run.rs"]
#[expect(dead_code, reason = "shared with tests that ask for more")]
mod run;

/// A command of the text, and what it prints there.
struct Shown {
    command: String,
    lines: Vec<String>,
}

/// The commands below a heading.
fn shown(text: &str, heading: &str) -> Vec<Shown> {
    let (_, rest) = text.split_once(heading).expect("the heading is there");
    let section = rest.split("\n# ").next().expect("its text");
    let mut shown: Vec<Shown> = Vec::new();
    let mut in_block = false;
    for line in section.lines() {
        if line.starts_with("```") {
            in_block = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| in_block) {
            shown.push(Shown {
                command: command.to_owned(),
                lines: Vec::new(),
            });
        } else if let Some(last) = shown.last_mut().filter(|_| in_block) {
            last.lines.push(line.to_owned());
        }
    }
    shown
}

/// A line without what differs from build to build and from moment to moment: numbers, how wide they make a column, and
/// instructions, which stand between backticks.
fn essence(line: &str) -> String {
    let mut text = String::new();
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '`' => {
                let _ = letters.find(|next| *next == '`');
                text.push(letter);
            }
            '0'..='9' => {
                while letters
                    .next_if(|next| next.is_ascii_hexdigit() || *next == 'x')
                    .is_some()
                {}
                text.push('#');
            }
            _ if letter.is_whitespace() => {
                while letters.next_if(|next| next.is_whitespace()).is_some() {}
                text.push(' ');
            }
            _ => text.push(letter),
        }
    }
    text.trim_end().to_owned()
}

/// The first line of the text that the program does not print there; `...` stands for any lines.
fn difference<'a>(text: &'a [String], printed: &str) -> Option<&'a str> {
    let mut printed = printed.lines().map(essence);
    let mut skips = false;
    for line in text {
        if line == "..." {
            skips = true;
            continue;
        }
        let wanted = essence(line);
        let found = match skips {
            true => printed.any(|line| line == wanted),
            false => printed.next() == Some(wanted),
        };
        if !found {
            return Some(line);
        }
        skips = false;
    }
    match printed.next().filter(|_| !skips) {
        Some(_) => Some("the end"),
        None => None,
    }
}

/// Runs the command, as somebody would in the root of the repository with the machine's server at port 1234.
fn printed(machine: &Machine, root: &Path, command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words[0] {
        "inspector" => {
            let image = machine.image();
            let path = |path: &Path| path.to_str().expect("a plain path").to_owned();
            let word = |word: &&str| match *word {
                ":1234" => machine.gdb().to_owned(),
                "target/image/hyp.elf" => path(&image.hyp),
                "target/image/host.elf" => path(&image.host),
                other => other.to_owned(),
            };
            succeed(words[1..].iter().map(word)).stdout
        }
        "sed" => {
            let range = words[2].trim_matches('\'').trim_end_matches('p');
            let (first, last) = range.split_once(',').expect("a range of lines");
            let number = |text: &str| text.parse::<usize>().expect("a line's number");
            let (first, last) = (number(first), number(last));
            let text = fs::read_to_string(root.join(words[3])).expect("the file is there");
            let lines = text.lines().skip(first - 1).take(last - first + 1);
            lines.map(|line| format!("{line}\n")).collect()
        }
        other => panic!("{other}: no command that this test knows"),
    }
}

#[test]
fn a_refused_access_leads_to_the_line_that_refused_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("inspector/WALKTHROUGH.md")).expect("it is there");
    let shown = shown(&text, "\n# A host access that is refused\n");
    assert!(shown.len() >= 3, "nothing is shown");
    let mut machine = Boot::hyp()
        .expect("the image builds")
        .start()
        .expect("QEMU starts");
    machine
        .wait_for("round 2 done", fixtures::LIMIT)
        .expect("the host runs");
    // It stands from here on, so that every command finds it where the one before left it. The host's reads and writes of
    // hyp's memory take turns, and the next one is to be a read.
    machine.stop().expect("QEMU is there");
    let is_write = || {
        printed(&machine, &root, &shown[0].command).contains("translation fault, level 3, write")
    };
    assert!(is_write() || is_write(), "every second one is a write");
    let mut said = String::new();
    for Shown { command, lines } in &shown {
        // The lines that are shown are those that the story named.
        if let Some(file) = command.strip_prefix("sed -n ") {
            let (range, file) = file.split_once(' ').expect("a range and a file");
            let (first, last) = range
                .trim_matches(['\'', 'p'])
                .split_once(',')
                .expect("a range");
            let named = said.split(file).nth(1).and_then(|rest| {
                let digits = rest.strip_prefix(':')?;
                digits
                    .split(|letter: char| !letter.is_ascii_digit())
                    .next()?
                    .parse::<u32>()
                    .ok()
            });
            let line = named.unwrap_or_else(|| panic!("{file} is not named in:\n{said}"));
            let number = |text: &str| text.parse::<u32>().expect("a number");
            assert!(
                (number(first)..=number(last)).contains(&line),
                "{command}: it is line {line}"
            );
        }
        let printed = printed(&machine, &root, command);
        assert_eq!(difference(lines, &printed), None, "{command}\n{printed}");
        said.push_str(&printed);
    }
}

#[test]
fn what_is_not_printed_is_a_difference() {
    let text = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    for (shown, printed, different) in [
        ("a 0x1\nb", "a   0x22\nb", None),
        ("a\n...\nc 5", "a\nb\nc 77", None),
        ("a\n...", "a\nb", None),
        ("a", "a\nb", Some("the end")),
        ("a\nc", "a\nb", Some("c")),
        ("...\nc", "a\nb", Some("c")),
        ("a `ret` 7", "a `cbz x0, 1` 88", None),
        ("read_word+0x1c", "write_word+0x1c", Some("read_word+0x1c")),
    ] {
        let shown = text(shown);
        assert_eq!(difference(&shown, printed), different, "{shown:?}");
    }
}
