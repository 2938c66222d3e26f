//! Which traps are followed, in the words of the command line.

use super::{Effect, State};
use crate::abort::{Until, Wanted};
use crate::tui::worker::Command;
use clap::builder::PossibleValue;
use clap::{CommandFactory, Parser};
use std::fmt;

/// Which traps are followed, and how the one that is run to ends.
#[derive(Clone, PartialEq, Eq, Default, Parser, Debug)]
#[command(no_binary_name = true, disable_help_flag = true)]
pub struct Followed {
    #[command(flatten)]
    wanted: Wanted,
    /// What A runs to
    #[arg(long, value_name = "OUTCOME", value_enum)]
    until: Option<Until>,
}

impl Followed {
    /// How the one ends that is run to.
    pub fn until(&self) -> Until {
        self.until.unwrap_or_default()
    }

    /// Hypercalls, not aborts.
    pub fn is_of_calls(&self) -> bool {
        self.wanted.call.is_some()
    }
}

impl fmt::Display for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = self.until.map(|until| format!("--until {until}"));
        let words = [Some(self.wanted.to_string()), until];
        let words: Vec<_> = words
            .into_iter()
            .flatten()
            .filter(|words| !words.is_empty())
            .collect();
        f.write_str(&words.join(" "))
    }
}

/// The words, each with what it means.
pub(super) fn help() -> Vec<String> {
    let command = Followed::command();
    let lines = |argument: &clap::Arg| {
        let Some(name) = argument.get_long() else {
            return Vec::new();
        };
        let value = match argument.get_value_names() {
            Some(names) if argument.get_action().takes_values() => names.join(" "),
            _ => String::new(),
        };
        let words = format!("--{name} {value}");
        let help = argument.get_help().map(ToString::to_string);
        let mut lines = vec![format!("{words:<17}{}", help.unwrap_or_default())];
        let values = argument.get_possible_values();
        let values: Vec<_> = values.iter().map(PossibleValue::get_name).collect();
        if !values.is_empty() && !value.is_empty() {
            // Behind the words a terminal of 80 columns has no room for them.
            lines.push(format!("{:<17}{}", "", values.join("|")));
        }
        lines
    };
    command.get_arguments().flat_map(lines).collect()
}

impl State {
    /// From now on follows only these.
    pub(super) fn follow_which(&mut self, text: &str, effects: &mut Vec<Effect>) {
        match Followed::try_parse_from(text.split_whitespace()) {
            _ if self.is_under_way() => {
                self.complain("the machine runs up to something; i stops it");
            }
            Ok(followed) => {
                effects.push(Effect::Worker(Command::Want(followed.wanted.clone())));
                self.say(match text.is_empty() {
                    true => "follows every abort".to_owned(),
                    false => format!("follows only {followed}"),
                });
                self.abort.followed = followed;
            }
            Err(error) => {
                let error = error.to_string();
                let first = error.lines().next().unwrap_or_default();
                self.complain(first.trim_start_matches("error: "));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Followed {
        Followed::try_parse_from(text.split_whitespace()).expect(text)
    }

    #[test]
    fn what_is_followed_is_written_as_it_is_read() {
        for text in [
            "",
            "--ipa 0x1000..0x3000 --cpu 1",
            "--call share --steps",
            "--until mapped",
            "--cpu 2 --until panic",
        ] {
            assert_eq!(parse(text).to_string(), text);
        }
        assert_eq!(parse("--cpu 1").until(), Until::Refused);
        assert!(parse("--call share").is_of_calls());
    }

    #[test]
    fn every_word_is_explained() {
        let help = help();
        let words = [
            "--ipa A..B ",
            "--cpu N ",
            "--call NAME ",
            "--steps ",
            "--until OUTCOME ",
        ];
        let mut lines = help.iter();
        for (words, line) in words.into_iter().zip(lines.by_ref()) {
            assert!(line.starts_with(words) && line.len() > 30, "{line}");
        }
        // The outcomes, which have to fit with a space before them.
        let outcomes: Vec<_> = lines.collect();
        let [outcomes] = outcomes[..] else {
            panic!("{outcomes:?}");
        };
        assert!(outcomes.ends_with("|gave-up|left") && outcomes.len() < 80);
    }
}
