create or replace function outbox_relay.add_sample(
    epoch integer, seconds real, delivered bigint, failed bigint, first_delivered bigint, first_failed bigint,
    attempt_counts bigint[], commit_counts bigint[], asynchronous boolean)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Keeps what a relay did since its last sample. Called by the relay every few seconds in which it did something.
begin
    if asynchronous then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    insert into outbox_relay.sample (taken_at, epoch, seconds, delivered, failed, first_delivered, first_failed, attempt_counts, commit_counts)
    values (clock_timestamp(), add_sample.epoch, add_sample.seconds, add_sample.delivered, add_sample.failed,
        add_sample.first_delivered, add_sample.first_failed, add_sample.attempt_counts, add_sample.commit_counts);
end
$$;
comment on function outbox_relay.add_sample is 'Keeps what a relay did since its last sample.';
