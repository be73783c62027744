-- The same by outboxd's own account: every event that should have a delivery and has none.
select count(*) as unaccounted from outbox.unaccounted();
