create or replace function outbox_relay.resume_epoch(epoch integer)
returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- After a lost connection: whether the relay could take up its epoch again, with all its leases. Not if
-- another relay has fenced it meanwhile. Called on the new direct connection.
begin
    if not pg_try_advisory_lock(1869968483, resume_epoch.epoch) then
        return false;       -- the old session is not gone yet, or somebody is fencing it
    end if;
    if exists (select from outbox_relay.relay r where r.epoch = resume_epoch.epoch and r.fenced_at is null) then
        return true;
    end if;
    perform pg_advisory_unlock(1869968483, resume_epoch.epoch);
    return false;
end
$$;
comment on function outbox_relay.resume_epoch is 'Takes a relay''s epoch up again after a lost connection, unless it was fenced.';
