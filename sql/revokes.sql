-- Nothing is for everybody. A file of its own, because it needs no role and must hold where grants.sql cannot run yet.

revoke all on schema outbox, outbox_relay, outbox_http from public;
revoke all on all tables in schema outbox, outbox_relay, outbox_http from public;
revoke all on all sequences in schema outbox, outbox_relay, outbox_http from public;
revoke all on all functions in schema outbox, outbox_relay, outbox_http from public;
