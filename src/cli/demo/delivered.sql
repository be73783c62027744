-- Delivered: the log against the receivers' own books, event by event.
-- demo.received is what each receiver verified and accepted; outboxd never saw it.
with wanted (receiver, event_id) as (
    select 'club newsletter', event_id from outbox.event
    where type in ('competition.created', 'competition.completed', 'result.published')
    union all
    select 'ranking board', event_id from outbox.event
    where type in ('ranking.updated', 'result.published')
    union all
    select 'insurance', event_id from outbox.event
    where type in ('license.issued', 'license.transferred', 'sanction.created')
      and payload -> 'license' -> 'insured' = 'true'),
replayed (receiver, event_id) as (
    select distinct s.name, e.event_id
    from outbox.attempt a
    join outbox.event e using (event_seq)
    join outbox.subscription s using (subscription_id)
    where a.cause = 'replay' and a.outcome = 'delivered')
select receiver,
       count(w.event_id) as matching,
       count(r.event_id) as delivered,
       coalesce(sum(r.times - 1), 0)::bigint as duplicates,
       count(p.event_id) as replayed,
       count(*) filter (where w.event_id is null or r.event_id is null) as unaccounted
from wanted w
full join demo.received r using (receiver, event_id)
left join replayed p using (receiver, event_id)
group by receiver order by receiver;
