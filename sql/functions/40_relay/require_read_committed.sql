create or replace function outbox_relay.require_read_committed()
returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
-- Raises unless each statement of this transaction sees what was committed before it. Whoever waits for a
-- lock and then reads with an older snapshot takes a stale cursor for the newest: under repeatable read,
-- events were expanded twice. Called by expand, claim, record and fence.
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception using errcode = 'OB041', message = 'the relay needs transactions that are read committed',
            hint = 'alter role … set default_transaction_isolation = ''read committed'', for the user outboxd logs in as.';
    end if;
end
$$;
comment on function outbox_relay.require_read_committed is 'Refuses a transaction with one snapshot for all its statements.';
