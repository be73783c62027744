-- Undone: events whose transactions did not commit, in the log and at the receivers.
select count(*) as undone,
       (select count(*) from outbox.event join petanque.undone using (event_id)) as in_the_log,
       (select count(*) from demo.received join petanque.undone using (event_id)) as at_receivers
from petanque.undone;
