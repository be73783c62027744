//! The rules that are written twice, in SQL and in Rust, on inputs that nobody chose: neither takes what the other
//! would choke on. `PROPTEST_CASES` says how many.

use crate::support::{Db, Session};
use hyper::header::{HeaderName, HeaderValue};
use outboxd::egress::check_url;
use outboxd::sign::{Key, Profile};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// What a strategy makes: as many as `PROPTEST_CASES` says, 256 unless it is set.
fn samples<T>(strategy: impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = TestRunner::default();
    let cases = runner.config().cases;
    (0..cases).map(|_| strategy.new_tree(&mut runner).expect("a value").current()).collect()
}

/// One column for each of the texts, in their order; in pieces that a statement holds.
async fn asked<T: tokio_postgres::types::FromSqlOwned>(app: &Session, expression: &str, texts: &[String]) -> Vec<T> {
    let sql = format!("select {expression} from unnest($1::text[]) with ordinality u (t, n) order by n");
    let mut answers = Vec::with_capacity(texts.len());
    for piece in texts.chunks(2000) {
        let rows = app.query(&sql, &[&piece]).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        answers.extend(rows.iter().map(|row| row.get::<_, T>(0)));
    }
    answers
}

/// A function that says whether a statement is refused, and with which SQLSTATE.
async fn judge(app: &Session) {
    app.run(
        "create function public.refused(statement text, argument text, other text default null) returns text language plpgsql as
         $$begin execute statement using argument, other; return null; exception when others then return sqlstate || ' ' || sqlerrm; end$$",
    )
    .await;
}

#[tokio::test]
async fn what_the_relay_would_send_to_can_be_stored_and_what_is_stored_is_refused_for_two_reasons_at_most() {
    let db = Db::new().await;
    let app = db.session().await;
    let host = prop_oneof![
        3 => "[a-zA-Z0-9_-]{1,12}(\\.[a-zA-Z0-9_-]{1,12}){0,3}\\.?",
        3 => "(0x[0-9a-fA-F]{0,4}|[0-9]{1,4})(\\.(0x[0-9a-f]{0,3}|[0-9]{1,4})){0,4}\\.?",
        2 => "\\[[0-9a-fA-F:.%]{1,24}\\]",
        2 => "(xn--)?[a-z0-9ü１。．\u{ad}ßK-]{1,8}\\.[a-z]{2,3}",
        1 => "[ -~]{0,12}",
        1 => "\\PC{0,6}",
    ];
    let urls = samples((
        prop_oneof![8 => Just("https://"), 1 => Just("http://"), 1 => "[a-zA-Z]{0,5}:?/{0,3}".prop_map(|_| "//")],
        host,
        prop_oneof![4 => Just(String::new()), 2 => "(:[0-9]{0,6})?", 1 => ":[ -~]{0,4}"],
        prop_oneof![2 => Just(String::new()), 2 => "[/?][!-~]{0,20}", 1 => "[/?]\\PC{0,6}"],
    ));
    let urls: Vec<String> =
        urls.into_iter().map(|(scheme, host, port, path)| format!("{scheme}{host}{port}{path}")).collect();
    let refusals: Vec<Option<String>> = asked(&app, "outbox_relay.url_refusal(t, false)", &urls).await;
    let mut taken = 0;
    for (url, refusal) in urls.iter().zip(refusals) {
        match (check_url(url, false), refusal) {
            (Ok(_), None) => taken += 1,
            (Ok(_), Some(reason)) => panic!("the relay takes {url:?}, and SQL says that it {reason}"),
            // SQL reads no IPv6 and knows no IDNA; the relay refuses those when it would send.
            (Err(refusal), None) => assert!(
                url.contains("://[") || !url.is_ascii() || url.to_ascii_lowercase().contains("xn--"),
                "SQL takes {url:?}, and the relay says: {refusal}"
            ),
            (Err(_), Some(_)) => {}
        }
    }
    assert!(taken * 20 > urls.len(), "of {} only {taken} were taken", urls.len());
}

#[tokio::test]
async fn a_header_that_is_stored_can_be_sent_and_frames_nothing() {
    let db = Db::new().await;
    let app = db.session().await;
    judge(&app).await;
    let pairs = samples((
        prop_oneof![
            "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}",
            "(X-|x_)?[A-Za-z]{1,8}([-_][A-Za-z]{1,6}){0,2}",
            proptest::sample::select(
                &[
                    "host",
                    "Host",
                    "content-length",
                    "Transfer-Encoding",
                    "transfer_encoding",
                    "te",
                    "connection",
                    "Upgrade",
                    "EXPECT",
                    "cookie"
                ][..]
            )
            .prop_map(str::to_owned),
            "[ -~]{0,8}",
            "\\PC{0,6}",
        ],
        prop_oneof!["[ -~\t]{0,20}", "[!-~]{0,20}", "[ -~]{0,4}[\r\n\u{1}\u{7f}\u{e9}]{0,1}[ -~]{0,4}"],
    ));
    let documents: Vec<String> =
        pairs.iter().map(|(name, value)| serde_json::json!({ name: value }).to_string()).collect();
    let check = "public.refused('select outbox_relay.check_headers($1::jsonb, null)', t)";
    let refusals: Vec<Option<String>> = asked(&app, check, &documents).await;
    let mut taken = 0;
    for ((name, value), refusal) in pairs.iter().zip(refusals) {
        match refusal {
            Some(refusal) => assert!(refusal.starts_with("OB016 "), "{name:?}: {value:?}: {refusal}"),
            None => {
                taken += 1;
                let sent = HeaderName::try_from(name).expect("a name").to_string().replace('_', "-");
                let read = HeaderValue::try_from(value).expect("a value");
                assert_eq!(read.to_str().expect("ASCII"), value);
                let framing = [
                    "host",
                    "content-length",
                    "transfer-encoding",
                    "te",
                    "trailer",
                    "connection",
                    "upgrade",
                    "expect",
                    "cookie",
                    "authorization",
                ];
                assert!(!framing.contains(&sent.as_str()), "{name}");
            }
        }
    }
    assert!(taken * 20 > pairs.len(), "of {} only {taken} were taken", pairs.len());
}

#[tokio::test]
async fn a_secret_that_is_stored_signs() {
    let db = Db::new().await;
    let app = db.session().await;
    judge(&app).await;
    for (name, usual) in [("standard", "whsec_"), ("standard-ed25519", "whsk_"), ("x-signature", ""), ("stripe", "")] {
        let profile = Profile::from_name(name).expect("a profile");
        let secrets: Vec<String> = samples(prop_oneof![
            "[A-Za-z0-9+/]{40,44}={0,2}".prop_map(move |text| format!("{usual}{text}")),
            proptest::collection::vec(any::<u8>(), 16..70).prop_map(move |bytes| {
                use base64::Engine as _;
                format!("{usual}{}", base64::engine::general_purpose::STANDARD.encode(bytes))
            }),
            "(whsec_|whsk_|whpk_|v1,)?[ -~]{0,40}",
            "[!-~]{0,20}[\u{e9}\t\n\"' ]?[!-~]{0,20}",
        ]);
        let check = format!("public.refused('select outbox_relay.check_secret($2, $1)', t, '{name}')");
        let refusals: Vec<Option<String>> = asked(&app, &check, &secrets).await;
        let mut taken = 0;
        for (secret, refusal) in secrets.iter().zip(refusals) {
            match refusal {
                Some(refusal) => {
                    assert!(refusal.starts_with("OB015 "), "{refusal}");
                    assert!(secret.len() < 8 || !refusal.contains(secret), "a refusal repeats the secret: {refusal}");
                }
                None => {
                    taken += 1;
                    assert!(Key::new(profile, String::new(), secret, None).is_ok(), "{name} cannot sign with {secret}");
                }
            }
        }
        assert!(taken > 0, "{name}");
    }
}

#[tokio::test]
async fn a_cursor_is_two_numbers_or_refused() {
    let db = Db::new().await;
    let app = db.session().await;
    judge(&app).await;
    let cursors: Vec<String> = samples(prop_oneof![
        "[0-9]{1,20}(-[0-9]{1,20}){0,2}",
        "[-+0-9 .eE]{0,12}",
        "\\PC{0,8}",
        "[0-9]{1,3}-[0-9]{1,3}\n?"
    ]);
    for parts in [1, 2] {
        let check = format!("public.refused('select outbox_http.position_of($1, {parts})', t)");
        let refusals: Vec<Option<String>> = asked(&app, &check, &cursors).await;
        for (cursor, refusal) in cursors.iter().zip(refusals) {
            let numbers: Vec<&str> = cursor.split('-').collect();
            let is_one = numbers.len() == parts
                && numbers
                    .iter()
                    .all(|number| (1..=18).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit()));
            match refusal {
                None => assert!(is_one, "{cursor:?} was taken as {parts}"),
                Some(refusal) => assert!(!is_one && refusal.starts_with("OB060 "), "{cursor:?}: {refusal}"),
            }
        }
    }
}

/// expand evaluates the filters of all tenants in one statement: one that raises would stop them all.
#[tokio::test]
async fn a_filter_that_is_stored_never_raises() {
    let db = Db::new().await;
    let app = db.session().await;
    judge(&app).await;
    let path = "\\$(\\.[a-c]|\\.\"[a-c ]\"|\\[(\\*|[0-9]{1,11}|last|[0-9] to [0-9])\\]|\\.\\*|\\.(size|type|double|abs|floor|keyvalue|ceiling)\\(\\)){0,3}";
    let literal = "(-?[0-9]{1,4}(\\.[0-9])?|1e[0-9]{1,3}|\"[a-c]{0,3}\"|null|true)";
    let operator = proptest::sample::select(
        &["==", "!=", "<", ">", "<=", ">=", "+", "-", "*", "/", "%", "&&", "||", "starts with", "like_regex"][..],
    );
    let predicate =
        (path, operator, literal).prop_map(|(path, operator, literal)| format!("{path} {operator} {literal}"));
    let filters: Vec<String> = samples(prop_oneof![
        4 => predicate.clone(),
        2 => (path, predicate.clone()).prop_map(|(path, predicate)| format!("{path} ? ({})", predicate.replacen('$', "@", 1))),
        1 => (predicate.clone(), predicate.clone()).prop_map(|(one, other)| format!("({one}) && !({other})")),
        1 => predicate.prop_map(|predicate| format!("strict {predicate}")),
        1 => "[ -~]{0,20}",
    ]);
    let subscribe =
        "public.refused('select outbox.subscribe(''https://hooks.example.com/'', ''{a}'', filter => $1)', t)";
    let refusals: Vec<Option<String>> = asked(&app, subscribe, &filters).await;
    let taken: Vec<String> = filters
        .iter()
        .zip(&refusals)
        .filter(|(_, refusal)| refusal.is_none())
        .map(|(filter, _)| filter.clone())
        .collect();
    for (filter, refusal) in filters.iter().zip(&refusals) {
        assert!(refusal.as_ref().is_none_or(|refusal| refusal.starts_with("OB012 ")), "{filter}: {refusal:?}");
    }
    assert!(taken.len() * 10 > filters.len(), "of {} only {} were taken", filters.len(), taken.len());
    for payload in [
        r#"{"a": [1, {"b": "c"}, null], "b": 0, "c": "1e400"}"#,
        "[[], {}, 0, \"a\"]",
        "null",
        r#"{"a": {"a": {"a": 1e300}}}"#,
    ] {
        let matches = format!(
            "public.refused('select outbox_relay.matches(''a'', $2::jsonb, ''{{a}}'', $1::jsonpath)', t, '{payload}')"
        );
        let raised: Vec<Option<String>> = asked(&app, &matches, &taken).await;
        for (filter, raised) in taken.iter().zip(raised) {
            assert_eq!(raised, None, "{filter} over {payload}");
        }
    }
}

#[tokio::test]
async fn a_setting_takes_what_its_kind_can_read_and_nothing_else() {
    let db = Db::new().await;
    let app = db.session().await;
    judge(&app).await;
    let names: Vec<String> = app.all("select name from outbox.setting where kind <> 'text' order by name").await;
    let values: Vec<String> = samples(prop_oneof![
        "-?[0-9]{1,20}",
        "-?[0-9]{1,5} (second|minute|hour|day|year|mon)s?",
        "true|false|on|off|standard|none|infinity|NaN|null|1e9|0x10",
        "[ -~]{0,12}",
        "\\PC{0,6}",
    ]);
    // Each takes locks and leaves a row in the audit: a few of them for each setting.
    for (n, name) in names.iter().enumerate() {
        let some: Vec<String> = values.iter().skip(n).step_by(names.len()).take(200).cloned().collect();
        let check = format!("public.refused('select outbox.set($2, $1)', t, '{name}')");
        let refusals: Vec<Option<String>> = asked(&app, &check, &some).await;
        for (value, refusal) in some.iter().zip(refusals) {
            assert!(
                refusal.as_ref().is_none_or(|refusal| refusal.starts_with("OB030 ")),
                "{name} = {value:?}: {refusal:?}"
            );
        }
    }
    // Whatever they are now can be read.
    app.run("select * from outbox.status()").await;
    app.insert("a", "{}").await;
}
