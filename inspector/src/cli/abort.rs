//! `abort`: lets the machine run, and tells what became of host traps.

use super::arguments::{Abort, Format};
use super::document::Document;
use super::{FAILED, complain, json, open, text};
use crate::abort::{Story, Wanted};
use crate::session::{Opener, Session};
use crate::view;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// After so long without a trap it is looked whether the machine still is the same.
const LOOK: Duration = Duration::from_secs(2);
/// How long a machine that has nothing to follow yet is let run at once, where it is not stopped by itself.
const MOMENT: Duration = Duration::from_millis(20);

/// Follows as many traps as are asked for. In text each is printed as soon as it is known; what was followed before
/// something went wrong is printed in every form.
pub(super) fn run(opener: &Opener, abort: &Abort, format: Format) -> anyhow::Result<ExitCode> {
    let mut session = open(opener)?;
    let mut printer = Printer {
        format,
        told: 0,
        out: io::stdout(),
    };
    let mut stories = Vec::new();
    let result = follow(&mut session, abort, &mut |story| {
        if format == Format::Text {
            printer.text(&story)?;
        }
        stories.push(story);
        Ok(())
    });
    // The machine is left as it was found before anybody is told.
    drop(session);
    if format != Format::Text {
        let complete = result.is_ok() && stories.iter().all(|story| story.problems.is_empty());
        let name = if abort.wanted.call.is_some() {
            "calls"
        } else {
            "aborts"
        };
        let document = Document::new("abort", complete, &opener.target, name)
            .elements(stories.iter().map(json::story));
        printer.document(&document)?;
    }
    result?;
    let problems = stories.iter().flat_map(|story| &story.problems);
    let problems: std::collections::BTreeSet<_> = problems.collect();
    for problem in &problems {
        complain(problem);
    }
    Ok(match problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAILED),
    })
}

/// The document of stories that were followed elsewhere.
pub(super) fn export(target: &str, stories: &[Arc<Story>], out: &mut dyn Write) -> io::Result<()> {
    let complete = stories.iter().all(|story| story.problems.is_empty());
    let elements = stories.iter().map(|story| json::story(story));
    let document = Document::new("abort", complete, target, "aborts").elements(elements);
    document.write_json(&mut io::BufWriter::new(out))
}

fn follow(
    session: &mut Session,
    abort: &Abort,
    tell: &mut dyn FnMut(Story) -> io::Result<()>,
) -> anyhow::Result<()> {
    if !session.is_ready()? {
        complain(
            "no CPU runs its host under a stage 2 yet: waiting until one does; Ctrl-C ends it",
        );
        session.wait_for_el2(MOMENT)?;
    }
    let mut follower = session.follow(abort.wanted.clone())?;
    let mut told = 0;
    // Scripts have nobody who would wonder whether it hangs.
    let mut is_silent = io::stderr().is_terminal();
    loop {
        let stories = session.stories(&mut follower, LOOK)?;
        if stories.is_empty() {
            session.check(&follower)?;
            if std::mem::take(&mut is_silent) {
                complain(&waiting(&abort.wanted));
            }
        }
        for story in stories {
            let is_last = match abort.until {
                Some(until) => until.is_met(&story),
                None => told + 1 >= abort.count,
            };
            tell(story)?;
            told += 1;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// What the user is to know when nothing comes.
fn waiting(wanted: &Wanted) -> String {
    let what = match wanted.call {
        Some(_) => "hypercall",
        None => "host abort",
    };
    match wanted.to_string() {
        words if words.is_empty() => format!("waiting for a {what}; Ctrl-C ends it"),
        words => format!("waiting for a {what} ({words}); Ctrl-C ends it"),
    }
}

/// Where stories go.
struct Printer<W: Write> {
    format: Format,
    told: usize,
    out: W,
}

impl<W: Write> Printer<W> {
    fn text(&mut self, story: &Story) -> io::Result<()> {
        let mut out = io::BufWriter::new(&mut self.out);
        if self.told > 0 {
            writeln!(out)?;
        }
        for (at, (heading, table)) in view::story_tables(story).iter().enumerate() {
            if at > 0 {
                writeln!(out)?;
            }
            writeln!(out, "{heading}")?;
            text::write_table(table, &mut out)?;
        }
        self.told += 1;
        out.flush()
    }

    fn document(&mut self, document: &Document) -> io::Result<()> {
        let mut out = io::BufWriter::new(&mut self.out);
        match self.format {
            Format::Jsonl => document.write_jsonl(&mut out)?,
            _ => document.write_json(&mut out)?,
        }
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abort::testing::{
        already_mapped, emulated, gave_up, left, mapped, panicked, refused, shared,
    };
    use snapbox::{Data, assert_data_eq};
    use std::collections::BTreeSet;

    /// One story of each outcome: not all of them come up on the embedded machine.
    fn every_outcome() -> [Story; 8] {
        [
            mapped(),
            already_mapped(),
            refused(),
            emulated(),
            shared(),
            panicked(),
            gave_up(),
            left(),
        ]
    }

    fn compare(name: &str, printed: Vec<u8>) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/golden/");
        let path = std::path::PathBuf::from(format!("{folder}{name}"));
        let printed = String::from_utf8(printed).unwrap();
        assert_data_eq!(printed, Data::read_from(&path, None).raw());
    }

    #[test]
    fn every_outcome_is_told() {
        let stories = every_outcome();
        let names: BTreeSet<_> = stories.iter().map(|story| story.outcome.name()).collect();
        assert_eq!(names.len(), stories.len());
        let mut printer = Printer {
            format: Format::Text,
            told: 0,
            out: Vec::new(),
        };
        for story in &stories {
            printer.text(story).unwrap();
        }
        compare("abort-outcomes.txt", printer.out);
        for (format, name) in [
            (Format::Json, "abort-outcomes.json"),
            (Format::Jsonl, "abort-outcomes.jsonl"),
        ] {
            let mut printer = Printer {
                format,
                told: 0,
                out: Vec::new(),
            };
            let elements = stories.iter().map(json::story);
            let document = Document::new("abort", true, "made by hand", "aborts");
            printer.document(&document.elements(elements)).unwrap();
            compare(name, printer.out);
        }
    }
}
