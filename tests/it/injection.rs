//! Every text argument of every function that somebody may call, with texts that want to be more.

use crate::support::Db;
use std::collections::BTreeSet;

/// What would show if a text became part of a statement, of a format, of a pattern or of a literal.
const TEXTS: [&str; 14] = [
    "'; select set_config('outbox.injected', 'yes', false); --",
    "' || set_config('outbox.injected', 'yes', false) || '",
    "') ; select set_config('outbox.injected', 'yes', false); --",
    "\"; select set_config('outbox.injected', 'yes', false); --",
    "$$; select set_config('outbox.injected', 'yes', false); --",
    "$sql$ || set_config('outbox.injected', 'yes', false) || $sql$",
    "\\'; select set_config('outbox.injected', 'yes', false); --",
    "%1$s %I %L %n %",
    "{\"a\", null, (1,2)}",
    "*.((((",
    "\\",
    "a\r\nb\u{202e}\u{1b}[2J",
    "",
    "-1",
];

/// How a call of the function passes `hostile` as its argument `nth` and something usual as the others it needs;
/// none if that argument is no text.
fn call(name: &str, arguments: &[(String, String, bool)], nth: usize, parameter: &str) -> Option<String> {
    let mut passed = Vec::new();
    for (n, (argument, kind, is_required)) in arguments.iter().enumerate() {
        let value = match (n == nth, kind.as_str(), argument.as_str()) {
            (true, "text", _) => format!("{parameter}::text"),
            (true, "text[]", _) => format!("array[{parameter}::text]"),
            (true, "jsonb", _) => {
                format!("jsonb_build_object('a', {parameter}::text, 'b', jsonb_build_array({parameter}::text))")
            }
            (true, ..) => return None,
            (false, ..) if !is_required => continue,
            (_, "text", "url") => "'https://hooks.example.com/'".to_owned(),
            (_, "text", "role") => "'viewer'".to_owned(),
            (_, "text", _) => "'a'".to_owned(),
            (_, "text[]", _) => "'{a}'".to_owned(),
            (_, "jsonb", _) => "'{}'".to_owned(),
            (_, "uuid", _) => "gen_random_uuid()".to_owned(),
            (_, kind, _) => format!("1::text::{kind}"),
        };
        passed.push(format!("{argument} => {value}"));
    }
    Some(format!("select {name}({})", passed.join(", ")))
}

#[tokio::test]
async fn no_text_becomes_part_of_a_statement() {
    let db = Db::new().await;
    let app = db.session().await;
    app.subscribe("a").await;
    // One that is as careless as can be has to be found, or nothing was looked for.
    app.run("create function outbox.careless(name text) returns void language plpgsql as $$begin execute 'select ''' || name || ''''; end$$").await;
    let functions = app
        .query(
            "select p.oid::regproc::text, coalesce(p.proargnames, '{}'), coalesce(p.proargmodes::text[], '{}'), p.proargtypes::regtype[]::text[], p.pronargdefaults::integer, p.prosrc
             from pg_proc p where p.pronamespace in ('outbox'::regnamespace, 'outbox_http'::regnamespace) and p.prokind = 'f' and p.prorettype <> 'trigger'::regtype",
            &[],
        )
        .await
        .expect("the functions");
    assert!(functions.len() > 60, "{}", functions.len());
    let mut statements = BTreeSet::new();
    for function in &functions {
        let (name, names, modes): (String, Vec<String>, Vec<String>) =
            (function.get(0), function.get(1), function.get(2));
        let (kinds, defaults, source): (Vec<String>, i32, &str) = (function.get(3), function.get(4), function.get(5));
        let names = names.into_iter().enumerate().filter(|(n, _)| modes.get(*n).is_none_or(|mode| mode == "i"));
        let required = kinds.len() - usize::try_from(defaults).expect("a count");
        let arguments: Vec<_> =
            names.zip(&kinds).enumerate().map(|(n, ((_, name), kind))| (name, kind.clone(), n < required)).collect();
        statements.extend((0..arguments.len()).filter_map(|nth| call(&name, &arguments, nth, "$1")));
        // What the HTTP API hands on: every key that the function looks up, above and in the body.
        if kinds == ["text", "jsonb"] {
            let words =
                source.split('\'').skip(1).step_by(2).filter(|word| {
                    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                });
            let pairs: Vec<String> =
                words.map(|word| format!("'{word}', $1::text")).collect::<BTreeSet<_>>().into_iter().collect();
            for pair in &pairs {
                statements.insert(format!("select {name}(null, jsonb_build_object({pair}, 'subscription_id', 1, 'delivery_id', '1-1', 'event_id', gen_random_uuid(), 'body', jsonb_build_object({pair})))"));
            }
        }
    }
    assert!(statements.len() > 150, "{}", statements.len());
    let mut wrong = Vec::new();
    for statement in &statements {
        for text in TEXTS {
            app.run("begin").await;
            let result = app.query(statement, &[&text]).await;
            let complaint = match &result {
                Ok(_) => app.one::<Option<String>>("select nullif(current_setting('outbox.injected', true), '')").await,
                Err(error) => {
                    let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error}"));
                    let code = error.code().code();
                    // Ours, data of a wrong form, constraints; anything else got further than it should.
                    (!["OB", "22", "23"].contains(&&code[..2])).then(|| format!("{code}: {}", error.message()))
                }
            };
            app.run("rollback").await;
            wrong.extend(complaint.map(|complaint| format!("{statement} with {text:?}: {complaint}")));
        }
    }
    let found = wrong.len();
    wrong.retain(|line| !line.starts_with("select outbox.careless("));
    assert!(found - wrong.len() >= 3, "the careless one was found {} times", found - wrong.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), statements.len(), wrong.join("\n"));
}
