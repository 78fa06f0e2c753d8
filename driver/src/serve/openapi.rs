//! `GET /openapi.json`: the paths and fields of this server as OpenAPI 3.1 describes them (spec.openapis.org/oas/v3.1.0).

use super::body::{Kind, Row};
use super::router::OPEN;
use super::routes::{Route, routes};
use axum::Json;
use serde_json::{Map, Value, json};

/// The description.
pub async fn document() -> Json<Value> {
    Json(describe(&routes()))
}

/// The description of these paths.
pub fn describe(routes: &[Route]) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let path = route.path.replace("{*", "{");
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        entry[route.method] = operation(route);
    }
    let error = json!({
        "type": "object",
        "properties": { "error": {
            "type": "object",
            "properties": {
                "message": { "type": "string" },
                "type": { "type": "string" },
                "param": { "type": ["string", "null"] },
                "code": { "type": "string" },
            },
            "required": ["message", "type"],
        } },
        "required": ["error"],
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "sinter",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A field that is not described is refused. null is the same as a field that is left out.",
        },
        "paths": paths,
        "components": {
            "schemas": { "Error": error },
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(route: &Route) -> Value {
    let kind = match route.path {
        "/metrics" => "text/plain",
        "/" => "text/html",
        _ => "application/json",
    };
    let mut good = json!({ kind: {} });
    let streams = |row: &&Row| row.name == "stream";
    if route.body.into_iter().flatten().flat_map(|table| table.iter()).any(|row| streams(&row)) {
        good["text/event-stream"] = json!({});
    }
    let error = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } });
    let mut value = json!({
        "summary": route.about,
        "operationId": format!("{}{}", route.method, route.path.replace(['/', '{', '}', '*', '.'], "_")),
        "responses": {
            "200": { "description": "What was asked for.", "content": good },
            "default": { "description": "Why it is not.", "content": error },
        },
    });
    if !OPEN.contains(&route.path) {
        value["security"] = json!([{ "key": [] }, {}]);
    }
    let names: Vec<Value> = route.path.split('{').skip(1).filter_map(parameter).collect();
    if !names.is_empty() {
        value["parameters"] = Value::Array(names);
    }
    if let Some(tables) = route.body {
        let content = json!({ "application/json": { "schema": body(tables, route.required) } });
        value["requestBody"] = json!({ "required": true, "content": content });
    }
    value
}

/// The parameter whose name stands at the begin of the rest of a path.
fn parameter(rest: &str) -> Option<Value> {
    let name = rest.split_once('}')?.0.trim_start_matches('*');
    Some(
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } }),
    )
}

/// The schema of a body. Where a field stands in several tables, the first counts, as it does when bodies are read.
fn body(tables: &[&[Row]], required: &[&str]) -> Value {
    let mut properties = Map::new();
    for row in tables.iter().flat_map(|table| table.iter()) {
        if !properties.contains_key(row.name) {
            let mut schema = schema(row.kind);
            schema["description"] = json!(row.about);
            properties.insert(row.name.to_owned(), schema);
        }
    }
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Bool => json!({ "type": ["boolean", "null"] }),
        Kind::Text => json!({ "type": ["string", "null"] }),
        Kind::Int(least, most) => json!({ "type": ["integer", "null"], "minimum": least, "maximum": most }),
        Kind::Number(least, most) => json!({ "type": ["number", "null"], "minimum": least, "maximum": most }),
        Kind::OneOf(names) => {
            let all: Vec<Value> = names.iter().map(|name| json!(name)).chain([Value::Null]).collect();
            json!({ "enum": all })
        }
        Kind::Texts(most) => {
            json!({ "type": ["string", "array", "null"], "items": { "type": "string" }, "maxItems": most })
        }
        Kind::Ids(most) => {
            let id = json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX });
            json!({ "type": ["array", "null"], "items": id, "maxItems": most })
        }
        Kind::Object => json!({ "type": ["object", "null"] }),
        Kind::List(most) => json!({ "type": ["array", "null"], "maxItems": most }),
        Kind::Any | Kind::Harmless => json!({}),
        Kind::Only(values) => {
            let parsed = values.iter().filter_map(|text| serde_json::from_str::<Value>(text).ok());
            json!({ "enum": parsed.chain([Value::Null]).collect::<Vec<_>>() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let routes = routes();
        let document = describe(&routes);
        let described: usize =
            document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
        assert_eq!(described, routes.len());
        for route in &routes {
            let operation = &document["paths"][route.path.replace("{*", "{")][route.method];
            assert_eq!(operation["summary"], route.about, "{} {}", route.method, route.path);
            let properties = &operation["requestBody"]["content"]["application/json"]["schema"]["properties"];
            for row in route.body.into_iter().flatten().flat_map(|table| table.iter()) {
                assert!(properties[row.name]["description"].is_string(), "{}: {}", route.path, row.name);
            }
            assert!(route.required.iter().all(|name| properties[name].is_object()), "{}", route.path);
        }
    }
}
