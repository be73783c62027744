//! `[[subscription]]` blocks, and the few variables that stand for them where there is no file.
//!
//! What a block says is checked here as far as its form goes: its keys, their types, its secret. What it means
//! is judged by `outbox.subscribe`'s own rules when it is reconciled.

use figment::value::{Dict, Num, Value};
use serde_json::{Map, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::time::Duration;

use super::reader::{Read, Reader, parse_duration, read_secret_file};
use super::secret::Secret;

/// A subscription that the configuration manages.
#[derive(Clone)]
pub struct Subscription {
    /// Whose it is.
    pub tenant_id: String,
    /// What it is known by, in its tenant.
    pub name: String,
    /// What its receiver verifies with, or a reference to it.
    pub secret: Given,
    /// The other arguments of `outbox.subscribe`, by name.
    pub definition: Map<String, serde_json::Value>,
}

/// A secret, or where relays find it.
#[derive(Debug, Clone)]
pub enum Given {
    /// The secret itself.
    Secret(Secret),
    /// `env:NAME` or `file:NAME`.
    Reference(String),
}

impl std::fmt::Debug for Subscription {
    // Headers, and the query of a URL, may be secrets too.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("tenant_id", &self.tenant_id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// How a key of a block is written.
enum Form {
    Text,
    Texts,
    Table,
    Tls,
    Duration,
    Number,
    Boolean,
}

const TLS: &str = "a table, as { ca = \"-----BEGIN …\", pins = [\"sha256//…\"], client = \"file:acme.pem\" }";

const WITHOUT_NUL: &str = "text without NUL characters";

const KEYS: [(&str, Form); 20] = [
    ("name", Form::Text),
    ("tenant_id", Form::Text),
    ("url", Form::Text),
    ("event_types", Form::Texts),
    ("secret", Form::Text),
    ("secret_file", Form::Text),
    ("secret_ref", Form::Text),
    ("filter", Form::Text),
    ("headers", Form::Table),
    ("signature", Form::Text),
    ("signature_header", Form::Text),
    ("envelope", Form::Text),
    ("retry_policy", Form::Text),
    ("timeout", Form::Duration),
    ("max_in_flight", Form::Number),
    ("rate_limit", Form::Number),
    ("ordered", Form::Boolean),
    ("description", Form::Text),
    ("tls", Form::Tls),
    ("take_over", Form::Boolean),
];

/// The keys of a block.
#[cfg(test)]
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(key, _)| *key)
}

/// The blocks of the file, then those that the variables stand for.
pub(super) fn read(reader: &mut Reader) -> Read<Vec<Subscription>> {
    let blocks = reader.blocks("subscription")?;
    let variables = from_variables(reader);
    let mut complete = Ok(());
    let mut subscriptions = Vec::new();
    for (n, (block, origin)) in blocks.into_iter().enumerate() {
        let place = format!("subscription[{}]", n + 1);
        match from_block(block) {
            Ok(subscription) => subscriptions.push((place, origin, subscription)),
            Err(problems) => {
                for (key, message) in problems {
                    complete = Err(reader.note_at(&format!("{place}.{key}"), &origin, message));
                }
            }
        }
    }
    subscriptions.extend(variables?.into_iter().map(|s| ("WEBHOOK_URLS".to_owned(), "the environment".to_owned(), s)));
    let mut names = BTreeSet::new();
    for (place, origin, subscription) in &subscriptions {
        if !names.insert((subscription.tenant_id.as_str(), subscription.name.as_str())) {
            complete =
                Err(reader.note_at(place, origin, "another subscription of its tenant has this name".to_owned()));
        }
    }
    complete?;
    Ok(subscriptions.into_iter().map(|(_, _, subscription)| subscription).collect())
}

/// Everything wrong with a block, by key; no message repeats a value.
fn from_block(mut block: Dict) -> Result<Subscription, Vec<(String, String)>> {
    let mut problems = Vec::new();
    let mut values = Map::new();
    for (key, form) in &KEYS {
        let Some(value) = block.remove(*key) else { continue };
        match form.read(value) {
            Ok(value) => drop(values.insert((*key).to_owned(), value)),
            Err(expected) => problems.push(((*key).to_owned(), format!("expected {expected}"))),
        }
    }
    let known: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
    problems.extend(block.into_keys().map(|key| (key, format!("is an unknown key; a block has {}", known.join(", ")))));
    let mut take = |key: &str| match values.remove(key) {
        Some(serde_json::Value::String(text)) => Some(text),
        _ => None,
    };
    let (name, tenant_id) = (take("name"), take("tenant_id").unwrap_or_else(|| "default".to_owned()));
    let secret = match (take("secret"), take("secret_file"), take("secret_ref")) {
        (Some(secret), None, None) => Some(Given::Secret(Secret::new(secret))),
        (None, None, Some(reference)) => Some(Given::Reference(reference)),
        (None, Some(path), None) => match secret_of_file(&path) {
            Ok(secret) => Some(Given::Secret(secret)),
            Err(message) => {
                problems.push(("secret_file".to_owned(), message));
                None
            }
        },
        (None, None, None) if problems.iter().any(|(noted, _)| noted.starts_with("secret")) => None,
        (None, None, None) => {
            let message =
                "is not set; set secret, secret_file or secret_ref, because nobody would be shown one that is made";
            problems.push(("secret".to_owned(), message.to_owned()));
            None
        }
        _ => {
            let message = "is set more than once; set one of secret, secret_file and secret_ref";
            problems.push(("secret".to_owned(), message.to_owned()));
            None
        }
    };
    for (key, is_set) in [
        ("name", name.is_some()),
        ("url", values.contains_key("url")),
        ("event_types", values.contains_key("event_types")),
    ] {
        if !is_set && problems.iter().all(|(noted, _)| noted != key) {
            problems.push((key.to_owned(), "is not set".to_owned()));
        }
    }
    match (name, secret) {
        (Some(name), Some(secret)) if problems.is_empty() => {
            Ok(Subscription { tenant_id, name, secret, definition: values })
        }
        _ => Err(problems),
    }
}

/// PostgreSQL has no such character in a text. It would refuse all blocks for one, and its log would repeat what
/// stands around it, which may be a secret.
fn has_nul(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Array(entries) => entries.iter().any(has_nul),
        serde_json::Value::Object(entries) => entries.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}

fn secret_of_file(path: &str) -> Result<Secret, String> {
    let secret = read_secret_file(path)?;
    if secret.expose().contains('\0') { Err(format!("the file is no {WITHOUT_NUL}")) } else { Ok(secret) }
}

impl Form {
    /// The value as JSON, or what was expected.
    fn read(&self, value: Value) -> Result<serde_json::Value, &'static str> {
        self.convert(value).and_then(|value| if has_nul(&value) { Err(WITHOUT_NUL) } else { Ok(value) })
    }

    fn convert(&self, value: Value) -> Result<serde_json::Value, &'static str> {
        match (self, value) {
            (Self::Text, Value::String(_, text)) if !text.is_empty() => Ok(text.into()),
            (Self::Text, _) => Err("a text"),
            (Self::Texts, Value::Array(_, entries)) => {
                let texts = entries.into_iter().map(Value::into_string).collect::<Option<Vec<String>>>();
                texts.map(Into::into).ok_or("a list of texts, as [\"order.*\"]")
            }
            (Self::Texts, _) => Err("a list of texts, as [\"order.*\"]"),
            (Self::Table, Value::Dict(_, dict)) => {
                let entries = dict.into_iter().map(|(key, value)| Some((key, value.into_string()?.into())));
                let entries = entries.collect::<Option<Map<_, _>>>();
                entries.map(Into::into).ok_or("a table of texts, as { \"X-Team\" = \"blue\" }")
            }
            (Self::Table, _) => Err("a table of texts, as { \"X-Team\" = \"blue\" }"),
            (Self::Tls, Value::Dict(_, dict)) => {
                let entries = dict.into_iter().map(|(key, value)| {
                    let form = if key == "pins" { Self::Texts } else { Self::Text };
                    form.convert(value).map(|value| (key, value))
                });
                entries.collect::<Result<Map<_, _>, _>>().map(Into::into).map_err(|_| TLS)
            }
            (Self::Tls, _) => Err(TLS),
            (Self::Duration, Value::String(_, text)) => {
                let duration = parse_duration(&text).ok_or("a duration with its unit, as \"15s\"")?;
                Ok(format!("{} milliseconds", duration.as_millis()).into())
            }
            (Self::Duration, _) => Err("a duration with its unit, as \"15s\""),
            (Self::Number, Value::Num(_, number)) => match number {
                // JSON has neither: they would become null, no limit.
                Num::F64(number) if !number.is_finite() => Err("a finite number"),
                Num::F32(number) if !number.is_finite() => Err("a finite number"),
                Num::F64(number) => Ok(json!(number)),
                Num::F32(number) => Ok(json!(number)),
                number => number.to_i128().and_then(|n| i64::try_from(n).ok()).map(|n| json!(n)).ok_or("a number"),
            },
            (Self::Number, _) => Err("a number"),
            (Self::Boolean, Value::Bool(_, value)) => Ok(value.into()),
            (Self::Boolean, _) => Err("true or false"),
        }
    }
}

/// `WEBHOOK_URLS` with `WEBHOOK_SECRET`, `WEBHOOK_TIMEOUT_MS` and `WEBHOOK_MAX_RETRIES`: everything to each.
fn from_variables(reader: &mut Reader) -> Read<Vec<Subscription>> {
    let Some(urls) = reader.variable("WEBHOOK_URLS") else { return Ok(Vec::new()) };
    let refuse = |reader: &mut Reader, name: &str, message: &str| {
        reader.note_at(name, &format!("environment variable {name}"), message.to_owned())
    };
    let secret = match (reader.variable("WEBHOOK_SECRET"), reader.variable("WEBHOOK_SECRET_FILE")) {
        (Some(_), Some(_)) => Err(refuse(reader, "WEBHOOK_SECRET", "WEBHOOK_SECRET_FILE is set too; set one of them")),
        (Some(secret), None) => Ok(Secret::new(secret)),
        (None, Some(path)) => match secret_of_file(&path) {
            Ok(secret) => Ok(secret),
            Err(message) => Err(refuse(reader, "WEBHOOK_SECRET_FILE", &message)),
        },
        (None, None) => Err(refuse(reader, "WEBHOOK_URLS", "needs WEBHOOK_SECRET or WEBHOOK_SECRET_FILE")),
    };
    let mut common = Map::new();
    let mut complete = Ok(());
    for (name, key, least, most) in
        [("WEBHOOK_TIMEOUT_MS", "timeout", 100, 300_000), ("WEBHOOK_MAX_RETRIES", "max_retries", 0, 100)]
    {
        let Some(text) = reader.variable(name) else { continue };
        match text.parse::<u64>() {
            Ok(ms) if (least..=most).contains(&ms) && key == "timeout" => {
                common.insert(key.to_owned(), format!("{} milliseconds", Duration::from_millis(ms).as_millis()).into());
            }
            Ok(count) if (least..=most).contains(&count) => drop(common.insert(key.to_owned(), count.into())),
            _ => complete = Err(refuse(reader, name, &format!("expected a whole number from {least} to {most}"))),
        }
    }
    let urls: Vec<&str> = urls.split(',').map(str::trim).filter(|url| !url.is_empty()).collect();
    if urls.is_empty() {
        let message = "names no URL; list them with commas between, or leave the variable out";
        complete = Err(refuse(reader, "WEBHOOK_URLS", message));
    } else if urls.iter().collect::<BTreeSet<_>>().len() < urls.len() {
        complete = Err(refuse(reader, "WEBHOOK_URLS", "names the same URL twice; each would get every event once"));
    }
    let (secret, ()) = (secret?, complete?);
    common.insert("event_types".to_owned(), json!(["*"]));
    let of_url = |url: &str| {
        let mut definition = common.clone();
        definition.insert("url".to_owned(), url.into());
        // A name that does not depend on the order of the list.
        let name = format!("webhook-{}", &hex::encode(Sha256::digest(url))[..8]);
        Subscription { tenant_id: "default".to_owned(), name, secret: Given::Secret(secret.clone()), definition }
    };
    Ok(urls.into_iter().map(of_url).collect())
}
