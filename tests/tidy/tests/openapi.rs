//! The OpenAPI document and the routes of the API name the same.

use std::collections::{BTreeMap, BTreeSet};

use sagamore_tidy::{assert_none, read};
use serde_json::Value;

type Routes = BTreeMap<String, BTreeSet<&'static str>>;

/// Paths and methods of the router. `{verb}` stands for every verb there is.
fn routes() -> Routes {
    let source = read("orchestrator/server/src/api/mod.rs");
    let wire = read("schemas/src/wire/mod.rs");
    let wish =
        wire.split("impl Wish<'_> {").nth(1).and_then(|rest| rest.split("\n}").next()).unwrap_or_default();
    let verbs: Vec<&str> = wish.split('"').skip(1).step_by(2).collect();
    assert!(verbs.contains(&"cancel"), "the verbs were found: {verbs:?}");
    let mut routes = Routes::new();
    for rest in source.split(".route(\"").skip(1) {
        let (path, handlers) = rest.split_once('"').unwrap_or_default();
        let handlers = handlers.split("\n        .").next().unwrap_or_default();
        let methods = ["get", "post", "put", "delete", "patch"];
        let methods = methods.into_iter().filter(|method| handlers.contains(&format!("{method}(")));
        let methods: BTreeSet<&'static str> = methods.collect();
        if path.contains("{verb}") {
            routes.extend(verbs.iter().map(|verb| (path.replace("{verb}", verb), methods.clone())));
        } else {
            routes.insert(path.to_owned(), methods);
        }
    }
    assert!(routes.len() > 5, "the routes were found: {routes:?}");
    routes
}

fn document() -> Value {
    serde_json::from_str(&read("schemas/openapi.json")).expect("schemas/openapi.json is JSON")
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let document = document();
    let described = document["paths"].as_object().unwrap();
    let routes = routes();
    let mut wrong = Vec::new();
    for (path, methods) in &routes {
        let found = described.get(path).and_then(Value::as_object);
        let missing =
            methods.iter().filter(|method| !found.is_some_and(|found| found.contains_key(**method)));
        wrong.extend(missing.map(|method| format!("{method} {path} is not described")));
    }
    for (path, item) in described {
        let methods = item.as_object().unwrap().keys();
        let gone =
            methods.filter(|method| !routes.get(path).is_some_and(|known| known.contains(method.as_str())));
        wrong.extend(gone.map(|method| format!("{method} {path} is no route")));
    }
    assert_none(&wrong, "schemas/openapi.json and the router:");
    let readme = read("README.md");
    let untold = routes.keys().filter(|path| {
        let last = path.rsplit('/').next().unwrap_or_default();
        !readme.contains(path.as_str()) && !readme.contains(&format!("…/{last}"))
    });
    assert_none(&untold.cloned().collect::<Vec<_>>(), "routes that the README does not name:");
}

#[test]
fn every_reference_resolves_and_everything_has_an_answer_and_an_example() {
    let document = document();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")));
    let mut references = Vec::new();
    collect(&document, &mut references);
    let lost = references
        .into_iter()
        .filter(|reference| document.pointer(reference.trim_start_matches('#')).is_none());
    assert_none(&lost.collect::<Vec<_>>(), "references that lead nowhere:");
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{place} has no summary");
            assert!(
                ids.insert(operation["operationId"].to_string()),
                "{place}: its operationId stands twice"
            );
            assert!(
                operation["responses"].as_object().is_some_and(|all| !all.is_empty()),
                "{place} has no answer"
            );
            let named = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
            let given = operation["parameters"].as_array();
            let lacking = named.filter(|name| {
                !given.is_some_and(|given| {
                    given.iter().any(|parameter| parameter["name"].as_str() == Some(name))
                })
            });
            assert_eq!(lacking.collect::<Vec<_>>(), Vec::<&str>::new(), "{place}: parameters of its path");
        }
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| collect(field, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_problem_has_its_title_in_the_document() {
    let document = document();
    let titles =
        document["components"]["schemas"]["Problem"]["properties"]["title"]["enum"].as_array().unwrap();
    let titles: BTreeSet<&str> = titles.iter().filter_map(Value::as_str).collect();
    let mut used = BTreeSet::new();
    for file in ["problem", "start", "transactions", "mod", "owner", "definitions"] {
        let source = read(&format!("orchestrator/server/src/api/{file}.rs"));
        for rest in source.split("StatusCode::").skip(1) {
            // `StatusCode::CONFLICT, "wrong-state"`: the status, and the title right behind it.
            let Some((status, rest)) = rest.split_once(", \"") else { continue };
            if status.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                used.extend(rest.split('"').next().map(str::to_owned));
            }
        }
    }
    assert!(used.contains("conflict"), "the titles were found: {used:?}");
    let used: BTreeSet<&str> = used.iter().map(String::as_str).collect();
    assert_eq!(titles, used, "titles in schemas/openapi.json, and in the code");
}
