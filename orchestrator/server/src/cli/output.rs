//! What goes to stdout: one thing or a list of things, as a table, JSON, JSON lines or YAML.
//!
//! Everything is JSON text first, and stays text: a number keeps its digits, an object its order. YAML is written in
//! block style with every string quoted, so that no reader takes `no` or `1e3` for something else.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::exit::{Exit, Failure};

/// In which form data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One JSON document per line and thing; an empty list is no line.
    Jsonl,
    /// One YAML document.
    Yaml,
}

/// Writes data to stdout.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    /// The form.
    pub format: Format,
}

impl Printer {
    /// A list; `table` is asked for when people read it.
    pub fn list<T: Serialize>(self, items: &[T], table: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table => print(&table()),
            Format::Json => print(&json(&items)?),
            Format::Jsonl => items.iter().try_for_each(|item| print(&json_line(item)?)),
            Format::Yaml => print(&yaml(&items)?),
        }
    }

    /// One thing.
    pub fn one<T: Serialize>(self, item: &T, table: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table => print(&table()),
            Format::Json => print(&json(item)?),
            Format::Jsonl => print(&json_line(item)?),
            Format::Yaml => print(&yaml(item)?),
        }
    }
}

/// Writes text and a line end to stdout. A reader that has gone away wants no more: that is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.trim_end_matches('\n').as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            UNREAD.store(true, Ordering::Relaxed);
            Ok(())
        }
        Err(error) => Err(Failure::new(Exit::Unexpected, format_args!("stdout: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Whether the reader of stdout has gone away: a process has one stdout.
static UNREAD: AtomicBool = AtomicBool::new(false);

/// Whether nobody reads what is printed, so that whoever prints again and again may end.
pub fn is_unread() -> bool {
    UNREAD.load(Ordering::Relaxed)
}

/// A table without lines, so that other programs can cut it.
pub fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    wide_table(&head, rows.into_iter().map(Vec::from))
}

/// The same, of as many columns as were asked for.
pub fn wide_table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    let lines = table.to_string();
    let lines: Vec<_> = lines.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
    lines.join("\n")
}

fn json<T: Serialize + ?Sized>(item: &T) -> Result<String, Failure> {
    written(item, |node, text| write_json(node, Some(0), text))
}

fn json_line<T: Serialize + ?Sized>(item: &T) -> Result<String, Failure> {
    written(item, |node, text| write_json(node, None, text))
}

/// A YAML document.
pub fn yaml<T: Serialize + ?Sized>(item: &T) -> Result<String, Failure> {
    written(item, |node, text| write_yaml(node, 0, text))
}

fn written<T: Serialize + ?Sized>(
    item: &T,
    write: impl FnOnce(&Node<'_>, &mut String),
) -> Result<String, Failure> {
    let wrong = |error| Failure::new(Exit::Unexpected, format_args!("cannot print this: {error}"));
    let raw = serde_json::value::to_raw_value(item).map_err(wrong)?;
    let node = Node::read(&raw).map_err(wrong)?;
    let mut text = String::new();
    write(&node, &mut text);
    Ok(text)
}

/// JSON with its scalars as they were written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Node<'a> {
    Scalar(&'a str),
    Array(Vec<Node<'a>>),
    Object(Vec<(String, Node<'a>)>),
}

impl<'a> Node<'a> {
    pub(super) fn read(raw: &'a RawValue) -> Result<Self, serde_json::Error> {
        let text = raw.get();
        match text.as_bytes().first() {
            Some(b'{') => {
                let Fields(fields) = serde_json::from_str(text)?;
                let read = |(name, raw)| Ok((name, Self::read(raw)?));
                Ok(Self::Object(fields.into_iter().map(read).collect::<Result<_, serde_json::Error>>()?))
            }
            Some(b'[') => {
                let elements: Vec<&'a RawValue> = serde_json::from_str(text)?;
                Ok(Self::Array(elements.into_iter().map(Self::read).collect::<Result<_, _>>()?))
            }
            _ => Ok(Self::Scalar(text)),
        }
    }

    /// On one line, without spaces.
    pub(super) fn to_json_line(&self) -> String {
        let mut text = String::new();
        write_json(self, None, &mut text);
        text
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Scalar(_) => false,
            Self::Array(elements) => elements.is_empty(),
            Self::Object(fields) => fields.is_empty(),
        }
    }
}

/// An object in its own order.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(InOrder).map(Fields)
    }
}

/// `depth` is that of the indentation; none writes one line.
fn write_json(node: &Node<'_>, depth: Option<usize>, text: &mut String) {
    let deeper = depth.map(|depth| depth + 1);
    let line = |depth: Option<usize>, text: &mut String| {
        if let Some(depth) = depth {
            text.push('\n');
            indent(depth, text);
        }
    };
    match node {
        Node::Scalar(scalar) => text.push_str(scalar),
        Node::Array(elements) if elements.is_empty() => text.push_str("[]"),
        Node::Object(fields) if fields.is_empty() => text.push_str("{}"),
        Node::Array(elements) => {
            text.push('[');
            for (position, element) in elements.iter().enumerate() {
                text.push_str(if position == 0 { "" } else { "," });
                line(deeper, text);
                write_json(element, deeper, text);
            }
            line(depth, text);
            text.push(']');
        }
        Node::Object(fields) => {
            text.push('{');
            for (position, (name, value)) in fields.iter().enumerate() {
                text.push_str(if position == 0 { "" } else { "," });
                line(deeper, text);
                text.push_str(&quoted(name));
                text.push_str(if depth.is_some() { ": " } else { ":" });
                write_json(value, deeper, text);
            }
            line(depth, text);
            text.push('}');
        }
    }
}

/// Writes at the place where the value begins; ends without a line end.
fn write_yaml(node: &Node<'_>, depth: usize, text: &mut String) {
    match node {
        Node::Scalar(scalar) => text.push_str(scalar),
        Node::Array(elements) if elements.is_empty() => text.push_str("[]"),
        Node::Object(fields) if fields.is_empty() => text.push_str("{}"),
        Node::Array(elements) => {
            for (position, element) in elements.iter().enumerate() {
                if position > 0 {
                    text.push('\n');
                    indent(depth, text);
                }
                text.push_str("- ");
                write_yaml(element, depth + 1, text);
            }
        }
        Node::Object(fields) => {
            for (position, (name, value)) in fields.iter().enumerate() {
                if position > 0 {
                    text.push('\n');
                    indent(depth, text);
                }
                let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
                    && !matches!(
                        name.to_lowercase().as_str(),
                        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null"
                    );
                text.push_str(&if is_plain { name.clone() } else { quoted(name) });
                text.push(':');
                if value.is_empty() || matches!(value, Node::Scalar(_)) {
                    text.push(' ');
                } else {
                    text.push('\n');
                    indent(depth + 1, text);
                }
                write_yaml(value, depth + 1, text);
            }
        }
    }
}

fn indent(depth: usize, text: &mut String) {
    text.extend(std::iter::repeat_n("  ", depth));
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn numbers_keep_their_digits_and_objects_their_order() {
        let item = given(
            r#"{ "total": 100.10, "id": "no", "steps": [ {"step":"a","x":[1,[2]]}, [], {} ], "null": null }"#,
        );
        assert_eq!(
            json_line(&item).unwrap(),
            r#"{"total":100.10,"id":"no","steps":[{"step":"a","x":[1,[2]]},[],{}],"null":null}"#
        );
        assert_eq!(
            json(&item).unwrap(),
            "{\n  \"total\": 100.10,\n  \"id\": \"no\",\n  \"steps\": [\n    {\n      \"step\": \"a\",\n      \"x\": [\n        1,\n        [\n          2\n        ]\n      ]\n    },\n    [],\n    {}\n  ],\n  \"null\": null\n}"
        );
        assert_eq!(
            yaml(&item).unwrap(),
            "total: 100.10\nid: \"no\"\nsteps:\n  - step: \"a\"\n    x:\n      - 1\n      - - 2\n  - []\n  - {}\n\"null\": null"
        );
    }

    #[test]
    fn an_empty_list_is_one() {
        let none: [u8; 0] = [];
        assert_eq!((json(&none).unwrap(), yaml(&none).unwrap()), ("[]".to_owned(), "[]".to_owned()));
    }

    #[test]
    fn a_table_has_no_lines() {
        let rows = [["a".to_owned(), "1".to_owned()], ["bbbb".to_owned(), "x y".to_owned()]];
        assert_eq!(table(["step", "due"], rows), "STEP  DUE\na     1\nbbbb  x y");
        assert_eq!(table(["step", "due"], []), "STEP  DUE");
    }
}
