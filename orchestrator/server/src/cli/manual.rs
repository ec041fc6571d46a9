//! `completions`, `man`: what a shell and a reader want to know of the command line, made from it.

use clap::Args;
use clap_complete::{Shell, generate};

use super::exit::{Exit, Failure, Outcome};

/// For which shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Of which command.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The command, such as `define apply`; the whole unless told otherwise.
    #[arg(value_name = "COMMAND")]
    words: Vec<String>,
}

/// A script for the shell, on stdout.
pub fn completions(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    generate(args.shell, &mut super::command(), "sagamore", &mut script);
    print(&script)
}

/// A page in roff, on stdout: `sagamore man | man -l -`.
pub fn man(args: &ManArgs) -> Outcome {
    let mut command = super::command();
    command.build();
    let mut page = command;
    for word in &args.words {
        let found = page.find_subcommand(word).cloned();
        page = found
            .ok_or_else(|| Failure::usage(format_args!("there is no command {}", args.words.join(" "))))?;
    }
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(page).render(&mut text);
    rendered.map_err(|error| Failure::new(Exit::Unexpected, error))?;
    print(&text)
}

fn print(text: &[u8]) -> Outcome {
    super::output::print(&String::from_utf8_lossy(text))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_a_script() {
        fn check(command: &clap::Command) {
            let mut page = Vec::new();
            clap_mangen::Man::new(command.clone()).render(&mut page).unwrap();
            assert!(String::from_utf8(page).unwrap().contains(".SH NAME"), "{}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        let mut command = super::super::command();
        command.build();
        check(&command);
        for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
            let mut script = Vec::new();
            generate(shell, &mut command, "sagamore", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("resolve"), "{shell}");
        }
        let words = vec!["define".to_owned(), "aply".to_owned()];
        assert_eq!(man(&ManArgs { words }).unwrap_err().exit, Exit::Usage);
    }
}
