//! The layers of the configuration, one over the other: defaults, file, environment, flags.
//!
//! figment merges them and remembers which layer each value came from. Every environment variable is a
//! layer of its own, so that a problem can name it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::problem::Problem;
use super::{DEFAULTS, Overrides};
use crate::secrets::DEFAULT_PREFIX;

const PREFIX: &str = "OUTBOXD_";
/// One endpoint without a file; see `subscription.rs`.
const WEBHOOK: [&str; 5] =
    ["WEBHOOK_URLS", "WEBHOOK_SECRET", "WEBHOOK_SECRET_FILE", "WEBHOOK_TIMEOUT_MS", "WEBHOOK_MAX_RETRIES"];
/// How the layer of a variable is called; also what tells it from a file's.
const VARIABLE: &str = "environment variable ";

/// All layers merged, not yet judged.
pub(super) struct Layers {
    figment: Figment,
    /// `OUTBOXD_…` variables that name no key because `__` is missing.
    pub(super) unsplit: Vec<String>,
    /// `WEBHOOK_…` variables.
    pub(super) webhook: BTreeMap<String, String>,
    /// Layers that could not be read at all.
    pub(super) problems: Vec<Problem>,
}

/// One value with where it came from.
pub(super) struct Found {
    pub(super) value: Value,
    pub(super) origin: String,
    /// A variable's value is its text as it stands: only the key knows which type it is meant to be.
    pub(super) from_variable: bool,
}

impl Layers {
    /// The defaults alone.
    pub(super) fn defaults() -> Layers {
        let mut layers =
            Layers { figment: Figment::new(), unsplit: Vec::new(), webhook: BTreeMap::new(), problems: Vec::new() };
        layers.add_toml(DEFAULTS, "built-in defaults");
        layers
    }

    /// Lays a file over what is there.
    pub(super) fn add_file(&mut self, path: &Path) {
        let origin = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => self.add_toml(&text, &origin),
            Err(error) => self.refuse(&origin, format!("cannot be read: {error}")),
        }
    }

    /// Lays the environment over what is there: first `DATABASE_URL`, then `OUTBOXD_SECTION__KEY`.
    pub(super) fn add_environment(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) {
        let mut ours = Vec::new();
        for (name, text) in variables {
            let Ok(name) = name.into_string() else {
                continue;
            };
            let is_ours = name == "DATABASE_URL" || name.starts_with(PREFIX) || WEBHOOK.contains(&name.as_str());
            // What a reference may name is no key of the configuration, however it goes on.
            if !is_ours || text.is_empty() || name.starts_with(DEFAULT_PREFIX) {
                continue;
            }
            match text.into_string() {
                Ok(text) => ours.push((name, text)),
                Err(_) => self.refuse(&format!("{VARIABLE}{name}"), "expected UTF-8".to_owned()),
            }
        }
        // DATABASE_URL sorts first, so that the variable made for outboxd goes over it.
        ours.sort();
        for (name, text) in ours {
            if WEBHOOK.contains(&name.as_str()) {
                self.webhook.insert(name, text);
                continue;
            }
            match name.strip_prefix(PREFIX).map(str::to_ascii_lowercase) {
                None => self.add_value(&["database", "url"], text, format!("{VARIABLE}{name}")),
                Some(key) if key.contains("__") => {
                    let path: Vec<&str> = key.split("__").collect();
                    self.add_value(&path, text, format!("{VARIABLE}{name}"));
                }
                Some(_) => self.unsplit.push(name),
            }
        }
    }

    /// Lays the command line over what is there.
    pub(super) fn add_flags(&mut self, overrides: &Overrides) {
        if let Some(format) = overrides.log_format {
            self.add_value(&["log", "format"], format.as_str().to_owned(), "--log-format".to_owned());
        }
    }

    /// The value at `key` (`section.key`), if any layer sets it.
    pub(super) fn find(&self, key: &str) -> Option<Found> {
        let value = self.figment.find_value(key).ok()?;
        let name = self.name_of(&value);
        let from_variable = name.starts_with(VARIABLE);
        Some(Found { value, origin: name, from_variable })
    }

    /// Every value that is no table, as its path and its origin.
    pub(super) fn leaves(&self) -> Vec<(String, String)> {
        let mut leaves = Vec::new();
        // The empty path is the root.
        if let Ok(Value::Dict(_, root)) = self.figment.find_value("") {
            self.walk("", &root, &mut leaves);
        }
        leaves
    }

    fn walk(&self, prefix: &str, dict: &Dict, leaves: &mut Vec<(String, String)>) {
        for (key, value) in dict {
            let path = format!("{prefix}{key}");
            match value {
                Value::Dict(_, inner) if !inner.is_empty() => self.walk(&format!("{path}."), inner, leaves),
                _ => leaves.push((path, self.name_of(value))),
            }
        }
    }

    fn name_of(&self, value: &Value) -> String {
        // A table is merged from several layers; the first value in it knows one of them.
        let leaf = match value {
            Value::Dict(_, dict) => dict.values().next().unwrap_or(value),
            other => other,
        };
        self.figment.get_metadata(leaf.tag()).map_or_else(String::new, |metadata| metadata.name.to_string())
    }

    fn add_toml(&mut self, text: &str, origin: &str) {
        match Toml::from_str::<Dict>(text) {
            Ok(dict) => self.add(dict, origin.to_owned()),
            // The parser's own message quotes the line, which may hold a password.
            Err(error) => {
                let start = error.span().map_or(0, |span| span.start);
                let before = text.get(..start).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
                self.refuse(origin, format!("is not valid TOML at line {line}, column {column}"));
            }
        }
    }

    fn add_value(&mut self, path: &[&str], text: String, origin: String) {
        let mut value = Value::from(text);
        let mut dict = Dict::new();
        for (depth, key) in path.iter().enumerate().rev() {
            dict = Dict::from([((*key).to_owned(), value)]);
            if depth == 0 {
                break;
            }
            value = Value::from(std::mem::take(&mut dict));
        }
        self.add(dict, origin);
    }

    fn add(&mut self, dict: Dict, origin: String) {
        let figment = std::mem::take(&mut self.figment);
        self.figment = figment.merge(Layer { dict, origin });
    }

    fn refuse(&mut self, origin: &str, message: String) {
        self.problems.push(Problem { key: None, origin: Some(origin.to_owned()), message });
    }
}

/// One source of values.
struct Layer {
    dict: Dict,
    origin: String,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}
