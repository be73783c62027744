-- A promoted standby may have lost the last positions and epochs that the old primary gave out, and gives the same
-- numbers out again. So an epoch is good for the timeline it was registered on, and no other.

alter table outbox_relay.relay add column timeline integer;
comment on column outbox_relay.relay.timeline is 'The timeline it registered on. On a later one, after a failover, its results still count and it leases nothing more; null before this was recorded.';
