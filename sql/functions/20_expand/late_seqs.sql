create or replace function outbox_relay.late_seqs(xacts xid8[], after_seq bigint, last_seq bigint, event_limit integer)
returns setof bigint
language plpgsql stable set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set plan_cache_mode = force_generic_plan
as $$
-- The positions of the events of some transactions, above after_seq and up to last_seq; in order for each transaction,
-- at most event_limit of each.
--
-- Compared as rows and asked for in the order of event_xact_idx, with sorting switched off: by the primary key it is
-- a walk over all that lies between, and with statistics from when xact had one value the planner prefers that for
-- "xact = …". The bounds of event_seq are there to leave out the segments beyond them.
-- Called by expand and try_filters, where transactions committed late.
begin
    return query
    select e.event_seq from unnest(late_seqs.xacts) l (xact) cross join lateral (
        select e.event_seq from outbox.event e
        where (e.xact, e.event_seq) > (l.xact, late_seqs.after_seq) and (e.xact, e.event_seq) <= (l.xact, late_seqs.last_seq)
          and e.event_seq > late_seqs.after_seq and e.event_seq <= late_seqs.last_seq
        order by e.xact, e.event_seq limit late_seqs.event_limit) e;
end
$$;
comment on function outbox_relay.late_seqs is 'The positions of events that committed late, read along event_xact_idx.';
