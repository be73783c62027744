//! Schemas as text, to be compared.

use super::{client_program, left_out};
use std::process::Command;

/// The schema, without what differs from run to run: versions, random tokens, owners. `None` without a pg_dump that reads it.
pub(crate) fn dump(url: &str) -> Option<String> {
    pg_dump(url, &["--schema-only"])
}

/// What is in the tables, as statements of their own.
pub(crate) fn dump_data(url: &str) -> Option<String> {
    pg_dump(url, &["--data-only", "--column-inserts"])
}

fn pg_dump(url: &str, arguments: &[&str]) -> Option<String> {
    let Some(program) = client_program("pg_dump") else {
        left_out("a comparison of dumps", "no pg_dump of the server's version or a later one");
        return None;
    };
    let output = Command::new(&program)
        .args(arguments)
        .args(["--no-owner", "--dbname", url])
        // Constants of time are printed in the session's zone.
        .env("PGTZ", "UTC")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    let is_heading = |line: &str| {
        ["-- Name: ", "-- Data for Name: ", "-- PostgreSQL database dump", "-- Dumped "]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let mut dump = String::new();
    let mut was_empty = true;
    for (number, line) in lines.iter().enumerate() {
        // A bare -- belongs to a heading of pg_dump's, or to a comment of a function's own.
        let mut beside = [number.checked_sub(1), Some(number + 1)].into_iter().flatten().filter_map(|n| lines.get(n));
        let is_frame = *line == "--" && beside.any(|line| is_heading(line));
        let is_noise = ["\\restrict ", "\\unrestrict ", "SET ", "SELECT pg_catalog.set_config("]
            .iter()
            .any(|noise| line.starts_with(noise));
        if is_noise || is_frame || is_heading(line) || line.is_empty() && was_empty {
            continue;
        }
        dump.push_str(line);
        dump.push('\n');
        was_empty = line.is_empty();
    }
    Some(dump)
}

/// The first line where two texts differ, with its number.
pub(crate) fn first_difference(left: &str, right: &str) -> Option<String> {
    let (mut left, mut right) = (left.lines(), right.lines());
    (1..).find_map(|number| match (left.next(), right.next()) {
        (None, None) => Some(None),
        (one, other) if one == other => None,
        (one, other) => Some(Some(format!("line {number}: {one:?} and {other:?}"))),
    })?
}
