create or replace function outbox_relay.limit_of(name text)
returns integer
language sql stable set search_path = pg_catalog, pg_temp
as $$
-- A setting that is a number. Called by what refuses more than that.
select s.value::integer from outbox.setting s where s.name = limit_of.name
$$;
comment on function outbox_relay.limit_of is 'A setting that is a number.';
