//! References: secrets that stay on the relay's host, in a variable or a file that the operator named for it.
//!
//! Whoever may subscribe chooses the name, so a name reaches only what was put there to be reached: variables with
//! one prefix, and plain files of one directory.

use crate::config::Secret;
use rustix::fs::OFlags;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What variables must begin with unless the configuration says otherwise.
pub const DEFAULT_PREFIX: &str = "OUTBOXD_SECRET_";

/// The largest text a reference may stand for: a PEM file with a chain fits.
const LIMIT: usize = 64 << 10;

/// Where references are looked up.
#[derive(Clone, Debug)]
pub struct References {
    directory: Option<PathBuf>,
    prefix: String,
}

impl Default for References {
    fn default() -> Self {
        Self { directory: None, prefix: DEFAULT_PREFIX.to_owned() }
    }
}

/// A reference that cannot be followed. The reference itself is no secret and is shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reference}: {reason}")]
pub struct ReferenceError {
    reference: String,
    reason: String,
}

impl References {
    /// Files are in `directory`; variables begin with `prefix`.
    pub fn new(directory: Option<PathBuf>, prefix: String) -> Self {
        Self { directory, prefix }
    }

    /// The text that `env:NAME` or `file:NAME` stands for; of a file without its last line break. Blocks for a file.
    ///
    /// # Errors
    /// If NAME may not be read, is not there, is empty, larger than 64 KiB or not UTF-8.
    pub fn read(&self, reference: &str) -> Result<Secret, ReferenceError> {
        let text = match reference.split_once(':') {
            Some(("env", name)) => self.variable(name),
            Some(("file", name)) => self.file(name),
            _ => Err("expected env:NAME or file:NAME".to_owned()),
        };
        let text = text.and_then(|text| match text.expose() {
            "" => Err("is empty".to_owned()),
            text if text.contains('\0') => Err("has a NUL character".to_owned()),
            _ => Ok(text),
        });
        text.map_err(|reason| ReferenceError { reference: shown(reference), reason })
    }

    fn variable(&self, name: &str) -> Result<Secret, String> {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !plain || !name.starts_with(&self.prefix) || name.len() == self.prefix.len() || is_configuration(name) {
            return Err(format!("only variables whose names begin with {} may be used", self.prefix));
        }
        match std::env::var(name) {
            Ok(text) if text.len() > LIMIT => Err("is larger than 64 KiB".to_owned()),
            Ok(text) => Ok(Secret::new(text)),
            Err(std::env::VarError::NotPresent) => Err("the variable is not set".to_owned()),
            Err(std::env::VarError::NotUnicode(_)) => Err("is not UTF-8".to_owned()),
        }
    }

    fn file(&self, name: &str) -> Result<Secret, String> {
        let directory = self.directory.as_ref().ok_or("secrets.directory is not set")?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.bytes().all(plain) {
            return Err("expected the plain name of a file: letters, digits, _ . -".to_owned());
        }
        let path = within(directory, name)?;
        // Neither a link put there meanwhile, nor a pipe that nobody writes to.
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|e| said(&e))?;
        if !file.metadata().map_err(|e| said(&e))?.is_file() {
            return Err("is not a regular file".to_owned());
        }
        // One buffer that does not grow: what is moved to a larger one stays behind unwiped.
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(LIMIT + 2));
        file.take(LIMIT as u64 + 1).read_to_end(&mut bytes).map_err(|e| said(&e))?;
        if bytes.len() > LIMIT {
            return Err("is larger than 64 KiB".to_owned());
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| "is not UTF-8".to_owned())?;
        let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        Ok(Secret::new(text.to_owned()))
    }
}

/// The file's path with every link followed (Kubernetes mounts secrets by links), if it is inside the directory.
fn within(directory: &Path, name: &str) -> Result<PathBuf, String> {
    let directory = directory.canonicalize().map_err(|e| format!("secrets.directory: {}", said(&e)))?;
    let path = directory.join(name).canonicalize().map_err(|e| said(&e))?;
    if path.starts_with(&directory) { Ok(path) } else { Err("is a link out of secrets.directory".to_owned()) }
}

fn said(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "the file may not be read".to_owned(),
        _ => format!("the file cannot be read: {error}"),
    }
}

/// A variable of outboxd's own configuration, or libpq's, whatever the prefix says.
pub(crate) fn is_configuration(name: &str) -> bool {
    name == "DATABASE_URL"
        || name.starts_with("WEBHOOK_")
        || name.starts_with("PG")
        || (name.starts_with("OUTBOXD_") && name.contains("__") && !name.starts_with(DEFAULT_PREFIX))
}

/// Whether variables with this prefix are those of the configuration.
pub(crate) fn is_reserved_prefix(prefix: &str) -> bool {
    ["OUTBOXD_", "DATABASE_URL"].iter().any(|own| own.starts_with(prefix))
        || is_configuration(prefix)
        || prefix.starts_with("OUTBOXD_SECRETS")
}

/// A reference as it may be shown: one that is none may be the secret itself.
fn shown(reference: &str) -> String {
    match reference.split_once(':') {
        Some((kind @ ("env" | "file"), name)) if name.len() <= 200 && !name.chars().any(char::is_control) => {
            format!("{kind}:{name}")
        }
        _ => "the secret reference".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A directory of one test's own, removed with it.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("outboxd-secrets-{}-{name}", std::process::id()));
            fs::create_dir_all(path.join("inside")).expect("a directory");
            fs::write(path.join("outside"), "not yours").expect("a file");
            Self(path)
        }

        fn put(&self, name: &str, bytes: &[u8]) {
            fs::write(self.0.join("inside").join(name), bytes).expect("a file");
        }

        fn read(&self, name: &str) -> Result<String, String> {
            let references = References::new(Some(self.0.join("inside")), DEFAULT_PREFIX.into());
            let read = references.read(&format!("file:{name}"));
            read.map(|text| text.expose().to_owned()).map_err(|error| error.to_string())
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_read_without_its_last_line_break() {
        let place = Place::new("read");
        for (text, expected) in [("abc", "abc"), ("abc\n", "abc"), ("abc\r\n", "abc"), ("a\nb\n\n", "a\nb\n")] {
            place.put("it", text.as_bytes());
            assert_eq!(place.read("it").as_deref(), Ok(expected));
        }
        place.put("large", &vec![b'x'; LIMIT]);
        assert_eq!(place.read("large").map(|text| text.len()), Ok(LIMIT));
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        let place = Place::new("out");
        let inside = place.0.join("inside");
        for name in ["../outside", "..", ".", "", "/etc/passwd", "a/b", "inside/../../outside", "a\0b", ".hidden"] {
            assert!(place.read(name).expect_err(name).contains("plain name"), "{name}");
        }
        symlink("../outside", inside.join("link")).expect("a link");
        assert!(place.read("link").expect_err("a link").contains("out of secrets.directory"));
        symlink("/etc", inside.join("etc")).expect("a link");
        assert!(place.read("etc").is_err());
        // As Kubernetes lays secrets out.
        fs::create_dir_all(inside.join("..2026_01")).expect("a directory");
        fs::write(inside.join("..2026_01/mounted"), "within").expect("a file");
        symlink("..2026_01", inside.join("..data")).expect("a link");
        symlink("..data/mounted", inside.join("mounted")).expect("a link");
        assert_eq!(place.read("mounted").as_deref(), Ok("within"));
    }

    #[test]
    fn what_is_no_text_file_of_some_size_is_refused() {
        let place = Place::new("odd");
        place.put("large", &vec![b'x'; LIMIT + 1]);
        place.put("empty", b"\n");
        place.put("latin", b"caf\xe9");
        place.put("nul", b"a\0b");
        fs::create_dir_all(place.0.join("inside/directory")).expect("a directory");
        for (name, expected) in [
            ("large", "larger than 64 KiB"),
            ("empty", "is empty"),
            ("latin", "not UTF-8"),
            ("nul", "NUL"),
            ("directory", "not a regular file"),
            ("missing", "no such file"),
        ] {
            let error = place.read(name).expect_err(name);
            assert!(error.contains(expected) && error.starts_with(&format!("file:{name}: ")), "{error}");
        }
        let pipe = place.0.join("inside/pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
        assert!(place.read("pipe").expect_err("a pipe").contains("not a regular file"));
    }

    #[test]
    fn only_variables_with_the_prefix_are_read() {
        let read = |prefix: &str, name: &str| References::new(None, prefix.to_owned()).read(name);
        // Set for every test by cargo.
        assert!(read("CARGO_PKG_", "env:CARGO_PKG_NAME").is_ok_and(|text| text.expose() == "outboxd"));
        for name in
            ["env:PATH", "env:DATABASE_URL", "env:CARGO_PKG_NAME", "env:OUTBOXD_SECRET_", "env:OUTBOXD_SECRETS__KEY"]
        {
            let error = read(DEFAULT_PREFIX, name).expect_err(name).to_string();
            assert!(error.contains("OUTBOXD_SECRET_"), "{error}");
        }
        // A prefix that is too short opens neither the database's URL nor the sealing key.
        for (prefix, name) in
            [("OUTBOXD_", "env:OUTBOXD_SECRETS__KEY"), ("DATA", "env:DATABASE_URL"), ("PG", "env:PGPASSWORD")]
        {
            assert!(read(prefix, name).expect_err(name).to_string().contains("only variables"), "{name}");
        }
        let missing = read(DEFAULT_PREFIX, "env:OUTBOXD_SECRET_NOBODY_SETS_THIS").expect_err("not set");
        assert_eq!(missing.to_string(), "env:OUTBOXD_SECRET_NOBODY_SETS_THIS: the variable is not set");
    }

    #[test]
    fn what_is_no_reference_is_not_repeated() {
        for text in ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "hunter2:hunter2", ""] {
            let error = References::default().read(text).expect_err("no reference").to_string();
            assert_eq!(error, "the secret reference: expected env:NAME or file:NAME");
        }
    }
}
