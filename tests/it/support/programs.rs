//! Programs that the package of a server may lack, and what is left out where there is none.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program of that name that can talk to the tests' server: its own; else Debian's, or the one that
/// `tests/postgres/setup.sh client` fetches, of the server's version or a later one.
pub(crate) fn client_program(name: &str) -> Option<PathBuf> {
    let own = super::bin_dir().join(name);
    if own.is_file() {
        return Some(own);
    }
    let wanted = major(&super::bin_dir().join("postgres"))?;
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgres/client/native");
    let found = installed.map(|entry| entry.path()).chain([fetched]).map(|dir| dir.join("bin").join(name));
    found
        .filter_map(|path| Some((major(&path)?, path)))
        .filter(|(found, _)| *found >= wanted)
        .min()
        .map(|(_, path)| path)
}

/// The major version that a program of PostgreSQL says it is of; `None` if there is no such program.
pub(crate) fn major(program: &Path) -> Option<u32> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split(|c: char| !c.is_ascii_digit()).find_map(|digits| digits.parse().ok())
}

/// Says that something is not tested here, and why; the report of `make faults` has it, too. `make test-all-postgres` counts what it reads in the file that
/// `OUTBOXD_LEFT_OUT` names; who runs the tests alone sees it with `--nocapture`.
pub(crate) fn left_out(what: &str, why: &str) {
    super::note_scenario(&format!("left out: {what}: {why}"));
    if let Some(file) = std::env::var_os("OUTBOXD_LEFT_OUT").filter(|file| !file.is_empty()) {
        append_line(Path::new(&file), &format!("{what}: {why}"));
    }
}

/// Whether all of these processes were there to be signalled.
pub(crate) fn signal(which: &str, processes: &[String]) -> bool {
    let kill = Command::new("kill").arg(which).args(processes).stderr(Stdio::null()).status();
    !processes.is_empty() && kill.is_ok_and(|status| status.success())
}

/// The postmaster of a data directory and its children; none if it is not up.
pub(crate) fn postgres_processes(data_dir: &Path) -> Vec<String> {
    let Ok(file) = std::fs::read_to_string(data_dir.join("postmaster.pid")) else { return Vec::new() };
    let Some(postmaster) = file.lines().next() else { return Vec::new() };
    let children = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
    let children = children.unwrap_or_default();
    std::iter::once(postmaster).chain(children.split_whitespace()).map(str::to_owned).collect()
}

/// Adds one line to a file in one write, so that lines of tests that run at once stay whole.
pub(super) fn append_line(file: &Path, line: &str) {
    let opened = OpenOptions::new().append(true).create(true).open(file);
    let written = opened.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    written.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}
