//! Why a record was set aside, as one word: what is counted by, and filtered by.
//!
//! The fold writes a sentence, which is for people and may change with a level; the word is what scripts rely on.

use serde::Serialize;

/// A class of causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CauseCode {
    /// A record without a value.
    NoValue,
    /// Not JSON, or not a `CloudEvents` document.
    NotAnEvent,
    /// Of a type that nobody may send to an inbox.
    UnknownType,
    /// An attribute that is missing, or outside its form.
    Attribute,
    /// Meant for another installation.
    OtherInstance,
    /// Meant for another partition of the inbox.
    WrongPartition,
    /// A reply without the right token.
    ReplyToken,
    /// About a transaction that is not known.
    UnknownTransaction,
    /// About a step, branch or participant that its transaction does not have.
    UnknownBranch,
    /// A level or settings that shards do not take.
    ShardVerb,
    /// A definition that shards do not take.
    Definition,
    /// A sentence that this program does not know: of another version.
    Other,
}

/// How the sentences of the fold begin; the first that fits holds.
const SENTENCES: &[(&str, CauseCode)] = &[
    ("the record has no value", CauseCode::NoValue),
    ("not a CloudEvents document", CauseCode::NotAnEvent),
    ("specversion must be", CauseCode::NotAnEvent),
    ("unexpected type", CauseCode::UnknownType),
    ("attribute ", CauseCode::Attribute),
    ("a reply to another instance", CauseCode::OtherInstance),
    ("an inquiry to another instance", CauseCode::OtherInstance),
    ("a child of another instance", CauseCode::OtherInstance),
    ("a reply in the wrong partition", CauseCode::WrongPartition),
    ("another inbox partition is this child's home", CauseCode::WrongPartition),
    ("an inquiry about something that was not born here", CauseCode::UnknownTransaction),
    ("a reply without the right token", CauseCode::ReplyToken),
    ("a reply to nothing that is known", CauseCode::UnknownTransaction),
    ("a reply of a step or branch that does not exist", CauseCode::UnknownBranch),
    ("an inquiry about", CauseCode::UnknownBranch),
];

impl CauseCode {
    /// Every one of them.
    pub const ALL: [Self; 12] = [
        Self::NoValue,
        Self::NotAnEvent,
        Self::UnknownType,
        Self::Attribute,
        Self::OtherInstance,
        Self::WrongPartition,
        Self::ReplyToken,
        Self::UnknownTransaction,
        Self::UnknownBranch,
        Self::ShardVerb,
        Self::Definition,
        Self::Other,
    ];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoValue => "no-value",
            Self::NotAnEvent => "not-an-event",
            Self::UnknownType => "unknown-type",
            Self::Attribute => "attribute",
            Self::OtherInstance => "other-instance",
            Self::WrongPartition => "wrong-partition",
            Self::ReplyToken => "reply-token",
            Self::UnknownTransaction => "unknown-transaction",
            Self::UnknownBranch => "unknown-branch",
            Self::ShardVerb => "shard-verb",
            Self::Definition => "definition",
            Self::Other => "other",
        }
    }

    /// Of a letter: by the sentence, or by what the record is where the sentence is about its content.
    pub fn of(message: &str, kind: Option<&str>) -> Self {
        match SENTENCES.iter().find(|(beginning, _)| message.starts_with(beginning)) {
            Some((_, code)) => *code,
            None => match kind {
                Some("sagamore.definition.v1") => Self::Definition,
                Some("sagamore.settings.v1" | "sagamore.level.v1") => Self::ShardVerb,
                _ => Self::Other,
            },
        }
    }
}

impl std::fmt::Display for CauseCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sentence_of_the_fold_has_a_word() {
        let sources = [
            include_str!("../../../decider/src/shard.rs"),
            include_str!("../../../decider/src/child.rs"),
            include_str!("../../../decider/src/inquiry.rs"),
        ];
        let mut seen = 0;
        for source in sources {
            let constant = source.split("set_aside(record, \"").skip(1);
            let inquiries =
                source.split('"').skip(1).step_by(2).filter(|text| text.starts_with("an inquiry "));
            let sentences = constant.filter_map(|rest| rest.split('"').next()).chain(inquiries);
            for sentence in sentences {
                assert_ne!(CauseCode::of(sentence, None), CauseCode::Other, "{sentence}");
                seen += 1;
            }
        }
        assert!(seen >= 12, "the sentences were found: {seen}");
        let causes = include_str!("../../../../schemas/src/wire/read.rs").split("pub enum ReadCause").nth(1);
        let causes = causes.and_then(|rest| rest.split("\n}").next()).expect("the causes are there");
        for cause in causes.split("#[error(\"").skip(1) {
            assert_ne!(CauseCode::of(cause, None), CauseCode::Other, "{cause}");
        }
    }

    #[test]
    fn what_a_record_is_tells_where_its_sentence_is_about_its_content() {
        let check = |message, kind, code: CauseCode| assert_eq!(CauseCode::of(message, kind), code);
        check("setting open_max = 0 is outside 1..5", Some("sagamore.settings.v1"), CauseCode::ShardVerb);
        check(
            "the level is 1 already, and never falls to 0",
            Some("sagamore.level.v1"),
            CauseCode::ShardVerb,
        );
        check("order@1: two pivots", Some("sagamore.definition.v1"), CauseCode::Definition);
        check("attribute level is missing", Some("sagamore.level.v1"), CauseCode::Attribute);
        check("of a later version", Some("sagamore.reply.v1"), CauseCode::Other);
        for code in CauseCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str(), "the same word everywhere");
        }
    }
}
