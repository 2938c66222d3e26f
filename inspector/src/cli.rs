//! The command line: arguments in, text or JSON out.
//!
//! Data goes to standard output, everything else to standard error. Exit status: 0 fine, 2 usage,
//! 3 the target or an input failed or the answer is incomplete.

mod abort;
mod arguments;
mod commands;
mod document;
mod json;
mod manual;
mod text;

use crate::model::System;
use crate::session::{Opener, Session};
use crate::target;
use crate::view;
use anyhow::Context;
use arguments::{Arguments, Ask, Command, Format};
use clap::{CommandFactory, Parser};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The target or an input failed, or the answer is incomplete.
const FAILED: u8 = 3;
/// How long leaving a machine may take. An impatient user presses Ctrl-C twice at once, and `timeout` sends each signal
/// twice: neither is to leave breakpoints behind.
const LEAVING: Duration = Duration::from_secs(2);
/// How many sentences about what is missing are printed; the rest is counted.
const MAX_PROBLEMS: usize = 20;

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let stdout = io::stdout();
    match arguments.task() {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "inspector", &mut script);
            stdout.lock().write_all(&script)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => {
            let mut page = Vec::new();
            manual::write(&mut page)?;
            stdout.lock().write_all(&page)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Tui(tui) => {
            catch_interrupts()?;
            crate::tui::run(
                arguments.opener(&tui.target.target),
                tui.options(),
                abort::export,
            )?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Save(save) => {
            let mut session = open(&arguments.opener(&save.target))?;
            let system = session.save(&save.file)?;
            Ok(verdict(&system, system.complete))
        }
        Command::Abort(abort) => {
            let opener = arguments.opener(&abort.target.target);
            abort::run(&opener, &abort, arguments.format())
        }
        Command::Ask(ask) => {
            let opener = arguments.opener(ask.target());
            let mut session = open(&opener)?;
            let mut system = session.capture()?;
            if matches!(ask, Ask::Cpus(_)) {
                session.add_lines(&mut system);
            }
            let answer = commands::answer(&system, &opener.target, &ask)?;
            if let (Format::Text, Some(note)) = (arguments.format(), answer.note()) {
                complain(note);
            }
            let mut out = io::BufWriter::new(stdout.lock());
            answer
                .write(arguments.format(), &mut out)
                .and_then(|()| out.flush())
                .context("cannot write the answer")?;
            Ok(verdict(&system, answer.is_complete()))
        }
    }
}

/// Opens a session and says what is worth knowing about it.
fn open(opener: &Opener) -> anyhow::Result<Session> {
    catch_interrupts()?;
    let session = opener.open()?;
    for note in session.notes() {
        complain(&note);
    }
    Ok(session)
}

/// From here on Ctrl-C, `kill` and a closed terminal end waiting, not the process, so that the machine is left as it
/// was found. One that comes later than `LEAVING` ends the process.
fn catch_interrupts() -> io::Result<()> {
    let signals = [SIGINT, SIGTERM, SIGHUP];
    for signal in signals {
        flag::register(signal, Arc::clone(target::cancellation()))?;
    }
    let mut signals = Signals::new(signals)?;
    std::thread::Builder::new()
        .name("interrupts".into())
        .spawn(move || {
            let mut first = None;
            for _ in signals.forever() {
                if first.get_or_insert_with(Instant::now).elapsed() > LEAVING {
                    std::process::exit(FAILED.into());
                }
            }
        })?;
    Ok(())
}

/// Says why an answer is not complete, if so.
fn verdict(system: &System, complete: bool) -> ExitCode {
    if complete {
        return ExitCode::SUCCESS;
    }
    let problems = view::problems(system);
    for problem in problems.iter().take(MAX_PROBLEMS) {
        complain(problem);
    }
    if problems.len() > MAX_PROBLEMS {
        complain(&format!("and {} more", problems.len() - MAX_PROBLEMS));
    }
    ExitCode::from(FAILED)
}

/// A sentence for the user. Nobody is left to tell when standard error is closed.
fn complain(sentence: &str) {
    let _ = writeln!(io::stderr().lock(), "inspector: {sentence}");
}

/// Whoever read our output has enough of it.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
