//! What the command line prints, held against `schemas/cli.schema.json` and what it refers to in `schemas/openapi.json`:
//! the words of JSON Schema that stand there, and no others.

use serde_json::{Value, json};

/// The two documents.
pub struct Shapes {
    cli: Value,
    api: Value,
}

impl Shapes {
    pub fn read() -> Self {
        let read = |text: &str| serde_json::from_str(text).expect("JSON");
        Self {
            cli: read(include_str!("../../../../schemas/cli.schema.json")),
            api: read(include_str!("../../../../schemas/openapi.json")),
        }
    }

    /// What a command printed, by its name in the document.
    pub fn check(&self, command: &str, printed: &Value) {
        let schema = &self.cli["$defs"][command];
        assert!(schema.is_object(), "{command} is described");
        self.fits(schema, printed, command);
    }

    fn fits(&self, schema: &Value, value: &Value, place: &str) {
        if let Some(reference) = schema["$ref"].as_str() {
            let (_, pointer) = reference.split_once('#').expect("a place in a document");
            let target =
                self.api.pointer(pointer).unwrap_or_else(|| panic!("{place}: {reference} leads nowhere"));
            self.fits(target, value, place);
        }
        if let Some(variants) = schema["oneOf"].as_array() {
            let null = json!({"type": "null"});
            assert!(variants.contains(&null) || !value.is_null(), "{place}: null");
            if let Some(other) = variants.iter().find(|variant| **variant != null && !value.is_null()) {
                self.fits(other, value, place);
            }
        }
        match &schema["type"] {
            Value::String(one) => assert!(is(one, value), "{place}: {value} is no {one}"),
            Value::Array(several) => {
                let fits = several.iter().filter_map(Value::as_str).any(|one| is(one, value));
                assert!(fits, "{place}: {value} is none of {several:?}");
            }
            _ => {}
        }
        if let Some(values) = schema["enum"].as_array() {
            assert!(values.contains(value), "{place}: {value} is none of {values:?}");
        }
        if let Some(elements) = value.as_array() {
            for element in elements {
                self.fits(&schema["items"], element, &format!("{place}[]"));
            }
        }
        let Some(members) = value.as_object() else { return };
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            assert!(members.contains_key(name), "{place}: {name} is missing in {value}");
        }
        let Some(described) = schema["properties"].as_object() else { return };
        for (name, member) in members {
            // Nothing is printed that nobody has described.
            let schema = described.get(name).unwrap_or_else(|| panic!("{place}: {name} is not described"));
            self.fits(schema, member, &format!("{place}.{name}"));
        }
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    }
}
