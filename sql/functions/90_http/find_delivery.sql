create or replace function outbox_http.find_delivery(tenant text, id text)
returns outbox.delivery
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
-- The delivery with this id (subscription_id-event_seq), if the token may see it.
declare
    d outbox.delivery;
begin
    select * into d from outbox.delivery v
    where v.subscription_id = split_part(find_delivery.id, '-', 1)::bigint and v.event_seq = split_part(find_delivery.id, '-', 2)::bigint
      and (find_delivery.tenant is null or v.tenant_id = find_delivery.tenant);
    if not found then
        raise exception using errcode = 'OB021', message = format('there is no delivery %s', find_delivery.id),
            hint = 'GET /deliveries lists those that this token may see; GET /events/{id}/explain says why there is none.';
    end if;
    return d;
end
$$;
comment on function outbox_http.find_delivery is 'The delivery with this id, if the token may see it.';
