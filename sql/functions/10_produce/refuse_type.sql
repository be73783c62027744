create or replace function outbox_relay.refuse_type() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Refuses events whose type is not in the catalog, or archived.
--
-- One look-up a statement, over the distinct types it inserted. The trigger is made by the first
-- outbox.define_event_type, because its transition table costs every insert a copy: while the catalog
-- is empty there is no trigger. Types of outboxd itself (outbox.…) are always accepted.
declare
    refused text;
begin
    select i.type into refused
    from (select distinct type from inserted) i
    where i.type not like 'outbox.%'
      and not exists (select from outbox.event_type t where t.type = i.type and t.archived_at is null)
    order by i.type limit 1;
    if found then
        raise exception using errcode = 'OB004',
            message = format('event type %s is %s', quote_literal(refused),
                case when exists (select from outbox.event_type t where t.type = refused) then 'archived' else 'not in the catalog' end),
            hint = format('Define it first: select outbox.define_event_type(%s);', quote_literal(refused));
    end if;
    return null;
end
$$;
comment on function outbox_relay.refuse_type is 'Trigger: the catalog, fail closed.';
