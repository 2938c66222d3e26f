//! The grammar of the command line.

use crate::abort::{Until, Wanted};
use crate::addr::{Span, parse_range, parse_u64};
use crate::model::{EntryKind, JointOwner, Owner, State};
use crate::session::Opener;
use crate::tui;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;
use std::time::Duration;

/// The target of a command that names none.
const DEFAULT_TARGET: &str = "demo";

/// A debugger for EL2 memory protection: stage-2 mappings, page ownership, locks.
#[derive(Parser, Debug)]
#[command(name = "inspector", version, about, after_help = TARGETS)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

const TARGETS: &str = "\
TARGET is one of
  demo                           the embedded machine (the default where it may be left out)
  HOST:PORT, :PORT, unix:PATH    a gdb server: QEMU's, or hyp's own channel
  FILE                           a snapshot, or a memory dump of QEMU (dump-guest-memory)

Exit status: 0 fine; 2 usage; 3 the target or an input failed, or the answer is incomplete.";

/// Options that stand before or after the command.
#[derive(Args, Debug)]
struct Options {
    /// File of a program that runs there, for symbols and types: an ELF, or a kernel's Image (repeatable)
    #[arg(long = "image", value_name = "FILE", global = true)]
    images: Vec<PathBuf>,
    /// How long to wait for a silent server
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds, global = true)]
    timeout: Duration,
    /// How to print
    #[arg(long, value_enum, default_value = "text", global = true)]
    format: Format,
    /// The same as --format json
    #[arg(long, global = true, conflicts_with = "format")]
    json: bool,
}

/// How answers are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(super) enum Format {
    /// Aligned columns
    Text,
    /// One document
    Json,
    /// The document's head on one line, then one element a line
    Jsonl,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Subcommand, Debug)]
pub(super) enum Command {
    /// The full screen (also without a command)
    Tui(Tui),
    #[command(flatten)]
    Ask(Ask),
    /// Write a snapshot that opens elsewhere
    Save(Save),
    /// Let the machine run to the next host abort, follow it to its end and explain it
    Abort(Abort),
    /// Print a script that completes arguments
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Print the manual page
    Man,
}

/// What to answer.
#[derive(Clone, PartialEq, Eq, Subcommand, Debug)]
pub(super) enum Ask {
    /// What was found: hypervisor, layout, CPUs, regimes, RAM, and where each fact came from
    Info(OptionalTarget),
    /// Table entries of all regimes, merged into runs
    List(List),
    /// Ranges of physical pages with their joint state
    Owners(Owners),
    /// One translation, every step taken
    Walk(Walk),
    /// Everything about one physical page
    Page(Page),
    /// Every lock: tickets, waiters, holder
    Locks(OptionalTarget),
    /// Each CPU: exception level, PC, backtrace, whose stage 2 is active, translation registers
    Cpus(OptionalTarget),
    /// VMs and vCPUs that the hypervisor knows
    Vms(OptionalTarget),
}

impl Ask {
    /// What to look at.
    pub(super) fn target(&self) -> &str {
        match self {
            Self::Info(at) | Self::Locks(at) | Self::Cpus(at) | Self::Vms(at) => &at.target,
            Self::List(list) => &list.target.target,
            Self::Owners(owners) => &owners.target.target,
            Self::Walk(walk) => &walk.target,
            Self::Page(page) => &page.target,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Args, Debug)]
pub(super) struct OptionalTarget {
    /// What to look at
    #[arg(value_name = "TARGET", default_value = DEFAULT_TARGET)]
    pub(super) target: String,
}

#[derive(Clone, PartialEq, Eq, Args, Debug)]
pub(super) struct Tui {
    #[command(flatten)]
    pub(super) target: OptionalTarget,
    /// The terminal's background
    #[arg(long, value_enum, default_value = "ask")]
    background: Background,
    /// Leave the mouse to the terminal
    #[arg(long)]
    no_mouse: bool,
}

/// The terminal's background.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Background {
    /// Ask the terminal
    Ask,
    Dark,
    Light,
}

impl Tui {
    /// Without arguments.
    fn plain() -> Self {
        Self {
            target: OptionalTarget {
                target: DEFAULT_TARGET.to_owned(),
            },
            background: Background::Ask,
            no_mouse: false,
        }
    }

    /// How the screen is wanted.
    pub(super) fn options(&self) -> tui::Options {
        tui::Options {
            light: match self.background {
                Background::Ask => None,
                Background::Dark => Some(false),
                Background::Light => Some(true),
            },
            mouse: !self.no_mouse,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Args, Debug)]
pub(super) struct List {
    #[command(flatten)]
    pub(super) target: OptionalTarget,
    /// Only the regime of this name (host-s2, hyp-s1, guest-s2:0x1000)
    #[arg(long, value_name = "NAME")]
    pub(super) regime: Option<String>,
    /// One row for each descriptor
    #[arg(long)]
    pub(super) no_merge: bool,
    /// Only entries that cover input addresses in this range (B is not part of it)
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    pub(super) range: Option<Span>,
    /// Only entries of physical addresses in this range
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    pub(super) pa: Option<Span>,
    /// Only entries of this owner
    #[arg(long)]
    pub(super) owner: Option<Owner>,
    /// Only entries in this state
    #[arg(long)]
    pub(super) state: Option<State>,
    /// Only entries of this kind
    #[arg(long)]
    pub(super) kind: Option<EntryKind>,
}

#[derive(Clone, PartialEq, Eq, Args, Debug)]
pub(super) struct Owners {
    #[command(flatten)]
    pub(super) target: OptionalTarget,
    /// Only pages in this range (B is not part of it)
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    pub(super) pa: Option<Span>,
    /// Only pages of this owner
    #[arg(long)]
    pub(super) owner: Option<JointOwner>,
}

#[derive(Clone, PartialEq, Eq, Args, Debug)]
pub(super) struct Walk {
    /// What to look at
    #[arg(value_name = "TARGET")]
    pub(super) target: String,
    /// The regime's name (host-s2, hyp-s1, guest-s2:0x1000)
    pub(super) regime: String,
    /// The input address
    #[arg(value_parser = number)]
    pub(super) address: u64,
}

#[derive(Clone, PartialEq, Eq, Args, Debug)]
pub(super) struct Page {
    /// What to look at
    #[arg(value_name = "TARGET")]
    pub(super) target: String,
    /// Any physical address in the page
    #[arg(value_parser = number)]
    pub(super) pa: u64,
}

#[derive(Clone, PartialEq, Eq, Args, Debug)]
pub(super) struct Save {
    /// What to look at
    #[arg(value_name = "TARGET")]
    pub(super) target: String,
    /// Where to write
    pub(super) file: PathBuf,
}

#[derive(Clone, PartialEq, Eq, Args, Debug)]
#[command(after_help = ABORT_EXAMPLES)]
pub(super) struct Abort {
    #[command(flatten)]
    pub(super) target: OptionalTarget,
    /// How many to follow
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: u64,
    #[command(flatten)]
    pub(super) wanted: Wanted,
    /// Go on until one ends like this; those before it are told, too
    #[arg(long, value_enum, conflicts_with = "count")]
    pub(super) until: Option<Until>,
}

const ABORT_EXAMPLES: &str = "\
Examples:
  inspector abort                                          the embedded machine's next one
  inspector abort :1234 --image vmlinux --count 3          three of a Linux on QEMU
  inspector abort :1235 --until refused                    over hyp's own channel
  inspector abort :1234 --image hyp.elf --ipa 0x40200000..0x40400000
  inspector abort :1234 --image vmlinux --call share --format jsonl

The machine is left as it was found, running or not, without a breakpoint; also after Ctrl-C.";

impl Arguments {
    /// What to do.
    pub(super) fn task(&self) -> Command {
        let tui = || Command::Tui(Tui::plain());
        self.command.clone().unwrap_or_else(tui)
    }

    /// How to print.
    pub(super) fn format(&self) -> Format {
        if self.options.json {
            Format::Json
        } else {
            self.options.format
        }
    }

    /// How to open a target.
    pub(super) fn opener(&self, target: &str) -> Opener {
        Opener {
            target: target.to_owned(),
            images: self.options.images.clone(),
            timeout: self.options.timeout,
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    parse_u64(text).ok_or_else(|| "expected a number, decimal or 0x…".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let limits = 0.001..=86400.0;
    text.parse()
        .ok()
        .filter(|seconds| limits.contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "expected seconds between 0.001 and 86400".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(["inspector"].into_iter().chain(line.split_whitespace()))
    }

    #[test]
    fn the_grammar_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_stand_before_or_after_the_command() {
        for line in [
            "--json --image a --image b list :1",
            "list --image a :1 --image b --json",
        ] {
            let arguments = parse(line).expect(line);
            assert_eq!(arguments.format(), Format::Json);
            let opener = arguments.opener(":1");
            assert_eq!(
                opener.images,
                [PathBuf::from("a"), PathBuf::from("b")],
                "{line}"
            );
        }
    }

    #[test]
    fn only_commands_without_another_argument_have_a_default_target() {
        for line in [
            "tui", "info", "list", "owners", "locks", "cpus", "vms", "abort",
        ] {
            assert!(parse(line).is_ok(), "{line}");
            assert!(parse(&format!("{line} :1")).is_ok(), "{line}");
        }
        for line in [
            "walk",
            "walk host-s2 0x1",
            "page",
            "page 0x1",
            "save",
            "save file",
            "completions",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("walk demo host-s2 0x1").is_ok());
    }

    #[test]
    fn without_a_command_the_full_screen_opens_on_the_embedded_machine() {
        let opened = parse("--image a").expect("it is sound");
        let Command::Tui(tui) = opened.task() else {
            panic!("not tui")
        };
        assert_eq!(opened.opener(&tui.target.target).target, "demo");
        assert_eq!(tui.options(), tui::Options::default());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in [
            "list --range 5..1",
            "list --range 5",
            "list --owner root",
            "list --kind 1",
            "list --state gone",
            "owners --owner nobody",
            "page demo nowhere",
            "list --timeout 0",
            "list --timeout nan",
            "list --timeout 1e300",
            "list --format xml",
            "list --json --format text",
            "abort --count 0",
            "abort --until never",
            "abort --count 2 --until mapped",
            "abort --call share --ipa 0..1",
            "abort --ipa 5..1",
            "abort --ipa 0x1000..0x1000",
            "check",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        let listed =
            parse("list --range 0x1000..0x3000 --owner guest:0x1000").expect("it is sound");
        let Command::Ask(Ask::List(list)) = listed.task() else {
            panic!("not list")
        };
        assert_eq!(list.range, Some(Span::new(0x1000, 0x2000)));
        assert_eq!(list.owner, Some(Owner::Guest(0x1000)));
    }
}
