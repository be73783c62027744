create or replace function outbox_http.find_event(tenant text, id uuid)
returns bigint
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
-- The position of the newest event with this id, if the token may see it.
declare
    seq bigint;
begin
    select e.event_seq into seq from outbox.event e
    where e.event_id = find_event.id and (find_event.tenant is null or e.tenant_id = find_event.tenant)
    order by e.event_seq desc limit 1;
    if not found then
        raise exception using errcode = 'OB021', message = format('there is no event %s', find_event.id),
            hint = 'It was not committed, or its segment was dropped (setting retention).';
    end if;
    return seq;
end
$$;
comment on function outbox_http.find_event is 'The position of an event, if the token may see it.';
