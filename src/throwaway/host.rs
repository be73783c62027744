//! What a server needs from its host: programs, a directory, a user to run as, a port.

use super::ThrowawayError;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian keeps the servers, one directory a major version.
const DEBIAN_SERVERS: &str = "/usr/lib/postgresql";

/// Whom the server runs as when we are root.
#[derive(Debug, Clone, Copy)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

pub(super) fn find_server(named: Option<&Path>) -> Result<PathBuf, ThrowawayError> {
    let from_environment = || std::env::var_os("OUTBOXD_PG_BIN").filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = named.map(Path::to_owned).or_else(from_environment) {
        return match missing_program(&dir) {
            None => Ok(dir),
            Some(program) => Err(ThrowawayError::Incomplete { dir, program }),
        };
    }
    let mut installed: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN_SERVERS)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, dir)| missing_program(dir).is_none())
        .collect();
    installed.sort();
    if let Some((_, dir)) = installed.pop() {
        return Ok(dir);
    }
    Command::new("pg_config")
        .arg("--bindir")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map(|line| PathBuf::from(line.trim()))
        .filter(|dir| missing_program(dir).is_none())
        .ok_or(ThrowawayError::NoServer)
}

fn missing_program(dir: &Path) -> Option<&'static str> {
    ["postgres", "initdb", "pg_ctl"].into_iter().find(|program| !dir.join(program).is_file())
}

pub(super) fn make_directory(parent: Option<&Path>) -> Result<PathBuf, ThrowawayError> {
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
    loop {
        let dir = parent.join(format!("outboxd-{:08x}", fastrand::u32(..)));
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(file_error("make", &dir)(error)),
        }
    }
}

/// Nobody in particular unless we are root, which the directory we just made tells.
pub(super) fn user_to_run_as(dir: &Path) -> Result<Option<User>, ThrowawayError> {
    if fs::metadata(dir).map_err(file_error("look at", dir))?.uid() != 0 {
        return Ok(None);
    }
    let passwd = Path::new("/etc/passwd");
    let users = fs::read_to_string(passwd).map_err(file_error("read", passwd))?;
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| users.lines().find_map(|line| parse_user(line, name)))
        .map(Some)
        .ok_or(ThrowawayError::NoUser)
}

/// One line of `/etc/passwd` (name, password, uid, gid, …), if it is that user's and not root in disguise.
fn parse_user(line: &str, name: &str) -> Option<User> {
    let mut fields = line.split(':');
    let user = (fields.next()? == name)
        .then(|| fields.nth(1)?.parse().ok().zip(fields.next()?.parse().ok()))
        .flatten()
        .map(|(uid, gid)| User { uid, gid })?;
    (user.uid != 0).then_some(user)
}

pub(super) fn command(program: impl AsRef<OsStr>, dir: &Path, user: Option<User>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).env("LC_ALL", "C");
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

/// A loopback port that nobody listens on now. It lies below those that Linux gives to outgoing connections (32768 and
/// above, `net.ipv4.ip_local_port_range`): one of them would take it while its server is down for a moment.
///
/// # Errors
/// None of many that were tried is free.
pub fn free_port() -> io::Result<u16> {
    let mut tried = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..100 {
        let port = fastrand::u16(10_000..32_768);
        tried = TcpListener::bind(("127.0.0.1", port)).map(|_| port);
        if tried.is_ok() {
            break;
        }
    }
    tried
}

pub(super) fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ThrowawayError {
    let path = path.to_owned();
    move |source| ThrowawayError::File { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_read_from_its_passwd_line_and_is_never_root() {
        let user = parse_user("postgres:x:105:111:PostgreSQL administrator:/var/lib/postgresql:/bin/bash", "postgres");
        assert!(matches!(user, Some(User { uid: 105, gid: 111 })));
        assert!(parse_user("postgresql:x:105:111::/:/bin/sh", "postgres").is_none());
        assert!(parse_user("postgres:x:0:0::/:/bin/sh", "postgres").is_none());
        assert!(parse_user("postgres", "postgres").is_none());
    }
}
