//! The envelope: inputs, commands, outcomes.

use sagamore_fuzz::Target;
use sagamore_schemas::ids::Partition;
use sagamore_schemas::wire::{Asked, Input, ReadError, read_asked, read_input, read_outcome};

/// Longest cause: a record is a document of at most so many bytes, and nobody wants to read it twice.
const CAUSE_BYTES_MAX: usize = 100_000;

#[test]
fn what_is_read_is_written_and_read_again() {
    Target { name: "wire", cases: 150_000 }.run(|bytes| {
        input(bytes);
        command(bytes);
        outcome(bytes);
    });
}

fn input(bytes: &[u8]) {
    let input = match read_input(Some(bytes)) {
        Ok(input) => input,
        Err(error) => return is_told(&error),
    };
    let written = match &input {
        Input::Start(start) => start.to_json("/fuzz"),
        Input::Reply(reply) => reply.to_json(),
        Input::Timer(timer) => timer.to_json(),
        Input::Undeliverable(lost) => lost.to_json(),
        Input::Inquiry(inquiry) => inquiry.to_json(),
        Input::Child(said) => said.to_json(),
        Input::Verb(verb) => verb.to_json(),
        Input::Shard(verb) => verb.to_json(Partition(0)),
        Input::Definition(definition) => definition.to_json(),
    };
    let again = read_input(Some(&written)).unwrap_or_else(|error| panic!("{error}: {}", text(&written)));
    assert_eq!(format!("{again:?}"), format!("{input:?}"), "{}", text(&written));
    assert_eq!(again.label(), input.label());
}

fn command(bytes: &[u8]) {
    let written = |asked: &Asked<'_>| match asked {
        Asked::Command(command) => command.to_json(),
        Asked::Verdict(verdict) => verdict.to_json(),
    };
    match read_asked(Some(bytes)) {
        Ok(asked) => {
            let once = written(&asked);
            let again = read_asked(Some(&once)).unwrap();
            assert_eq!(format!("{again:?}"), format!("{asked:?}"), "{}", text(&once));
            assert_eq!(written(&again), once);
        }
        Err(error) => is_told(&error),
    }
}

fn outcome(bytes: &[u8]) {
    match read_outcome(Some(bytes)) {
        Ok(outcome) => {
            let written = outcome.to_json();
            let again = read_outcome(Some(&written)).unwrap();
            assert_eq!(format!("{again:?}"), format!("{outcome:?}"), "{}", text(&written));
            assert_eq!(again.to_json(), written);
        }
        Err(error) => is_told(&error),
    }
}

fn is_told(error: &ReadError) {
    let cause = error.to_string();
    assert!(cause.len() > 10 && cause.len() < CAUSE_BYTES_MAX, "{cause}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
