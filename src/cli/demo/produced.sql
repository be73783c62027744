-- Produced: what the application's own tables hold, against the log.
select p.type, p.facts, count(e.event_seq) as events
from (values
    ('license.issued',        (select count(*) from petanque.license)),
    ('license.transferred',   (select count(*) from petanque.transfer)),
    ('competition.created',   (select count(*) from petanque.competition)),
    ('result.published',      (select count(*) from petanque.result)),
    ('competition.completed', (select count(completed_at) from petanque.competition)),
    ('ranking.updated',       (select count(*) from petanque.ranking)),
    ('sanction.created',      (select count(*) from petanque.sanction))) p (type, facts)
left join outbox.event e using (type)
group by p.type, p.facts order by p.type;
