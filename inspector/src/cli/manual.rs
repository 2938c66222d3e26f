//! The manual page.

use super::arguments::Arguments;
use clap::CommandFactory;
use clap_mangen::Man;
use std::io::{self, Write};

/// Writes one page for all commands: the options of each stand under its name.
pub(super) fn write(page: &mut dyn Write) -> io::Result<()> {
    let command = Arguments::command();
    let man = Man::new(command.clone());
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    man.render_subcommands_section(page)?;
    for command in command.get_subcommands() {
        let heading = format!(".SH \"INSPECTOR {}\"", command.get_name().to_uppercase());
        let mut section = Vec::new();
        Man::new(command.clone().disable_help_flag(true)).render_options_section(&mut section)?;
        let section = String::from_utf8_lossy(&section).replacen(".SH OPTIONS", &heading, 1);
        page.write_all(section.as_bytes())?;
    }
    man.render_extra_section(page)?;
    man.render_version_section(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap_complete::{Shell, generate};

    /// The long names of the options of every command, and `None` for those before the command.
    fn options() -> Vec<(Option<String>, String)> {
        let command = Arguments::command();
        let of = |command: &clap::Command, name: Option<&str>| -> Vec<_> {
            let longs = command.get_arguments().filter_map(clap::Arg::get_long);
            longs
                .map(|long| (name.map(str::to_owned), long.to_owned()))
                .collect()
        };
        let mut all = of(&command, None);
        for command in command.get_subcommands() {
            all.extend(of(command, Some(command.get_name())));
        }
        all
    }

    #[test]
    fn the_page_has_the_options_of_every_command_under_its_name() {
        let mut page = Vec::new();
        write(&mut page).expect("memory has room");
        let page = String::from_utf8(page).expect("text").replace('\\', "");
        let section = |name: &str| {
            let heading = format!("\n.SH \"{name}\"\n");
            let (_, rest) = page.split_once(&heading)?;
            Some(rest.split("\n.SH ").next().unwrap_or_default().to_owned())
        };
        for (command, option) in options() {
            let text = match &command {
                Some(command) => section(&format!("INSPECTOR {}", command.to_uppercase())),
                None => page
                    .split("\n.SH ")
                    .find_map(|section| section.strip_prefix("OPTIONS\n").map(str::to_owned)),
            };
            let text = text.unwrap_or_else(|| panic!("no section of {command:?}:\n{page}"));
            assert!(
                text.contains(&format!("--{option}")),
                "{command:?} {option}:\n{text}"
            );
        }
    }

    #[test]
    fn shells_complete_the_options_of_every_command() {
        for (shell, dashes) in [
            (Shell::Bash, "--"),
            (Shell::Zsh, "--"),
            (Shell::Fish, "-l "),
        ] {
            let mut script = Vec::new();
            generate(shell, &mut Arguments::command(), "inspector", &mut script);
            let script = String::from_utf8(script).expect("text");
            for (command, option) in options() {
                let words = format!("{dashes}{option}");
                assert!(script.contains(&words), "{shell}: {command:?} {option}");
            }
        }
    }
}
