create or replace function outbox_relay.was_moved()
returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
-- Whether this database came from another cluster by a logical restore: the cluster is another one, or the
-- cursor knows transaction ids that have not been given out yet. Called by judge_environment and adopt.
select o.system_identifier <> p.system_identifier or pg_snapshot_xmax(k.seen) > pg_snapshot_xmax(pg_current_snapshot())
from outbox_relay.origin o, pg_control_system() p,
     lateral (select seen from outbox_relay.cursor order by cursor_id desc limit 1) k
$$;
comment on function outbox_relay.was_moved is 'Whether transaction ids began again since the cursor was written.';
