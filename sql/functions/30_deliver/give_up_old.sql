create or replace function outbox_relay.give_up_old(subscription_id bigint, event_seq bigint)
returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Gives up a delivery that was created longer ago than its retry policy's max_age; false if it was to wait until
-- later. What an operator's open transaction holds is left for a second: a claim waits for nobody.
-- Called by claim, which has locked the delivery's row. Writes queue and finished.
declare
    before_lock constant text := current_setting('lock_timeout');
begin
    -- What was to wait is as old as the end of that wait.
    if exists (
        select from outbox.event e, outbox.subscription s, outbox.retry_policy p
        where e.event_seq = give_up_old.event_seq and s.subscription_id = give_up_old.subscription_id
          and p.name = s.retry_policy and e.deliver_at >= now() - p.max_age) then
        return false;
    end if;
    begin
        perform set_config('lock_timeout', '20ms', true);
        perform outbox_relay.give_up(give_up_old.subscription_id, give_up_old.event_seq, 'it waited longer than the max_age of the retry policy');
        -- For this alone: what follows in the claim may wait, say while maintain drops a segment.
        perform set_config('lock_timeout', before_lock, true);
    exception when lock_not_available then
        update outbox_relay.queue q set next_attempt_at = now() + interval '1 second'
        where q.subscription_id = give_up_old.subscription_id and q.event_seq = give_up_old.event_seq;
    end;
    return true;
end
$$;
comment on function outbox_relay.give_up_old is 'Ends an outstanding delivery that has waited too long.';
