//! A model as a file: YAML, and JSON, which is YAML here.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

use super::model::Model;

/// Deepest nesting: a model has three levels.
const DEPTH_MAX: usize = 8;

/// Reads a model.
///
/// ```
/// let text = "default: { p: 0.99 }\nsteps:\n  charge: { refused: 0.01, latency: 20ms/80ms }\n";
/// let model = sagamore::predict::file::read(text).unwrap();
/// assert_eq!(model.default.p, Some(0.99));
/// assert_eq!(model.steps["charge"].latency.unwrap().to_string(), "20ms/80ms");
/// ```
pub fn read(text: &str) -> Result<Model, String> {
    let mut events = Parser::new_from_str(text);
    let mut next = || {
        loop {
            let (event, span) = events.next()?.map_err(|error| format!("not YAML: {error}")).ok()?;
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
                event => return Some((event, span.start.line())),
            }
        }
    };
    let value = value(&mut next, 0)?;
    serde_json::from_value(value.unwrap_or_else(|| Value::Object(Map::new())))
        .map_err(|error| error.to_string())
}

type Next<'a, 'b> = dyn FnMut() -> Option<(Event<'a>, usize)> + 'b;

/// The next value; `None`: a list or an object has ended.
fn value(next: &mut Next<'_, '_>, depth: usize) -> Result<Option<Value>, String> {
    let Some((event, line)) = next() else { return Err("it ends too early, or is no YAML".into()) };
    if depth > DEPTH_MAX {
        return Err(format!("line {line}: nested deeper than {DEPTH_MAX}"));
    }
    match event {
        Event::Scalar(text, style, ..) => Ok(Some(scalar(&text, style))),
        Event::MappingStart(..) => {
            let mut object = Map::new();
            while let Some(name) = value(next, depth + 1)? {
                let name = match name {
                    Value::String(name) => name,
                    other => other.to_string(),
                };
                let Some(held) = value(next, depth + 1)? else {
                    return Err(format!("line {line}: `{name}` has no value"));
                };
                if object.insert(name.clone(), held).is_some() {
                    return Err(format!("line {line}: `{name}` stands there twice"));
                }
            }
            Ok(Some(Value::Object(object)))
        }
        Event::SequenceStart(..) => {
            let mut list = Vec::new();
            while let Some(held) = value(next, depth + 1)? {
                list.push(held);
            }
            Ok(Some(Value::Array(list)))
        }
        Event::MappingEnd | Event::SequenceEnd | Event::DocumentEnd | Event::StreamEnd => Ok(None),
        _ => Err(format!("line {line}: aliases have no place here")),
    }
}

/// A plain scalar that JSON can read is that, everything else a text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    match (style, text) {
        (ScalarStyle::Plain, "" | "~") => Value::Null,
        (ScalarStyle::Plain, _) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_yaml_and_nothing_is_an_empty_model() {
        let read_p = |text: &str| read(text).unwrap().default.p;
        assert_eq!(read_p(r#"{"default":{"p":0.5}}"#), Some(0.5));
        assert_eq!(read_p("default:\n  p: 1\n"), Some(1.0));
        assert_eq!(read("# nothing\n").unwrap(), Model::default());
    }

    #[test]
    fn what_is_no_model_is_told() {
        let check = |text: &str, then: &str| {
            let said = read(text).unwrap_err();
            assert!(said.contains(then), "{said}");
        };
        check("default: {q: 1}", "unknown field `q`");
        check("default: {p: often}", "invalid type");
        check("steps: {a: {p: 1}, a: {p: 0}}", "`a` stands there twice");
        check("- p", "invalid type");
        check("default: {latency: soon}", "must be an integer and ms, s, m, h or d");
        check("default: {p: ", "too early");
    }
}
