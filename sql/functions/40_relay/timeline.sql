create or replace function outbox_relay.timeline()
returns integer
language sql volatile
-- The timeline this server writes: it gets the next number when a standby is promoted, and at the end of a
-- point-in-time restore. Kept free of SET so that the planner inlines it. Called by register, expand, claim, tick; an
-- error on a standby, where none of them can be.
return ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer;
comment on function outbox_relay.timeline is 'The timeline this server writes.';
