//! The JSON Schema of workflow files, generated from the types, for editors.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::config::settings;
use crate::stage;

/// The schema (draft 2020-12) of a workflow file.
pub fn workflow() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let settings = settings::schemas(&mut generator);
    let mut engine: Value = settings::Engine::json_schema(&mut generator).into();
    engine["description"] =
        "What runs the workflow elsewhere: `engine: {slurm: {profile: site.yaml}}` for `genomill submit`."
            .into();
    let kinds: Vec<Value> =
        stage::KINDS.iter().map(|kind| stage_schema(kind, &settings, &mut generator)).collect();
    let mut definitions: Value = generator.take_definitions(true).into();
    interpolated(&mut definitions);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "genomill workflow",
        "description": "A name, and named stages; each says what it uses and which stages it reads from. Files that are only included need neither.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "name": {
                "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]*$",
                "description": "Names the folder of the artifacts: work/<name>/."
            },
            "engine": engine,
            "include": {
                "type": "array", "items": { "type": "string" },
                "description": "Workflow files, relative to this one, whose params, matrix, env and stages are taken in. Nothing may be defined twice. Paths start from the folder of the file that they are written in."
            },
            "env": {
                "description": "Variables of the environment that may be used as ${env.<NAME>}: their names, or a map from names to defaults.",
                "oneOf": [
                    { "type": "array", "uniqueItems": true, "items": { "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" } },
                    { "type": "object", "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
                      "additionalProperties": { "type": ["string", "number", "boolean", "null"] } }
                ]
            },
            "params": {
                "type": "object",
                "description": "Values that stages use as ${params.<key>}; they may use ${env.<NAME>}, and params above them.",
                "additionalProperties": { "type": ["string", "number", "boolean", "null", "array"] }
            },
            "matrix": {
                "type": "object",
                "description": "Axes to sweep over, each a list of values that stages use as ${matrix.<axis>}. A stage that uses one, or reads from a stage that does, exists once for each combination of the axes that it depends on, as <stage>@<axis>=<value>; a stage that lists others in `from` gathers all of theirs.",
                "propertyNames": { "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]*$" },
                "additionalProperties": {
                    "type": "array", "minItems": 1, "uniqueItems": true,
                    "description": "The values of the axis; stages are named after them.",
                    "items": { "type": ["string", "number", "boolean", "null"] }
                }
            },
            "stages": {
                "type": "object", "minProperties": 1,
                "description": "The stages by name; edges follow from what each reads.",
                "propertyNames": { "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]*$" },
                "additionalProperties": { "oneOf": kinds }
            }
        },
        "$defs": definitions
    })
}

/// A stage's own schema, with the `uses` that selects it and the keys that all stages have.
fn stage_schema(
    kind: &stage::Kind,
    settings: &Map<String, Value>,
    generator: &mut schemars::SchemaGenerator,
) -> Value {
    let mut schema: Value = (kind.schema)(generator).into();
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.extend(settings.clone());
    }
    interpolated(&mut schema);
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), kind.name.into());
        object.insert("description".to_owned(), kind.summary.into());
        let properties = object.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            properties.insert("uses".to_owned(), json!({ "const": kind.name, "description": kind.summary }));
        }
        let required = object.entry("required").or_insert_with(|| json!([]));
        if let Some(required) = required.as_array_mut() {
            required.insert(0, "uses".into());
        }
    }
    schema
}

/// Allows `${params.x}`, `${matrix.x}` and `${env.X}` for the values of every map within.
fn interpolated(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(interpolated),
        Value::Object(object) => {
            object.values_mut().for_each(interpolated);
            let properties = object.get_mut("properties").and_then(Value::as_object_mut);
            for property in properties.into_iter().flat_map(|properties| properties.values_mut()) {
                let inner = property.take();
                let name = json!({ "type": "string", "pattern": "^\\$\\{(params|matrix|env)\\.[^}]+\\}$" });
                *property = json!({ "anyOf": [inner, name] });
            }
        }
        _ => {}
    }
}
