//! `[secrets]`: the sealing keys, and what references may name.

use super::reader::{Noted, Read, Reader, read_secret_file};
use crate::secrets::{Keyring, References, SealingKey, Secrets, is_reserved_prefix};
use std::path::PathBuf;

pub(super) fn read(reader: &mut Reader) -> Read<Secrets> {
    const KEY: &str = "32 bytes as 64 hex digits or base64";
    const PREFIX: &str = "4 to 64 capital letters, digits or _, beginning with a letter";
    const DIRECTORY: &str = "the absolute path of a directory";
    let key = reader.secret("secrets.key", "secrets.key_file", KEY);
    let key = key.and_then(|key| match key.map(|text| SealingKey::parse(text.expose())).transpose() {
        Ok(key) => Ok(key),
        Err(message) => {
            let key = if reader.is_set("secrets.key") { "secrets.key" } else { "secrets.key_file" };
            Err(reader.note(key, message))
        }
    });
    let old_keys = reader.list("secrets.old_keys", "[\"base64 of 32 bytes\"]", |text: String| {
        SealingKey::parse(zeroize::Zeroizing::new(text).as_str())
    });
    let old_files = reader.list("secrets.old_key_files", "[\"/etc/outboxd/old-key\"]", |path: String| {
        SealingKey::parse(read_secret_file(&path)?.expose())
    });
    // Whether it is there is seen when something is read from it: it may be mounted later.
    let directory = reader.parsed("secrets.directory", DIRECTORY, |text| {
        let path = PathBuf::from(text);
        if path.is_absolute() { Ok(path) } else { Err(format!("expected {DIRECTORY}")) }
    });
    let prefix = reader.parsed("secrets.env_prefix", PREFIX, |text| {
        let plain = text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        let fits = plain && (4..=64).contains(&text.len()) && text.starts_with(|c: char| c.is_ascii_uppercase());
        match (fits, is_reserved_prefix(text)) {
            (true, false) => Ok(text.to_owned()),
            (true, true) => Err("is of variables that outboxd is configured with; choose another".to_owned()),
            _ => Err(format!("expected {PREFIX}")),
        }
    });
    let prefix = prefix.and_then(|set| reader.required("secrets.env_prefix", set));
    let (key, mut old, files) = (key?, old_keys?, old_files?);
    old.extend(files);
    if key.is_none() && !old.is_empty() {
        let message = "is not set; old keys only open, so name the one that seals";
        let _: Noted = reader.note("secrets.key", message.to_owned());
        return Err(Noted);
    }
    Ok(Secrets { keyring: Keyring::new(key, old), references: References::new(directory?, prefix?) })
}
