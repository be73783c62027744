//! `tests/hostile-inputs.tsv`: what a tenant, a receiver, a producer or a careless operator may hand in, with the
//! verdict expected of each. Every row is run; another verdict than the one written fails.
//!
//! | kind | the input is | verdict |
//! |---|---|---|
//! | `url` | a subscription's URL | `accepted`; `sql: words` (refused when it is stored, and by the relay); `relay: words` (only there) |
//! | `address` | address and port | `accepted`, or `refused: words` |
//! | `rule` | an entry of `[egress] allow` or `deny` | `accepted` and how it is written, or `refused: words` |
//! | `policy` | `allow RULE deny RULE to ADDRESS` | as address |
//! | `header`, `signature-header`, `secret`, `filter` | that argument of `outbox.subscribe` (a secret behind its profile) | `accepted`, or SQLSTATE and words |
//! | `sql` | a statement of an operator who is a producer too | the SQLSTATE |
//! | `config`, `variable` | a file; a variable of the environment | as address |
//! | `http` | the bytes of a request to the operator's seat | the first digits of the status |
//! | `retry-after` | the header's value, at the beginning of 2026 | seconds, or `none` |
//! | `traceparent` | the header's value | `accepted` or `none` |

use crate::support::{Db, Outboxd, PATIENCE, Seat, Session};
use hyper::header::{HeaderName, HeaderValue};
use outboxd::egress::{NetRule, Policy, check_url};
use outboxd::outcome::retry_after;
use outboxd::sign::{Key, Profile};
use outboxd::trace::TraceContext;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::error::DbError;
use tokio_postgres::types::ToSql;

const TABLE: &str = include_str!("../hostile-inputs.tsv");
const KINDS: [&str; 14] = [
    "url",
    "address",
    "rule",
    "policy",
    "header",
    "signature-header",
    "secret",
    "filter",
    "sql",
    "config",
    "variable",
    "http",
    "retry-after",
    "traceparent",
];

struct Row {
    line: usize,
    kind: &'static str,
    written: &'static str,
    input: String,
    verdict: &'static str,
}

fn table() -> impl Iterator<Item = Row> {
    let lines = TABLE.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    lines.map(|(n, text)| {
        let columns: Vec<&str> = text.split('\t').collect();
        let [kind, written, verdict] = columns[..] else { panic!("line {}: not three columns", n + 1) };
        Row { line: n + 1, kind, written, input: unescaped(written), verdict }
    })
}

/// What a row's escapes stand for.
fn unescaped(mut rest: &str) -> String {
    let mut text = String::new();
    while let Some((before, escape)) = rest.split_once('\\') {
        text.push_str(before);
        let kind = escape.chars().next().expect("something behind the backslash");
        rest = &escape[1..];
        match kind {
            '\\' => text.push('\\'),
            't' => text.push('\t'),
            'n' => text.push('\n'),
            'r' => text.push('\r'),
            'u' => {
                let (code, after) = rest[1..].split_once('}').expect("\\u{hex}");
                text.push(u32::from_str_radix(code, 16).ok().and_then(char::from_u32).expect("a character"));
                rest = after;
            }
            '{' => {
                let (at, count) = rest
                    .match_indices('*')
                    .find_map(|(at, _)| Some((at, rest[at + 1..].split_once('}')?.0.parse::<usize>().ok()?)))
                    .expect("\\{text*count}");
                text.push_str(&unescaped(&rest[..at]).repeat(count));
                rest = rest[at..].split_once('}').expect("\\{text*count}").1;
            }
            other => panic!("no such escape: {other}"),
        }
    }
    text + rest
}

/// Collects what did not go as the rows say, so that one run shows all of it.
struct Verdicts {
    kind: &'static str,
    rows: usize,
    wrong: Vec<String>,
}

impl Verdicts {
    fn of(kind: &'static str) -> (Self, impl Iterator<Item = Row>) {
        assert!(KINDS.contains(&kind));
        (Self { kind, rows: 0, wrong: Vec::new() }, table().filter(move |row| row.kind == kind))
    }

    /// `Ok` holds how it was accepted (if that is to be said), `Err` why it was refused.
    fn judge(&mut self, row: &Row, result: Result<&str, &str>) {
        let is_right = match result {
            Ok("") => row.verdict == "accepted",
            Ok(how) => row.verdict == format!("accepted {how}"),
            Err(why) => row.verdict.strip_prefix("refused: ").is_some_and(|words| why.contains(words)),
        };
        self.note(row, is_right, &format!("{result:?}"));
    }

    fn note(&mut self, row: &Row, is_right: bool, got: &str) {
        self.rows += 1;
        if !is_right {
            let got: String = got.chars().take(300).collect();
            self.wrong.push(format!("line {}: {:?}: expected {:?}, got {got}", row.line, row.written, row.verdict));
        }
    }
}

impl Drop for Verdicts {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.rows > 0, "no row of {}", self.kind);
            assert!(self.wrong.is_empty(), "{} of {}:\n{}", self.wrong.len(), self.kind, self.wrong.join("\n"));
        }
    }
}

#[test]
fn the_table_is_large_and_every_row_of_it_is_run() {
    let mut rows = BTreeSet::new();
    for row in table() {
        assert!(KINDS.contains(&row.kind), "line {}: nobody runs {:?}", row.line, row.kind);
        assert!(rows.insert((row.kind, row.written)), "line {} is there twice", row.line);
    }
    assert!(rows.len() >= 150, "{} rows", rows.len());
    let own = include_str!("hostile_inputs.rs");
    for kind in KINDS {
        assert!(own.contains(&format!("of(\"{kind}\")")), "no test runs the rows of {kind}");
    }
}

/// Makes a subscription in a transaction that is rolled back.
async fn subscribe(app: &Session, arguments: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<(), DbError> {
    app.run("begin").await;
    let made = app.query(&format!("select outbox.subscribe({arguments})"), parameters).await;
    app.run("rollback").await;
    made.map(drop).map_err(|error| error.as_db_error().unwrap_or_else(|| panic!("{error}")).clone())
}

#[tokio::test]
async fn a_url_is_judged_when_it_is_stored_and_again_by_the_relay() {
    let (mut verdicts, rows) = Verdicts::of("url");
    let db = Db::new().await;
    let app = db.session().await;
    for row in rows {
        let stored = subscribe(&app, "$1, '{a}'", &[&row.input]).await;
        let sent = check_url(&row.input, false);
        let got = format!("in SQL {:?}, in the relay {sent:?}", stored.as_ref().map_err(DbError::message));
        let is_right = match (row.verdict.split_once(": "), &stored, &sent) {
            (None, Ok(()), Ok(_)) => row.verdict == "accepted",
            (Some(("sql", words)), Err(error), Err(_)) => {
                error.code().code() == "OB010" && error.message().contains(words) && error.hint().is_some()
            }
            (Some(("relay", words)), Ok(()), Err(refusal)) => refusal.to_string().contains(words),
            _ => false,
        };
        verdicts.note(&row, is_right, &got);
        if let Ok(url) = sent {
            let uri: hyper::Uri = url.as_str().parse().expect("what is sent is a URI");
            assert_eq!(uri.host(), url.host_str(), "line {}: dialled and judged are the same host", row.line);
        }
    }
}

/// A host with none but public addresses of its own, as far as the table goes.
fn policy(allow: &[NetRule], deny: &[NetRule]) -> Policy {
    Policy::new(allow, deny, &[443]).expect("the interfaces can be listed")
}

fn judge(policy: &Policy, addr: SocketAddr) -> Result<(), String> {
    policy.judge(addr).map_err(|refusal| refusal.to_string())
}

#[test]
fn an_address_is_judged_whatever_its_form() {
    let (mut verdicts, rows) = Verdicts::of("address");
    let policy = policy(&[], &[]);
    for row in rows {
        let (addr, port) = row.input.split_once(' ').expect("address and port");
        let addr = SocketAddr::new(addr.parse().expect("an address"), port.parse().expect("a port"));
        verdicts.judge(&row, judge(&policy, addr).as_ref().map(|()| "").map_err(String::as_str));
    }
}

#[test]
fn a_rule_is_clear_or_refused() {
    let (mut verdicts, rows) = Verdicts::of("rule");
    for row in rows {
        let read = row.input.parse::<NetRule>().map(|rule| rule.to_string()).map_err(|error| error.to_string());
        verdicts.judge(&row, read.as_deref().map_err(String::as_str));
    }
}

#[test]
fn deny_goes_before_allow_and_allow_before_the_defaults() {
    let (mut verdicts, rows) = Verdicts::of("policy");
    for row in rows {
        let words: Vec<&str> = row.input.split(' ').collect();
        let rules = |list: &str| -> Vec<NetRule> {
            let of_list = words.chunks(2).filter(|pair| pair[0] == list);
            of_list.map(|pair| pair[1].parse().expect("a rule")).collect()
        };
        let addr = words.last().expect("an address").parse().expect("an address with its port");
        let judged = judge(&policy(&rules("allow"), &rules("deny")), addr);
        verdicts.judge(&row, judged.as_ref().map(|()| "").map_err(String::as_str));
    }
}

/// `accepted`, or SQLSTATE and words that the message must hold. A refusal never repeats what may be a secret.
fn note_sqlstate(verdicts: &mut Verdicts, row: &Row, result: &Result<(), DbError>) {
    let is_right = match (result, row.verdict.split_once(' ')) {
        (Ok(()), None) => row.verdict == "accepted",
        (Err(error), words) => {
            let (sqlstate, words) = words.unwrap_or((row.verdict, ""));
            assert!(!error.message().contains("hunter2"), "line {}: {error}", row.line);
            error.code().code() == sqlstate && error.message().contains(words) && error.hint().is_some()
        }
        (Ok(()), Some(_)) => false,
    };
    verdicts.note(row, is_right, &format!("{result:?}"));
}

#[tokio::test]
async fn a_static_header_frames_routes_and_proves_nothing() {
    let (mut verdicts, rows) = Verdicts::of("header");
    let db = Db::new().await;
    let app = db.session().await;
    for row in rows {
        let made =
            subscribe(&app, "'https://hooks.example.com', '{a}', headers => $1::text::jsonb", &[&row.input]).await;
        note_sqlstate(&mut verdicts, &row, &made);
        if made.is_ok() {
            let headers: BTreeMap<String, String> = serde_json::from_str(&row.input).expect("texts");
            for (name, value) in headers {
                assert!(HeaderName::try_from(&name).is_ok() && HeaderValue::try_from(value).is_ok(), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn the_signature_goes_into_a_header_of_its_own() {
    let (mut verdicts, rows) = Verdicts::of("signature-header");
    let db = Db::new().await;
    let app = db.session().await;
    for row in rows {
        let made = subscribe(&app, "'https://hooks.example.com', '{a}', signature_header => $1", &[&row.input]).await;
        note_sqlstate(&mut verdicts, &row, &made);
    }
}

#[tokio::test]
async fn a_secret_signs_or_is_refused_unrepeated() {
    let (mut verdicts, rows) = Verdicts::of("secret");
    let db = Db::new().await;
    let app = db.session().await;
    for row in rows {
        let (profile, secret) = row.input.split_once(' ').expect("profile and secret");
        let arguments = "'https://hooks.example.com', '{a}', signature => $1, secret => $2";
        let made = subscribe(&app, arguments, &[&profile, &secret]).await;
        note_sqlstate(&mut verdicts, &row, &made);
        if made.is_ok() {
            let profile = Profile::from_name(profile).expect("a profile");
            assert!(Key::new(profile, String::new(), secret, None).is_ok(), "line {}: it cannot sign", row.line);
        }
    }
}

#[tokio::test]
async fn a_filter_is_cheap_or_refused() {
    let (mut verdicts, rows) = Verdicts::of("filter");
    let db = Db::new().await;
    let app = db.session().await;
    for row in rows {
        let made = subscribe(&app, "'https://hooks.example.com', '{a}', filter => $1", &[&row.input]).await;
        note_sqlstate(&mut verdicts, &row, &made);
        // expand evaluates the filters of all tenants in one statement: one that raises would stop them all.
        if made.is_ok() {
            let payloads = r#"values ('{"a": "aaaaaaaaaaaaaaaaaaaaaaaab"}'), ('{"a": 0}'), ('[]'), ('null'), ('{"a": "1e999"}'), ('{"a": [{}]}')"#;
            let sql = format!(
                "select count(outbox_relay.matches('a', p::jsonb, '{{a}}', $1::text::jsonpath)) from ({payloads}) v (p)"
            );
            app.one_of::<i64>(&sql, &[&row.input]).await;
        }
    }
}

#[tokio::test]
async fn a_hostile_statement_has_its_sqlstate_and_no_effect() {
    let (mut verdicts, rows) = Verdicts::of("sql");
    let db = Db::new().await;
    let owner = db.session().await;
    owner.run("create role hostile in role outbox_operator, outbox_producer").await;
    let app = db.session_as("hostile").await;
    for row in rows {
        app.run("begin").await;
        let result = app.batch_execute(&row.input).await;
        app.run("rollback").await;
        let error = match &result {
            Ok(()) => None,
            Err(error) => Some(error.as_db_error().unwrap_or_else(|| panic!("line {}: {error}", row.line))),
        };
        let sqlstate = error.map_or("00000", |error| error.code().code());
        let has_hint = !sqlstate.starts_with("OB") || error.is_some_and(|error| error.hint().is_some());
        verdicts.note(&row, sqlstate == row.verdict && has_hint, &format!("{error:?}"));
    }
    owner.run("drop role hostile").await;
}

/// `outboxd check` reads the configuration first: 78 is a configuration that is refused, 1 that nobody answers at
/// the port where no database is.
async fn note_check(verdicts: &mut Verdicts, row: &Row, command: Outboxd) {
    let output = command.output().await;
    let said = format!("{}{}", output.printed, output.complained);
    assert!(!said.contains("hunter2"), "line {}: {said}", row.line);
    match output.code {
        Some(78) => verdicts.judge(row, Err(&said)),
        Some(1) => verdicts.judge(row, Ok("")),
        other => panic!("line {}: {other:?}: {said}", row.line),
    }
}

const NOBODY: &str = "postgres://relay@127.0.0.1:1/shop";

#[tokio::test]
async fn a_configuration_is_refused_without_its_values() {
    let (mut verdicts, rows) = Verdicts::of("config");
    for row in rows {
        let path = std::env::temp_dir().join(format!("outboxd-hostile-{}-{}.toml", std::process::id(), row.line));
        std::fs::write(&path, &row.input).expect("a file");
        let mut command = Outboxd::new(&["--config", path.to_str().expect("UTF-8"), "check"]);
        if !row.input.contains("[database]") {
            command = command.set("DATABASE_URL", NOBODY);
        }
        note_check(&mut verdicts, &row, command).await;
        std::fs::remove_file(&path).expect("it was there");
    }
}

#[tokio::test]
async fn a_variable_is_refused_without_its_value() {
    let (mut verdicts, rows) = Verdicts::of("variable");
    for row in rows {
        let (name, value) = row.input.split_once('=').expect("name and value");
        let command = Outboxd::new(&["check"]).set("DATABASE_URL", NOBODY).set(name, value);
        note_check(&mut verdicts, &row, command).await;
    }
}

#[tokio::test]
async fn a_request_to_the_seat_is_answered_or_refused_and_the_seat_stays() {
    let (mut verdicts, rows) = Verdicts::of("http");
    let db = Db::new().await;
    let seat = Seat::new(&db).await;
    for row in rows {
        let request = row.input.replace("{host}", &seat.address.to_string()).replace("{token}", &seat.operator);
        let mut stream = TcpStream::connect(seat.address).await.expect("it listens");
        let mut answer = Vec::new();
        // It may answer, and close, before everything was written.
        let _ = stream.write_all(request.as_bytes()).await;
        let head = async {
            let mut part = [0; 4096];
            while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut part).await {
                    Ok(read) if read > 0 => answer.extend_from_slice(&part[..read]),
                    _ => break,
                }
            }
        };
        tokio::time::timeout(PATIENCE, head).await.expect("it answers or closes");
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).unwrap_or("closed");
        verdicts.note(&row, status.starts_with(row.verdict), &answer);
        assert!(!answer.contains("hunter2"), "line {}: {answer}", row.line);
    }
    let made = seat.call("GET", "/webhooks", None).await.ok();
    assert_eq!(made["data"], serde_json::json!([]), "none of them made anything");
}

#[test]
fn a_receiver_gets_a_pause_of_a_week_at_most() {
    let (mut verdicts, rows) = Verdicts::of("retry-after");
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    for row in rows {
        let got = retry_after(&row.input, now).map_or("none".to_owned(), |pause| pause.as_secs().to_string());
        verdicts.note(&row, got == row.verdict, &got);
    }
}

#[test]
fn a_trace_goes_on_only_if_it_is_one() {
    let (mut verdicts, rows) = Verdicts::of("traceparent");
    for row in rows {
        let got = if TraceContext::parse(&row.input).is_some() { "accepted" } else { "none" };
        verdicts.note(&row, got == row.verdict, got);
    }
}
