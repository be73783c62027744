//! `openapi.json`: which operations there are, and what they take.

use hyper::{Method, StatusCode};
use jsonschema::Validator;
use serde_json::{Value, json as object};
use std::collections::HashMap;

const EMBEDDED: &str = include_str!("openapi.json");

/// What is wrong with a document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is no JSON.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// It lacks something, or a schema in it is none.
    #[error("{0}")]
    Broken(String),
}

/// The document, and its operations by path.
pub struct Document {
    pub(crate) value: Value,
    paths: matchit::Router<HashMap<Method, Operation>>,
}

/// One operation.
pub(crate) struct Operation {
    /// Its `operationId`, which is also the name of its function in schema `outbox_http`.
    pub(crate) id: String,
    /// The status when all went well.
    pub(crate) status: StatusCode,
    /// What it takes in its body.
    pub(crate) body: Option<Body>,
    /// Idempotency-Key is for the function itself.
    pub(crate) keeps_its_own_key: bool,
    parameters: Vec<Parameter>,
}

/// What an operation takes in its body.
pub(crate) struct Body {
    pub(crate) is_required: bool,
    schema: Validator,
}

/// What an operation takes in path, query or header.
pub(crate) struct Parameter {
    name: String,
    place: String,
    kind: String,
    schema: Validator,
}

/// A path of the document that a request has named.
pub(crate) struct Found<'a> {
    operations: &'a HashMap<Method, Operation>,
    /// Its parameters, by name.
    pub(crate) in_path: Vec<(String, String)>,
}

impl Document {
    /// The one compiled in.
    ///
    /// # Errors
    /// If it is broken; a test sees to it that it is not.
    pub fn embedded() -> Result<Self, DocumentError> {
        let value: Value = serde_json::from_str(EMBEDDED)?;
        let mut paths = matchit::Router::new();
        for (path, item) in members(&value["paths"]) {
            let mut operations = HashMap::new();
            for (name, operation) in members(item).filter(|(name, _)| *name != "parameters") {
                let method = Method::from_bytes(name.to_ascii_uppercase().as_bytes())
                    .map_err(|_| DocumentError::Broken(format!("{path}: {name} is no method")))?;
                operations.insert(method, Operation::read(&value, item, operation)?);
            }
            paths.insert(path, operations).map_err(|e| DocumentError::Broken(format!("{path}: {e}")))?;
        }
        Ok(Self { value, paths })
    }

    /// The operations at this path.
    pub(crate) fn at(&self, path: &str) -> Option<Found<'_>> {
        let matched = self.paths.at(path).ok()?;
        let in_path = matched.params.iter().map(|(name, value)| Some((name.to_owned(), percent_decoded(value)?)));
        Some(Found { operations: matched.value, in_path: in_path.collect::<Option<_>>()? })
    }

    /// Every `operationId`.
    pub fn operation_ids(&self) -> impl Iterator<Item = &str> {
        members(&self.value["paths"])
            .flat_map(|(_, item)| members(item))
            .filter_map(|(_, operation)| operation["operationId"].as_str())
    }
}

impl Found<'_> {
    pub(crate) fn operation(&self, method: &Method) -> Option<&Operation> {
        self.operations.get(method)
    }

    pub(crate) fn allow(&self) -> String {
        let mut methods: Vec<&str> = self.operations.keys().map(Method::as_str).collect();
        methods.sort_unstable();
        methods.join(", ")
    }
}

impl Operation {
    fn read(document: &Value, item: &Value, operation: &Value) -> Result<Self, DocumentError> {
        let broken = |what: &str| DocumentError::Broken(format!("{}: {what}", operation["operationId"]));
        let id = operation["operationId"].as_str().ok_or_else(|| broken("has no operationId"))?.to_owned();
        let status = members(&operation["responses"]).find_map(|(status, _)| status.parse::<StatusCode>().ok());
        let parameters = elements(&item["parameters"]).chain(elements(&operation["parameters"]));
        let parameters = parameters.map(|parameter| Parameter::read(document, resolved(document, parameter)));
        let body = operation.get("requestBody").map(|body| -> Result<Body, DocumentError> {
            let body = resolved(document, body);
            Ok(Body {
                is_required: body["required"].as_bool().unwrap_or(false),
                schema: validator(document, &body["content"]["application/json"]["schema"])?,
            })
        });
        Ok(Self {
            status: status.ok_or_else(|| broken("has no status for success"))?,
            parameters: parameters.collect::<Result<_, _>>()?,
            body: body.transpose()?,
            keeps_its_own_key: operation["x-keeps-its-own-key"].as_bool().unwrap_or(false),
            id,
        })
    }

    /// The parameter of that name in path, query or header.
    pub(crate) fn parameter(&self, name: &str, place: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name && parameter.place == place)
    }
}

impl Body {
    /// Where it does not fit, and why.
    pub(crate) fn errors(&self, value: &Value) -> Vec<(String, String)> {
        let errors = self.schema.iter_errors(value);
        errors.map(|e| (format!("body {}", e.instance_path), without_value(&e.masked().to_string()))).collect()
    }
}

impl Parameter {
    fn read(document: &Value, parameter: &Value) -> Result<Self, DocumentError> {
        let text = |key: &str| parameter[key].as_str().unwrap_or_default().to_owned();
        let schema = &parameter["schema"];
        Ok(Self {
            name: text("name"),
            place: text("in"),
            kind: resolved(document, schema)["type"].as_str().unwrap_or("string").to_owned(),
            schema: validator(document, schema)?,
        })
    }

    /// The value of the type that the document gives it, or as text if it is not of that type.
    pub(crate) fn typed(&self, value: &str) -> Value {
        // As JSON has it: a number with a plus or a leading zero is none.
        let parsed = match self.kind.as_str() {
            "integer" => value.parse::<i64>().ok().filter(|n| n.to_string() == value).map(Value::from),
            "boolean" => value.parse::<bool>().ok().map(Value::from),
            _ => None,
        };
        parsed.unwrap_or_else(|| Value::from(value))
    }

    /// Why it does not fit.
    pub(crate) fn errors(&self, value: &Value) -> Vec<String> {
        self.schema.iter_errors(value).map(|e| without_value(&e.masked().to_string())).collect()
    }
}

/// A schema of the document that can be asked.
fn validator(document: &Value, schema: &Value) -> Result<Validator, DocumentError> {
    let whole = object!({"allOf": [schema], "components": document["components"]});
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .build(&whole)
        .map_err(|e| DocumentError::Broken(e.to_string()))
}

/// What a `$ref` of the document stands for.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str().and_then(|reference| document.pointer(reference.trim_start_matches('#'))) {
        Some(meant) => meant,
        None => value,
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A segment of a path; `None` if it is not UTF-8.
fn percent_decoded(segment: &str) -> Option<String> {
    percent_encoding::percent_decode_str(segment).decode_utf8().ok().map(|text| text.into_owned())
}

/// The validator names the value as "value": it may be a secret and is not repeated.
fn without_value(message: &str) -> String {
    message.strip_prefix("value ").unwrap_or(message).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_document_can_be_used() {
        let document = Document::embedded().expect("a good document");
        let found = document.at("/webhooks/7/rotate-secret").expect("a path");
        assert_eq!(found.operation(&Method::POST).expect("an operation").id, "rotate_secret");
        assert_eq!(found.in_path, [("subscription_id".to_owned(), "7".to_owned())]);
        assert!(document.at("/nowhere").is_none());
        assert!(document.at("/deliveries/replay").is_some_and(|found| found.operation(&Method::GET).is_none()));
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_and_not_repeated() {
        let document = Document::embedded().expect("a good document");
        let found = document.at("/webhooks").expect("a path");
        let body = found.operation(&Method::POST).and_then(|o| o.body.as_ref()).expect("a body");
        let errors = body.errors(&object!({"url": "https://a.example.com", "event_types": ["*"], "secret": 12345678}));
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].0.contains("secret") && !errors[0].1.contains("12345678"), "{errors:?}");
        assert!(
            !body.errors(&object!({"url": "https://a.example.com", "event_types": ["*"], "nonsense": 1})).is_empty()
        );
    }
}
