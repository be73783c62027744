//! What applications' own tests ask: what has this transaction published?

use crate::support::{Db, Session};

async fn stage() -> (Db, Session) {
    let db = Db::new().await;
    let app = db.session_as("outbox_producer").await;
    (db, app)
}

#[tokio::test]
async fn a_transaction_sees_what_it_has_published_and_nobody_else_does() {
    let (db, app) = stage().await;
    app.run("insert into outbox.event (type, payload) values ('order.created', '{}')").await;
    app.run("begin").await;
    assert_eq!(app.one::<i64>("select count(*) from outbox.published()").await, 0, "of an earlier transaction");
    app.run(
        "select outbox.publish('order.created', '{\"total\": 12.50}', ordering_key => 'o-1', priority => 3::smallint);
         insert into outbox.event (type, tenant_id, payload) values ('order.paid', 't', '{\"total\": 7}');
         savepoint s;
         insert into outbox.event (type, payload) values ('order.lost', '{}');
         rollback to s;
         savepoint s;
         insert into outbox.event (type, payload) values ('invoice.sent', '{}');
         release s",
    )
    .await;
    let types: Vec<String> = app.all("select type from outbox.published()").await;
    assert_eq!(types, ["order.created", "order.paid", "invoice.sent"]);
    for (arguments, count) in [
        ("'order.*'", 2),
        ("'*'", 3),
        ("'order.created'", 1),
        ("'order.*', tenant_id => 't'", 1),
        ("'order.*', match => '$.total > 10'", 1),
        ("match => '$.total'", 2),
        ("'order.*', match => '$.missing == 1'", 0),
    ] {
        assert_eq!(
            app.one::<i64>(&format!("select count(*) from outbox.published({arguments})")).await,
            count,
            "{arguments}"
        );
    }
    let row: String = app
        .one("select concat_ws(' ', tenant_id, payload, ordering_key, priority) from outbox.published('order.created')")
        .await;
    assert_eq!(row, r#"default {"total": 12.50} o-1 3"#);
    let other = db.session().await;
    assert_eq!(other.one::<i64>("select count(*) from outbox.published()").await, 0);
    app.run("rollback").await;
    assert_eq!(app.one::<i64>("select count(*) from outbox.published()").await, 0);
}

#[tokio::test]
async fn an_assertion_holds_or_says_what_was_published_instead() {
    let (_db, app) = stage().await;
    app.run("begin; select outbox.publish('order.created', '{\"total\": 4711}'), outbox.publish('order.paid', '{}')")
        .await;
    for (arguments, found) in [
        ("'order.created'", 1),
        ("'order.*'", 2),
        ("'order.*', count => 2", 2),
        ("'invoice.sent', count => 0", 0),
        ("'order.created', match => '$.total == 4711', count => 1", 1),
    ] {
        assert_eq!(app.one::<i64>(&format!("select outbox.assert_published({arguments})")).await, found, "{arguments}");
    }
    for (arguments, says) in [
        ("'order.created', count => 2", "1 order.created was published, expected 2"),
        ("'invoice.sent'", "0 invoice.sent were published, expected at least one"),
        ("'order.created', count => 0", "expected 0"),
        ("'order.created', match => '$.total == 1'", "(1 of any payload), expected at least one"),
    ] {
        app.run("savepoint s").await;
        let error = app.refused(&format!("select outbox.assert_published({arguments})"), "OB050").await;
        assert!(error.message().contains(says), "{}", error.message());
        assert!(error.detail().is_some_and(|detail| detail.contains("1 x order.created, 1 x order.paid")), "{error:?}");
        assert!(!error.detail().is_some_and(|detail| detail.contains("4711")), "{error:?}");
        app.run("rollback to s").await;
    }
    app.run("rollback").await;
    let error = app.refused("select outbox.assert_published('order.created')", "OB050").await;
    assert!(error.detail().is_some_and(|detail| detail.contains("nothing")), "{error:?}");
}

#[tokio::test]
async fn copied_rows_count_too_and_tests_of_an_endpoint_do_not() {
    let (db, _) = stage().await;
    let app = db.session().await;
    let subscription = app.subscribe("*").await;
    app.run(&format!("begin; select outbox.send_test({subscription})")).await;
    let path = std::env::temp_dir().join(format!("outboxd-copy-{}", std::process::id()));
    std::fs::write(&path, "a.b\t{}\na.c\t{\"n\": 1}\n").expect("written");
    app.run(&format!("copy outbox.event (type, payload) from '{}'", path.display())).await;
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(app.all::<String>("select type from outbox.published()").await, ["a.b", "a.c"]);
    app.run("rollback").await;
}
