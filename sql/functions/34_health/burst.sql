create or replace function outbox_relay.burst(rate numeric)
returns interval
language sql immutable parallel safe
-- How far a rate's account may lie back: the time of one delivery, so that there is one to give at all, and a
-- tenth of a second. So a second sees at most a tenth more than the rate, and ten seconds a hundredth.
-- Called by admit and charge.
return make_interval(secs => (0.1 + 1 / rate)::double precision);
comment on function outbox_relay.burst is 'How much of a rate limit may be saved up, as a time.';
