//! Whatever is valid by type: one parse, one text.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use sagamore_fuzz::Target;
use sagamore_schemas::ids::{Birth, Name, Span, Time, TransactionId};
use sagamore_schemas::topics::Prefix;
use sagamore_schemas::wire::DefinitionRef;

#[test]
fn what_is_read_prints_as_what_reads_the_same() {
    Target { name: "ids", cases: 150_000 }.run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let prints = [
            prints_the_same::<TransactionId>(&text),
            prints_the_same::<Name>(&text),
            prints_the_same::<Birth>(&text),
            prints_the_same::<Prefix>(&text),
        ];
        for printed in prints.into_iter().flatten() {
            assert_eq!(printed, text, "an id has one text");
        }
        prints_the_same::<Span>(&text);
        prints_the_same::<Time>(&text);
        prints_the_same::<DefinitionRef>(&text);
        if let Ok(span) = text.parse::<Span>() {
            assert!(span <= Span::MAX);
        }
        if let Ok(time) = text.parse::<Time>() {
            assert!(time <= Time::MAX && time.epoch_ms() >= 0);
        }
    });
}

fn prints_the_same<T: FromStr<Err: Display> + Display + Debug + PartialEq>(text: &str) -> Option<String> {
    match text.parse::<T>() {
        Ok(value) => {
            let printed = value.to_string();
            assert_eq!(printed.parse::<T>().ok().as_ref(), Some(&value), "{text:?} prints as {printed:?}");
            Some(printed)
        }
        Err(error) => {
            let told = error.to_string();
            assert!(told.len() > 10 && told.len() < 800, "{text:?}: {told:?}");
            None
        }
    }
}
