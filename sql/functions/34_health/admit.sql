create or replace function outbox_relay.admit(
    subscription_id bigint, wanted integer, out room integer, out retry_room integer, out held_until timestamptz)
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off
as $$
-- How many deliveries a subscription with a rate limit, or with a circuit that is not closed, may be given
-- now: room of any kind, retry_room of those that were attempted before, together at most wanted; and when to ask
-- again, if it could be more then.
--
-- The rate is counted by all relays together, in outbox_relay.pace: spent_until moves by 1/rate for each
-- delivery leased (GCRA, a token bucket in one number). It may lie back by the time of one delivery and a
-- tenth of a second: that is the burst, and what a relay that comes a little late does not lose.
--
-- A circuit that is open holds back what was never attempted. Retries keep to their schedule, which is
-- promised, and are as good as probes; where none is due and the circuit's time has come, one delivery is
-- let in: the probe. (Holding back retries too was tried: with an endpoint that stays down, schedules did
-- not come to their end for days.)
--
-- Both rows stay locked until the claim commits; one that another claim has locked gives nothing for a moment.
-- Called by claim, which then tells charge what it took.
#variable_conflict use_variable
declare
    tokens bigint;
    rate   numeric;
    h      outbox.subscription_health;
    retry  timestamptz;
    moment constant interval := '20 milliseconds';
begin
    room := wanted;
    retry_room := 0;
    select c.* into h from outbox.subscription_health c where c.subscription_id = subscription_id and c.circuit <> 'closed';
    if found then
        room := 0;
        select q.next_attempt_at into retry from outbox_relay.queue q
        where q.subscription_id = subscription_id and q.state = 'failed' order by q.next_attempt_at limit 1;
        held_until := least(h.circuit_until, retry);
        if retry <= now() then
            retry_room := wanted;
        elsif h.circuit_until <= now() then
            held_until := now() + moment;
            perform from outbox.subscription_health c
            where c.subscription_id = subscription_id and c.circuit <> 'closed' and c.circuit_until <= now() for no key update skip locked;
            room := found::integer;
        end if;
    end if;
    select s.rate_limit into rate from outbox.subscription s where s.subscription_id = subscription_id;
    if room + retry_room > 0 and rate is not null then
        select floor(0.001 + extract(epoch from now() - greatest(p.spent_until, now() - outbox_relay.burst(rate))) * rate),
               p.spent_until + make_interval(secs => greatest(0.05, 1 / rate)::double precision)
        into tokens, held_until
        from outbox_relay.pace p where p.subscription_id = subscription_id for no key update skip locked;
        if not found then
            tokens := 0;
            held_until := now() + moment;
        end if;
        -- Another claim, that began later, may have spent beyond our now().
        room := least(room, greatest(tokens, 0));
        retry_room := least(retry_room, greatest(tokens, 0));
    end if;
    if room + retry_room > 0 then
        held_until := null;
    end if;
end
$$;
comment on function outbox_relay.admit is 'How many deliveries rate limit and circuit allow now.';
