-- The groups that users are granted. Cluster-wide, so made only where they are missing and where the
-- migrating user may; otherwise outboxd migrate prints this file for somebody who may.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['outbox_producer', 'outbox_operator', 'outbox_viewer', 'outbox_relay'] loop
        begin
            if not exists (select from pg_roles where rolname = wanted) then
                execute format('create role %I nologin', wanted);
            end if;
        exception when duplicate_object or unique_violation then
            null;       -- somebody else made it just now
        end;
    end loop;
end
$$;
