create or replace function outbox.set(name text, value text)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Changes a setting after checking that its kind can read the value.
declare
    s outbox.setting;
begin
    perform outbox_relay.require_all_tenants();
    select * into s from outbox.setting t where t.name = "set".name for no key update;
    if not found then
        raise exception using errcode = 'OB030', message = format('there is no setting %s', quote_nullable("set".name)),
            hint = format('The settings are %s.', (select string_agg(t.name, ', ' order by t.name) from outbox.setting t));
    elsif s.name = 'environment' then
        raise exception using errcode = 'OB030', message = 'environment is not changed with outbox.set',
            hint = format('select outbox.adopt(%s);', quote_nullable("set".value));
    end if;
    begin
        if "set".value is null
            or s.kind = 'boolean' and "set".value::boolean is null
            or s.kind = 'integer' and "set".value::bigint not between s.minimum::bigint and s.maximum::bigint
            or s.kind = 'interval' and "set".value::interval not between s.minimum::interval and s.maximum::interval
            or s.kind = 'choice' and "set".value <> all (s.choices)
            or s.kind = 'retry_policy' and not exists (select from outbox.retry_policy p where p.name = "set".value) then
            raise invalid_parameter_value;
        end if;
    exception when others then
        raise exception using errcode = 'OB030', message = format('%s is not a value for the setting %s', quote_nullable("set".value), s.name),
            hint = format('It takes %s.', case s.kind
                when 'boolean' then 'true or false'
                when 'retry_policy' then 'the name of a row in outbox.retry_policy'
                when 'text' then 'a text'
                when 'choice' then array_to_string(s.choices, ' or ')
                else format('an %s from %s to %s', s.kind, s.minimum, s.maximum) end);
    end;
    update outbox.setting t set value = "set".value, updated_at = now(), updated_by = (outbox_relay.actor()).actor where t.name = s.name;
    perform outbox_relay.audit('set', detail => jsonb_build_object('name', s.name, 'from', s.value, 'to', "set".value));
    if s.name = 'max_payload_bytes' then
        perform outbox_relay.guard_event();
    end if;
    perform pg_notify('outbox_signal', 'control');
end
$$;
comment on function outbox.set is 'Changes a setting; a bad value is refused.';
