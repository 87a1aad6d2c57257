//! `openapi.json` describes the API as it is.
//!
//! `WHIMBREL_BLESS=1 cargo nextest run -p whimbrel-api document` writes the file anew; read the difference.

use alloc::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value as Json;
use whimbrel_api::{openapi, routes};

fn document() -> Json {
    serde_json::to_value(openapi::document()).unwrap()
}

/// Every operation with its path.
fn operations(document: &Json) -> Vec<(&str, &Json)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().values().map(move |operation| (path.as_str(), operation))
    });
    operations.collect()
}

/// Calls `look` with every object of the document.
fn visit<'d>(json: &'d Json, look: &mut impl FnMut(&'d serde_json::Map<String, Json>)) {
    match json {
        Json::Object(object) => {
            look(object);
            object.values().for_each(|value| visit(value, look));
        }
        Json::Array(items) => items.iter().for_each(|item| visit(item, look)),
        _ => {}
    }
}

#[test]
fn the_document_in_the_repository_is_up_to_date() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let now = openapi::document().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("WHIMBREL_BLESS").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == now, "openapi.json is not what the types say: run this test with WHIMBREL_BLESS=1");
}

#[test]
fn every_route_is_in_the_document_and_nothing_else() {
    let document = document();
    let described: BTreeSet<&str> = operations(&document).into_iter().map(|(path, _)| path).collect();
    assert_eq!(described, routes::ALL.into_iter().collect());
}

#[test]
fn every_name_in_a_path_is_a_parameter_and_the_other_way_round() {
    let document = document();
    for (path, operation) in operations(&document) {
        let in_path: Vec<&str> =
            path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let described: Vec<&str> = parameters
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(described, in_path, "{path}");
    }
}

/// Parameters of queries are spelled twice: as fields, which the service reads, and where a client's path is made.
#[test]
fn what_a_client_asks_for_has_the_names_that_are_described() {
    use whimbrel_api::{BasesQuery, CampaignQuery, DevicesQuery};

    let some = || Some("x".to_owned());
    let document = document();
    for (path, asked) in [
        (routes::BASES, routes::bases("00", &BasesQuery { group: some() })),
        (routes::CAMPAIGN, routes::campaign("00", &CampaignQuery { devices: some(), after: some() })),
        (routes::DEVICES, routes::devices(&DevicesQuery { state: some(), after: some(), limit: Some(1) })),
    ] {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
        let described: BTreeSet<&str> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let query = asked.split_once('?').unwrap().1;
        let names = query.split('&').map(|pair| pair.split_once('=').unwrap().0);
        assert_eq!(names.collect::<BTreeSet<_>>(), described, "{path}");
    }
}

#[test]
fn every_type_that_is_named_is_described() {
    let document = document();
    let described = document["components"]["schemas"].as_object().unwrap();
    let mut named = BTreeSet::new();
    visit(&document, &mut |object| {
        if let Some(Json::String(to)) = object.get("$ref") {
            named.insert(to.strip_prefix("#/components/schemas/").unwrap());
        }
    });
    assert_eq!(named, described.keys().map(String::as_str).collect());
}

#[test]
fn every_type_field_and_parameter_says_what_it_is() {
    let document = document();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(schema["description"].is_string() || schema["allOf"].is_array(), "{name}");
        visit(schema, &mut |object| {
            let Some(Json::Object(fields)) = object.get("properties") else { return };
            for (field, schema) in fields {
                // What may be null and has a type of its own is one of the two.
                let says = schema["description"].is_string() || schema["oneOf"][0]["description"].is_string();
                assert!(says, "{name}.{field}");
            }
        });
    }
    for (path, operation) in operations(&document) {
        assert!(operation["summary"].is_string(), "{path}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{path}: {}", parameter["name"]);
        }
    }
}

#[test]
fn every_operation_has_a_name_of_its_own_and_says_what_a_refusal_holds() {
    let document = document();
    let operations = operations(&document);
    let names: BTreeSet<&str> =
        operations.iter().map(|(_, operation)| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(names.len(), operations.len());
    for (path, operation) in operations {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let schema = &response["content"]["application/json"]["schema"];
            let is_error = schema["$ref"] == "#/components/schemas/ErrorBody";
            assert_eq!(is_error, status != "200", "{path}: {status}");
        }
        assert!(operation["responses"]["401"].is_object(), "{path}");
    }
}

/// `docs/api.md` has a row for each operation; the test with `WHIMBREL_BLESS=1` writes the table anew.
#[test]
fn the_page_has_a_row_for_each_operation_with_what_it_does() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let rows = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, operation)| {
            (path.as_str(), method.to_uppercase(), operation["summary"].as_str().unwrap())
        })
    });
    let mut table = String::from("| | | |\n|---|---|---|\n");
    for (path, method, summary) in rows.collect::<BTreeSet<_>>() {
        table.push_str(&format!("| {method} | {path} | {summary} |\n"));
    }
    let (before, rest) = page.split_once("| | | |\n").unwrap();
    let (_, after) = rest.split_once("\n\n").unwrap();
    let now = format!("{before}{table}\n{after}");
    if std::env::var_os("WHIMBREL_BLESS").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap();
    assert!(page == now, "docs/api.md is not what the API is: run this test with WHIMBREL_BLESS=1");
}
