//! What the participant's effects have changed, as a command of its author prints it.
//!
//! A whole number is a count of effects, and is compared by differences. Anything else is a text that is equal or not. A
//! command with `{subject}` or `{n}` in it shows one transaction, and then checks can run side by side; without, it shows
//! everything, and they run one after the other.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use crate::error::{CheckError, Stop};
use crate::process::{filled, kill_group, with_variables};
use crate::settings::Settings;

/// What was printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A number.
    Number(i64),
    /// Anything else.
    Text(String),
}

/// So much of a text is told, in characters.
const TOLD_CHARACTERS: usize = 120;

impl Seen {
    fn read(text: &str) -> Self {
        let text = text.trim();
        text.parse().map_or_else(|_| Self::Text(text.to_owned()), Self::Number)
    }

    /// For a person.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => format!("{:?}", text.chars().take(TOLD_CHARACTERS).collect::<String>()),
        }
    }

    /// The difference of two numbers.
    pub(crate) fn since(&self, before: &Self) -> Option<i64> {
        match (self, before) {
            (Self::Number(after), Self::Number(before)) => after.checked_sub(*before),
            _ => None,
        }
    }
}

/// Whether `{subject}` or `{n}` is in it.
pub(crate) fn is_per_transaction(command: &str) -> bool {
    command.contains("{subject}") || command.contains("{n}")
}

/// Runs it, and waits for its end.
pub(crate) fn observe(settings: &Settings, command: &str, subject: &str, number: u64) -> Result<Seen, Stop> {
    let command = filled(command, settings).replace("{subject}", subject).replace("{n}", &number.to_string());
    let failed = |cause: String| Stop::Error(CheckError::Observe { command: command.clone(), cause });
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    with_variables(&mut shell, settings);
    shell.process_group(0);
    let child = shell.spawn().map_err(|cause| failed(format!("cannot be started: {cause}")))?;
    let group = child.id();
    let (sender, receiver) = mpsc::channel();
    let waiting = thread::Builder::new().name("kit-observe".to_owned()).spawn(move || {
        // Nobody listens any more once it has taken too long.
        let _ = sender.send(child.wait_with_output());
    });
    waiting.map_err(|cause| CheckError::Process { doing: "start a thread".to_owned(), cause })?;
    let patience = settings.answer_timeout;
    let ended = receiver.recv_timeout(patience).map_err(|_| {
        kill_group(group);
        failed(format!("has not ended within {} s", patience.as_secs()))
    })?;
    let output = ended.map_err(|cause| failed(format!("cannot be waited for: {cause}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("ends with {}: {}", output.status, said.trim())));
    }
    Ok(Seen::read(&String::from_utf8_lossy(&output.stdout)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_differences_and_texts_do_not() {
        let seen = ["5\n", " -3 ", "5 parcels", ""].map(Seen::read);
        assert_eq!(seen[0].since(&seen[1]), Some(8));
        assert_eq!(seen[2].since(&seen[0]), None);
        assert_eq!((&seen[2], &seen[3]), (&Seen::Text("5 parcels".into()), &Seen::Text(String::new())));
        assert!(
            is_per_transaction("count {n}")
                && is_per_transaction("grep {subject}")
                && !is_per_transaction("cat {name}")
        );
    }
}
