//! Pieces of JSON, written without the detour through `core::fmt`: records carry dozens of them.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

use crate::ids::{Birth, ascii};

/// Without a way out in the middle, so that many bytes are looked at at once.
pub(crate) fn needs_escape(text: &str) -> bool {
    let escaped = |byte| u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < 0x20);
    text.bytes().fold(0, |any, byte| any | escaped(byte)) != 0
}

pub(crate) fn push_json_string(out: &mut String, value: &str) {
    if needs_escape(value) {
        out.push_str(&serde_json::Value::from(value).to_string());
    } else {
        out.push('"');
        out.push_str(value);
        out.push('"');
    }
}

pub(crate) fn push_birth(out: &mut String, birth: Birth) {
    push_integer(out, i64::from(birth.partition.0));
    out.push('-');
    push_integer(out, birth.offset);
}

pub(crate) fn push_integer(out: &mut String, number: i64) {
    if number < 0 {
        out.push('-');
    }
    push_number(out, number.unsigned_abs());
}

pub(crate) fn push_number(out: &mut String, mut number: u64) {
    let mut buffer = [0; 20];
    let mut start = buffer.len();
    loop {
        start -= 1;
        buffer[start] = b"0123456789"[usize::try_from(number % 10).unwrap_or_default()];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.push_str(ascii(&buffer[start..]));
}

/// `Option<Cow<str>>` that borrows where it can (serde's own always copies inside an `Option`).
pub(crate) fn text<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Cow<'a, str>>, D::Error> {
    #[derive(Deserialize)]
    struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
    Ok(Option::<Borrowed<'a>>::deserialize(deserializer)?.map(|text| text.0))
}
