-- how things stand
select * from outbox.status();

-- what was tried, and what came of it
select name, outcome, count(*)
from outbox.attempt join outbox.subscription using (subscription_id)
group by 1, 2 order by 1, 2;

-- one event: who got it, and why the others did not
select x.name, x.verdict, x.detail, x.attempts
from outbox.event e, outbox.explain(e.event_id) x
where e.type = 'license.transferred' order by e.event_seq desc limit 3;

-- something new, which the insurance shows in the other terminal (no row of petanque
-- stands behind it, as the first query of the books will say)
select outbox.publish('sanction.created', '{"license": {"insured": true}, "card": "red"}');
