//! What a daemon asks the database for, as text: read from the source of this build, or as an earlier one left it.

use std::path::{Path, PathBuf};

/// One statement with the types of what it is given, by PostgreSQL's names of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) file: String,
    pub(crate) sql: String,
    /// `None`: the server is asked for them.
    pub(crate) types: Option<Vec<String>>,
}

/// The statements in `src/db` and `src/wake.rs`.
pub(crate) fn calls_of_source() -> Vec<Call> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> = std::fs::read_dir(repository.join("src/db"))
        .expect("src/db")
        .map(|entry| entry.expect("an entry").path())
        .chain([repository.join("src/wake.rs")])
        .collect();
    files.sort();
    files
        .iter()
        .flat_map(|path| {
            let file = path.strip_prefix(repository).expect("below the repository").display().to_string();
            let text = std::fs::read_to_string(path).expect("a file");
            calls_in(&file, text.split("#[cfg(test)]").next().unwrap_or_default())
        })
        .collect()
}

/// What is of interest in a source file.
enum Token {
    Function,
    Literal(String),
    /// `Type::INT8_ARRAY`.
    Type(String),
}

/// In a function a statement and the types of its parameters stand one behind the other, in either order.
fn calls_in(file: &str, text: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut found: Vec<(String, usize, Vec<String>)> = Vec::new();
    let mut early: Vec<String> = Vec::new();
    let mut end_function = |found: &mut Vec<(String, usize, Vec<String>)>, early: &mut Vec<String>| {
        assert!(early.is_empty(), "{file}: types {early:?} without a statement that takes so many");
        for (sql, wanted, types) in found.drain(..) {
            assert!(types.is_empty() || types.len() == wanted, "{file}: {} types for {sql}", types.len());
            // Made by format!: what it calls is in the document of the HTTP API, and has a test of its own.
            if !sql.contains('{') {
                let types = (wanted == 0 || !types.is_empty()).then_some(types);
                calls.push(Call { file: file.to_owned(), sql, types });
            }
        }
    };
    for token in tokens(text) {
        match token {
            Token::Function => end_function(&mut found, &mut early),
            Token::Literal(text) if text.starts_with("select ") => {
                let wanted = (1..).take_while(|n| mentions(&text, *n)).count();
                let given = if early.len() == wanted { std::mem::take(&mut early) } else { Vec::new() };
                found.push((text, wanted, given));
            }
            Token::Literal(_) => {}
            Token::Type(name) => match found.last_mut() {
                Some((_, wanted, types)) if types.len() < *wanted => types.push(name),
                _ => early.push(name),
            },
        }
    }
    end_function(&mut found, &mut early);
    calls
}

/// Whether the statement has this parameter.
fn mentions(sql: &str, n: usize) -> bool {
    sql.split('$').skip(1).any(|rest| rest.split(|c: char| !c.is_ascii_digit()).next() == Some(&n.to_string()))
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if c == '"' {
            let (literal, behind) = literal(&rest[1..]);
            tokens.push(Token::Literal(literal));
            rest = behind;
        } else if rest.starts_with("'\"'") {
            rest = &rest[3..];
        } else if c.is_alphabetic() || c == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(rest.len());
            let word = &rest[..end];
            if word == "fn" {
                tokens.push(Token::Function);
            } else if let Some(name) = word.strip_prefix("Type::") {
                let name = name.to_lowercase();
                tokens.push(Token::Type(name.strip_suffix("_array").map_or(name.clone(), |of| format!("_{of}"))));
            }
            rest = &rest[end..];
        } else {
            rest = &rest[c.len_utf8()..];
        }
    }
    tokens
}

/// The text of a string literal, its white space made one blank, and what is behind it.
fn literal(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value.split_whitespace().collect::<Vec<_>>().join(" "), &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, '\n' | 'n')) | None => value.push(' '),
                Some((_, c)) => value.push(c),
            },
            c => value.push(c),
        }
    }
    (value, "")
}

/// A call as an earlier version left it, with what it got.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) call: Call,
    /// What the server said it takes.
    pub(crate) takes: Vec<String>,
    /// Names and types of the columns.
    pub(crate) gets: Vec<String>,
}

const HEADING: &str = "-- What the daemon of this version asks the database for (src/db, src/wake.rs): what each statement is\n\
    -- given (or, with \"asks\", what the server says it takes) and the columns it gets. Written by `make released`.\n";

/// As a file.
pub(crate) fn write(recorded: &[Recorded]) -> String {
    let one = |recorded: &Recorded| {
        let how = if recorded.call.types.is_some() { "gives" } else { "asks" };
        let (file, sql) = (&recorded.call.file, &recorded.call.sql);
        format!("\n-- {file}\n-- {how} {}\n-- gets {}\n{sql};\n", recorded.takes.join(", "), recorded.gets.join(", "))
    };
    HEADING.chars().chain(recorded.iter().map(one).collect::<String>().chars()).collect()
}

/// From such a file.
pub(crate) fn read(text: &str) -> Vec<Recorded> {
    let list = |text: &str| text.split(", ").filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    text.trim_end()
        .split("\n\n")
        .skip(1)
        .map(|block| {
            let lines: Vec<&str> = block.lines().collect();
            let [file, takes, gets, sql] = lines[..] else { panic!("not four lines: {block}") };
            let (how, takes) = takes.strip_prefix("-- ").and_then(|line| line.split_once(' ')).expect("gives or asks");
            let takes = list(takes);
            let call = Call {
                file: file.trim_start_matches("-- ").to_owned(),
                sql: sql.trim_end_matches(';').to_owned(),
                types: (how == "gives").then(|| takes.clone()),
            };
            Recorded { call, takes, gets: list(gets.strip_prefix("-- gets ").unwrap_or_default()) }
        })
        .collect()
}
