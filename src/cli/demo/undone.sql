-- Undone: events whose transactions did not commit, in the log and at the receivers.
select count(*)                                                                                 as undone,
       count(*) filter (where exists (select from outbox.event e where e.event_id = u.event_id))   as in_the_log,
       count(*) filter (where exists (select from demo.received r where r.event_id = u.event_id)) as at_receivers
from petanque.undone u;
