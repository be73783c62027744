//! `[secrets]`, and what the configuration shows of secrets.

use super::*;

#[test]
fn sealing_keys_come_as_they_are_or_from_files() {
    use crate::secrets::SealingKey;
    let texts: Vec<String> =
        (0..4).map(|_| SealingKey::generate().expect("random").encode().expose().to_owned()).collect();
    let ids: Vec<String> = texts.iter().map(|text| SealingKey::parse(text).expect("a key").id().to_owned()).collect();
    let old = TempFile::new("old-key", &format!("{}\n", texts[2]));
    let file = TempFile::new(
        "secrets.toml",
        &format!(
            "[secrets]\nkey = \"{}\"\nold_keys = [\"{}\"]\nold_key_files = [\"{}\"]\ndirectory = \"/run/secrets\"\n",
            texts[0],
            texts[1],
            old.path()
        ),
    );
    let config = load(Some(&file), &with_database(&[])).expect("valid");
    let keyring = &config.secrets.keyring;
    assert_eq!(keyring.current().map(SealingKey::id), Some(ids[0].as_str()));
    assert!(ids[..3].iter().all(|id| keyring.has(id)) && !keyring.has(&ids[3]));
    let shown = format!("{config:?}");
    assert!(texts.iter().all(|text| !shown.contains(text.as_str())) && shown.contains(&ids[0]), "{shown}");

    let key_file = TempFile::new("key", &format!("{}\n", texts[3]));
    let path = key_file.path();
    let config = load(None, &with_database(&[("OUTBOXD_SECRETS__KEY_FILE", &path)])).expect("valid");
    assert_eq!(config.secrets.keyring.current().map(SealingKey::id), Some(ids[3].as_str()));
    assert!(load(None, &with_database(&[])).expect("valid").secrets.keyring.current().is_none());
}

#[test]
fn a_sealing_key_that_is_none_is_refused_without_being_repeated() {
    let zeros = "00".repeat(32);
    let key = crate::secrets::SealingKey::generate().expect("random").encode();
    for (variables, expected_key, expected) in [
        (vec![("OUTBOXD_SECRETS__KEY", "hunter2")], "secrets.key", "expected 32 bytes"),
        (vec![("OUTBOXD_SECRETS__KEY", zeros.as_str())], "secrets.key", "all its bytes are the same"),
        (vec![("OUTBOXD_SECRETS__OLD_KEYS", "[\"hunter2\"]")], "secrets.old_keys", "entry 1: expected 32 bytes"),
        (vec![("OUTBOXD_SECRETS__OLD_KEY_FILES", "[\"/nowhere\"]")], "secrets.old_key_files", "cannot be read"),
        (vec![("OUTBOXD_SECRETS__DIRECTORY", "hunter2")], "secrets.directory", "absolute"),
        (vec![("OUTBOXD_SECRETS__ENV_PREFIX", "hunter2")], "secrets.env_prefix", "capital letters"),
        (vec![("OUTBOXD_SECRETS__ENV_PREFIX", "OUTBOXD_")], "secrets.env_prefix", "configured with"),
        (vec![("OUTBOXD_SECRETS__ENV_PREFIX", "DATABASE_")], "secrets.env_prefix", "configured with"),
        (
            vec![("OUTBOXD_SECRETS__KEY", key.expose()), ("OUTBOXD_SECRETS__KEY_FILE", "/x")],
            "secrets.key",
            "set one of them",
        ),
    ] {
        let problems = refused(None, &with_database(&variables));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].key.as_deref(), Some(expected_key));
        assert!(problems[0].message.contains(expected), "{}", problems[0]);
        assert!(!format!("{problems:?}").contains(key.expose()));
    }
    let old = format!("[\"{}\"]", key.expose());
    let problems = refused(None, &with_database(&[("OUTBOXD_SECRETS__OLD_KEYS", &old)]));
    assert!(problems[0].message.contains("name the one that seals"), "{problems:?}");
}

#[test]
fn a_variable_that_a_reference_may_name_is_no_key() {
    let variables = [("OUTBOXD_SECRET_ORDERS", "hunter2"), ("OUTBOXD_SECRET_A__B", "hunter2")];
    load(None, &with_database(&variables)).expect("they are left alone");
}

#[test]
fn debug_of_the_configuration_shows_no_secret_no_header_and_no_url() {
    let block = "[[subscription]]\nname = \"a\"\nurl = \"https://a.example.com/?token=hunter2\"\nevent_types = [\"*\"]\nsecret = \"hunter2hunter2hunter2\"\nheaders = { Authorization = \"Bearer hunter2\" }\n";
    let file = TempFile::new("debug.toml", block);
    let config = load(Some(&file), &with_database(&[])).expect("valid");
    assert_eq!(given(&config.subscriptions[0]), "hunter2hunter2hunter2");
    let shown = format!("{config:?} {config:#?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("\"a\""), "{shown}");
}
