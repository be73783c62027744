create or replace function outbox_relay.check_window(since timestamptz, until timestamptz)
returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
-- Refuses a window that ends before it begins. Called by replay_failed and replay_missing.
begin
    if since >= until then
        raise exception using errcode = 'OB018', message = format('the window from %s until %s is empty', since, until),
            hint = 'since is inclusive, until exclusive; leave either out for no bound.';
    end if;
end
$$;
comment on function outbox_relay.check_window is 'Refuses a window that ends before it begins.';
