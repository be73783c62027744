create or replace function outbox_relay.admit(subscription_id bigint, wanted integer, out room integer, out held_until timestamptz)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- How many deliveries a subscription with a rate limit, or with a circuit that is not closed, may be given
-- now (room, at most wanted), and if none, when to ask again.
--
-- The rate is counted by all relays together, in outbox_relay.pace: spent_until moves by 1/rate for each
-- delivery leased (GCRA, a token bucket in one number). It may lie back by the time of one delivery and a
-- tenth of a second: that is the burst, and what a relay that comes a little late does not lose.
-- A circuit that is open gives nothing until its time has come, then one: the probe.
--
-- Both rows stay locked until the claim commits; one that another claim has locked gives nothing for a moment.
-- Called by claim, which then tells charge what it took.
#variable_conflict use_variable
declare
    tokens bigint;
    rate   numeric;
    h      outbox.subscription_health;
    moment constant interval := '20 milliseconds';
begin
    room := wanted;
    select c.* into h from outbox.subscription_health c where c.subscription_id = subscription_id and c.circuit <> 'closed';
    if found then
        room := 0;
        held_until := h.circuit_until;
        if h.circuit_until <= now() then
            held_until := now() + moment;
            perform from outbox.subscription_health c
            where c.subscription_id = subscription_id and c.circuit <> 'closed' and c.circuit_until <= now() for no key update skip locked;
            room := found::integer;
        end if;
    end if;
    select s.rate_limit into rate from outbox.subscription s where s.subscription_id = subscription_id;
    if room > 0 and rate is not null then
        select floor(0.001 + extract(epoch from now() - greatest(p.spent_until, now() - outbox_relay.burst(rate))) * rate),
               p.spent_until + make_interval(secs => greatest(0.05, 1 / rate)::double precision)
        into tokens, held_until
        from outbox_relay.pace p where p.subscription_id = subscription_id for no key update skip locked;
        if not found then
            tokens := 0;
            held_until := now() + moment;
        end if;
        room := least(room, tokens);
    end if;
    if room > 0 then
        held_until := null;
    end if;
end
$$;
comment on function outbox_relay.admit is 'How many deliveries rate limit and circuit allow now.';
