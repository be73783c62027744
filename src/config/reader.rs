//! Reads single keys out of the merged layers and keeps note of everything that is wrong with them.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};
use jiff::SignedDuration;
use serde::de::DeserializeOwned;

use super::layers::{Found, Layers};
use super::problem::Problem;
use super::secret::Secret;

/// The value is unusable and the problem has been noted.
#[derive(Debug)]
pub(super) struct Noted;

/// A value, or the knowledge that its problem has been noted. A section reads all its keys before it
/// gives up on the first, so that one start names every problem.
pub(super) type Read<T> = Result<T, Noted>;

pub(super) struct Reader {
    layers: Layers,
    problems: Vec<Problem>,
    /// Every key that was asked for; what else is set is unknown.
    known: BTreeSet<&'static str>,
}

impl Reader {
    pub(super) fn new(layers: Layers) -> Reader {
        Reader { layers, problems: Vec::new(), known: BTreeSet::new() }
    }

    /// Whether any layer sets `key`.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.layers.find(key).is_some()
    }

    /// The keys asked for so far.
    #[cfg(test)]
    pub(super) fn known(&self) -> impl Iterator<Item = &'static str> {
        self.known.iter().copied()
    }

    /// A text; none if it is not set.
    pub(super) fn text(&mut self, key: &'static str, expected: &str) -> Read<Option<String>> {
        let Some(found) = self.find(key)? else {
            return Ok(None);
        };
        let text = match &found.value {
            Value::String(_, raw) if found.from_variable => unquoted(raw),
            Value::String(_, text) => text.clone(),
            other => return Err(self.wrong_type(key, &found, expected, other)),
        };
        if text.is_empty() {
            return Err(self.note_found(key, &found, format!("expected {expected}, found an empty text")));
        }
        Ok(Some(text))
    }

    /// A text that `parse` understands; its error must not repeat the text.
    pub(super) fn parsed<T, E: Display>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Read<Option<T>> {
        let Some(text) = self.text(key, expected)? else {
            return Ok(None);
        };
        match parse(&text) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(self.note(key, error.to_string())),
        }
    }

    /// The name of a file that can be opened; none if it is not set.
    pub(super) fn readable_file(&mut self, key: &'static str) -> Read<Option<PathBuf>> {
        let Some(path) = self.text(key, "the path of a file")?.map(PathBuf::from) else {
            return Ok(None);
        };
        // The path itself is not shown: a password in the wrong key would be.
        match std::fs::File::open(&path) {
            Ok(_) => Ok(Some(path)),
            Err(error) => Err(self.note(key, format!("the file cannot be read: {error}"))),
        }
    }

    /// A secret that is set as `key`, or as the file `file_key` without its last line break.
    pub(super) fn secret(&mut self, key: &'static str, file_key: &'static str, expected: &str) -> Read<Option<Secret>> {
        let direct = self.text(key, expected);
        let path = self.text(file_key, "the path of a file");
        match (direct?.map(Secret::new), path?) {
            (Some(_), Some(_)) => {
                let other = self.origin(file_key).unwrap_or_default();
                Err(self.note(key, format!("{file_key} is set too ({other}); set one of them")))
            }
            (direct, None) => Ok(direct),
            (None, Some(path)) => read_secret_file(&path).map(Some).map_err(|message| self.note(file_key, message)),
        }
    }

    /// The tables of an array of tables, each with where it comes from; none if it is not set.
    pub(super) fn blocks(&mut self, key: &'static str) -> Read<Vec<(Dict, String)>> {
        self.known.insert(key);
        let Some(found) = self.layers.find(key) else { return Ok(Vec::new()) };
        let expected = format!("[[{key}]] blocks");
        let Value::Array(_, entries) = found.value else {
            return Err(self.note(key, format!("expected {expected}")));
        };
        let blocks = entries.into_iter().map(|entry| match entry {
            Value::Dict(_, dict) => Some((dict, found.origin.clone())),
            _ => None,
        });
        blocks.collect::<Option<Vec<_>>>().ok_or_else(|| self.note(key, format!("expected {expected}")))
    }

    /// One of the variables that have no `OUTBOXD_` before them.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.layers.webhook.get(name).cloned()
    }

    /// A whole number within bounds.
    pub(super) fn number<T>(&mut self, key: &'static str, bounds: RangeInclusive<T>) -> Read<T>
    where
        T: DeserializeOwned + PartialOrd + Display,
    {
        let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let (found, value) = self.typed::<T>(key, &expected)?;
        if bounds.contains(&value) {
            return Ok(value);
        }
        Err(self.note_found(key, &found, format!("expected {expected}")))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str) -> Read<bool> {
        self.typed(key, "true or false").map(|(_, value)| value)
    }

    /// A list of numbers or texts, each turned into what is meant; `example` shows how one is written.
    pub(super) fn list<V: DeserializeOwned, T, E: Display>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl Fn(V) -> Result<T, E>,
    ) -> Read<Vec<T>> {
        let (found, entries) = self.typed::<Vec<V>>(key, &format!("a list such as {example}"))?;
        let mut values = Vec::with_capacity(entries.len());
        let mut complete = true;
        for (index, entry) in entries.into_iter().enumerate() {
            match parse(entry) {
                Ok(value) => values.push(value),
                Err(error) => {
                    complete = false;
                    self.note_found(key, &found, format!("entry {}: {error}", index + 1));
                }
            }
        }
        if complete { Ok(values) } else { Err(Noted) }
    }

    /// A length of time with its unit ("30s", "5 minutes", ISO 8601), within bounds.
    pub(super) fn duration(&mut self, key: &'static str, bounds: RangeInclusive<Duration>) -> Read<Duration> {
        let expected = format!(
            "a duration with its unit from {} to {}, such as \"30s\" or \"5 minutes\"",
            friendly(*bounds.start()),
            friendly(*bounds.end())
        );
        let parse = |text: &str| {
            parse_duration(text).filter(|value| bounds.contains(value)).ok_or_else(|| {
                let bare = text.parse::<f64>().is_ok();
                format!("expected {expected}{}", if bare { ", found a number without one" } else { "" })
            })
        };
        let value = self.parsed(key, &expected, parse)?;
        self.required(key, value)
    }

    /// Insists on a value that the defaults provide.
    pub(super) fn required<T>(&mut self, key: &'static str, value: Option<T>) -> Read<T> {
        value.ok_or_else(|| self.note(key, "is not set".to_owned()))
    }

    /// Notes a problem with `key`, naming where its value comes from.
    pub(super) fn note(&mut self, key: &str, message: String) -> Noted {
        let origin = self.origin(key);
        self.problems.push(Problem { key: Some(key.to_owned()), origin, message });
        Noted
    }

    /// Notes a problem with something that is no key of its own.
    pub(super) fn note_at(&mut self, key: &str, origin: &str, message: String) -> Noted {
        let problem = Problem { key: Some(key.to_owned()), origin: Some(origin.to_owned()), message };
        self.problems.push(problem);
        Noted
    }

    /// Everything that was found wrong, the keys that nobody asked for included.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        self.note_unknown_keys();
        self.note_unsplit_variables();
        self.problems
    }

    fn origin(&self, key: &str) -> Option<String> {
        self.layers.find(key).map(|found| found.origin)
    }

    fn find(&mut self, key: &'static str) -> Read<Option<Found>> {
        self.known.insert(key);
        let found = self.layers.find(key);
        let section = self.layers.find(section_of(key));
        let has_section = section.is_some_and(|section| matches!(section.value, Value::Dict(..)));
        if found.is_none() && !has_section {
            // Noted once for the whole section, by note_unknown_keys.
            return Err(Noted);
        }
        Ok(found)
    }

    fn typed<T: DeserializeOwned>(&mut self, key: &'static str, expected: &str) -> Read<(Found, T)> {
        let found = self.find(key)?;
        let found = self.required(key, found)?;
        let value = match &found.value {
            // figment's own reading of a variable: numbers, booleans, [lists].
            // It panics over characters that are not ASCII, and what is meant here has none.
            Value::String(_, raw) if found.from_variable && raw.is_ascii() => match raw.parse() {
                Ok(value) => value,
                Err(impossible) => match impossible {},
            },
            other => other.clone(),
        };
        match value.deserialize::<T>() {
            Ok(typed) => Ok((found, typed)),
            // figment's own message shows the value.
            Err(_) => Err(self.wrong_type(key, &found, expected, &value)),
        }
    }

    fn wrong_type(&mut self, key: &str, found: &Found, expected: &str, value: &Value) -> Noted {
        self.note_found(key, found, format!("expected {expected}, found {}", kind_of(value)))
    }

    fn note_found(&mut self, key: &str, found: &Found, message: String) -> Noted {
        let origin = Some(found.origin.clone());
        self.problems.push(Problem { key: Some(key.to_owned()), origin, message });
        Noted
    }

    fn note_unknown_keys(&mut self) {
        for (path, origin) in self.layers.leaves() {
            if self.known.contains(path.as_str()) {
                continue;
            }
            let keys = self.keys_of(section_of(&path));
            let message = if keys.is_empty() {
                format!("there is no such section; there are {}", self.sections().join(", "))
            } else if self.known.iter().any(|key| path.starts_with(&format!("{key}."))) {
                // A table where a value belongs: the key itself was already refused.
                continue;
            } else if path.contains('.') {
                format!("is an unknown key; [{}] has {}", section_of(&path), keys.join(", "))
            } else {
                format!("expected a section [{path}] with {}", keys.join(", "))
            };
            self.problems.push(Problem { key: Some(path), origin: Some(origin), message });
        }
    }

    /// `OUTBOXD_EGRESS_ALLOW` would be silently without effect. Other names without `__` are left alone:
    /// Kubernetes gives a pod `OUTBOXD_PORT` and the like for a service called outboxd.
    fn note_unsplit_variables(&mut self) {
        for name in std::mem::take(&mut self.layers.unsplit) {
            let meant = self.known.iter().find_map(|key| {
                let (section, rest) = key.split_once('.')?;
                let (section, rest) = (section.to_ascii_uppercase(), rest.to_ascii_uppercase());
                let wrong = [format!("OUTBOXD_{section}_{rest}"), format!("OUTBOXD_{section}")];
                if name == wrong[0] {
                    Some(format!("OUTBOXD_{section}__{rest}"))
                } else {
                    (name == wrong[1]).then(|| format!("one variable a key, as OUTBOXD_{section}__{rest}"))
                }
            });
            if let Some(meant) = meant {
                let origin = Some(format!("environment variable {name}"));
                self.problems.push(Problem { key: None, origin, message: format!("expected {meant}") });
            }
        }
    }

    fn keys_of(&self, section: &str) -> Vec<&'static str> {
        self.known.iter().filter_map(|key| key.strip_prefix(section)?.strip_prefix('.')).collect()
    }

    fn sections(&self) -> Vec<&'static str> {
        let mut sections: Vec<&str> = self.known.iter().map(|key| section_of(key)).collect();
        sections.dedup();
        sections
    }
}

/// A length of time with its unit.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    text.parse::<SignedDuration>().ok()?.try_into().ok()
}

/// A secret from a file, without its last line break; what is wrong with the file otherwise.
pub(super) fn read_secret_file(path: &str) -> Result<Secret, String> {
    let secret =
        Secret::new(std::fs::read_to_string(path).map_err(|error| format!("the file cannot be read: {error}"))?);
    let text = secret.expose();
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if text.is_empty() { Err("the file is empty".to_owned()) } else { Ok(Secret::new(text.to_owned())) }
}

fn section_of(key: &str) -> &str {
    key.split_once('.').map_or(key, |(section, _)| section)
}

/// A variable's text as it stands, without the quotes of TOML that are allowed around it.
fn unquoted(raw: &str) -> String {
    let raw = raw.trim();
    let quoted = raw.starts_with('"').then(|| Toml::from_str::<Dict>(&format!("text = {raw}")));
    match quoted.and_then(Result::ok).and_then(|mut dict| dict.remove("text")) {
        Some(Value::String(_, text)) => text,
        _ => raw.to_owned(),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::String(..) | Value::Char(..) => "a text",
        Value::Bool(..) => "a boolean",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
    }
}

fn friendly(duration: Duration) -> String {
    SignedDuration::try_from(duration).map_or_else(|_| format!("{duration:?}"), |signed| format!("{signed:#}"))
}
