create or replace function outbox.publish(
    type text, payload jsonb, tenant_id text default 'default', event_id uuid default null,
    ordering_key text default null, occurred_at timestamptz default null, deliver_at timestamptz default null,
    priority smallint default 0, metadata jsonb default null, idempotency_key text default null)
returns uuid
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Inserts one event in the caller's transaction and returns its public id.
--
-- With an idempotency key that the tenant has used before, inserts nothing and returns the first
-- event's id. Two transactions that use one key at once: the second waits for the first to end.
-- Called by applications; a plain insert into outbox.event is equally good.
declare
    first_id uuid;
begin
    if publish.type is null then
        raise exception using errcode = 'OB001', message = 'event type is null', hint = 'Name what happened, as order.created.';
    elsif publish.payload is null then
        raise exception using errcode = 'OB005', message = 'payload is null',
            hint = 'Pass a JSON value; for an event without content that is {} or the JSON null.';
    end if;
    if jsonb_typeof(publish.metadata) <> 'object' then
        raise exception using errcode = 'OB005', message = format('metadata is a JSON %s, not an object', jsonb_typeof(publish.metadata)),
            hint = 'Pass an object, as {"traceparent": "00-…"}.';
    elsif octet_length(publish.ordering_key) > 255 then
        raise exception using errcode = 'OB005', message = 'ordering_key is longer than 255 bytes',
            hint = 'Use the identifier of what must stay in order, as an order number.';
    elsif octet_length(publish.metadata::text) > outbox_relay.limit_of('max_metadata_bytes') then
        raise exception using errcode = 'OB005',
            message = format('metadata of %s bytes is over the limit of %s (setting max_metadata_bytes)', octet_length(publish.metadata::text),
                outbox_relay.limit_of('max_metadata_bytes')),
            hint = 'Metadata is for what travels with an event, as traceparent; put content into the payload.';
    end if;
    publish.tenant_id := coalesce(publish.tenant_id, 'default');
    -- Asked here first, because two calls would add an eighth to the cost of a publish where nobody is bound.
    if exists (select from outbox_relay.role_tenant) or current_setting('outbox.tenant', true) <> '' then
        perform outbox_relay.require_tenant(publish.tenant_id);
    end if;
    publish.event_id := coalesce(publish.event_id,
        -- the default of outbox.event.event_id
        encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
            placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
            from 1 for 6), 52, 1), 53, 1), 'hex')::uuid);
    if publish.idempotency_key is not null then
        if octet_length(publish.idempotency_key) not between 1 and 255 then
            raise exception using errcode = 'OB006', message = 'idempotency_key is empty or longer than 255 bytes',
                hint = 'Use a short key that is the same whenever the same thing is published, as an order number.';
        end if;
        insert into outbox_relay.idempotency_key as k (tenant_id, key, event_id)
        values (publish.tenant_id, publish.idempotency_key, publish.event_id)
        on conflict do nothing;
        if not found then
            select k.event_id into strict first_id from outbox_relay.idempotency_key k
            where k.tenant_id = publish.tenant_id and k.key = publish.idempotency_key;
            return first_id;
        end if;
    end if;
    insert into outbox.event (event_id, tenant_id, type, payload, occurred_at, ordering_key, priority, deliver_at, metadata)
    values (publish.event_id, publish.tenant_id, publish.type, publish.payload, coalesce(publish.occurred_at, now()),
            publish.ordering_key, coalesce(publish.priority, 0::smallint), publish.deliver_at, publish.metadata);
    return publish.event_id;
end
$$;
comment on function outbox.publish is 'Inserts an event in the caller''s transaction; an idempotency_key the tenant has used before returns the first event''s id and inserts nothing.';
