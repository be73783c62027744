//! Many subscriptions at once.
//!
//! `outbox.subscribe` takes about a millisecond, and counts all that the tenant has: thirty thousand would take minutes
//! that measure nothing. The first is made by it; the others are copies of every row that it wrote.

use super::BenchError;
use tokio_postgres::Client;

/// Subscriptions that differ in their tenant and in what they want.
pub(super) struct Crowd<'a> {
    pub(super) url: &'a str,
    /// So many tenants, called `PREFIX-1` and so on.
    pub(super) tenants: u64,
    pub(super) prefix: &'a str,
    /// So many subscriptions of each tenant.
    pub(super) each: u64,
    /// What all want.
    pub(super) event_type: &'a str,
    pub(super) filter: Option<&'a str>,
}

/// Every table in which a subscription has a row.
const TABLES: [&str; 5] = [
    "outbox.subscription",
    "outbox_relay.subscription_version",
    "outbox_relay.route",
    "outbox.signing_key",
    "outbox_relay.signing_secret",
];

impl Crowd<'_> {
    /// Makes them, in one transaction; whoever asks owns the schema.
    pub(super) async fn subscribe(&self, client: &mut Client) -> Result<(), BenchError> {
        let transaction = client.transaction().await?;
        let model: i64 = transaction
            .query_one(
                "select subscription_id from outbox.subscribe($1, array[$2], tenant_id => $3, filter => $4)",
                &[&self.url, &self.event_type, &format!("{}-1", self.prefix), &self.filter],
            )
            .await?
            .get(0);
        transaction.batch_execute("create temp table crowd (tenant_id text, changed jsonb) on commit drop").await?;
        // Of one tenant after the other, the first of all is the model.
        transaction
            .execute(
                "insert into crowd (tenant_id, changed)
                 select t.tenant_id, jsonb_build_object('tenant_id', t.tenant_id, 'name', format('crowd-%s', i),
                     'subscription_id', nextval(pg_get_serial_sequence('outbox.subscription', 'subscription_id')),
                     'version', nextval('outbox_relay.subscription_version_seq'))
                 from generate_series(1, $1::int8 * $2::int8 - 1) i,
                      lateral (select format('%s-%s', $3::text, i / $2 + 1) as tenant_id) t",
                &[&i64::try_from(self.tenants)?, &i64::try_from(self.each)?, &self.prefix],
            )
            .await?;
        transaction.batch_execute("alter table outbox.subscription disable trigger user").await?;
        for table in TABLES {
            transaction
                .execute(
                    &format!(
                        "insert into {table} overriding system value
                         select copy.* from {table} m, crowd, jsonb_populate_record(m, crowd.changed) copy
                         where m.subscription_id = $1"
                    ),
                    &[&model],
                )
                .await?;
        }
        transaction
            .batch_execute(
                "alter table outbox.subscription enable trigger user;
                 insert into outbox_relay.tenant_room (tenant_id) select distinct tenant_id from crowd on conflict do nothing",
            )
            .await?;
        transaction.commit().await?;
        client.batch_execute("vacuum analyze outbox.subscription, outbox_relay.subscription_version, outbox_relay.route, outbox.signing_key, outbox_relay.signing_secret").await?;
        Ok(())
    }
}
