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

    -- For a request of the HTTP API the daemon takes the role of its token. It is a member for that alone: without
    -- inheritance it has none of these rights until it sets the role, and a relay's statement never does.
    begin
        if (select rolinherit from pg_roles where rolname = 'outbox_relay') then
            alter role outbox_relay noinherit;
        end if;
        foreach wanted in array array['outbox_producer', 'outbox_operator', 'outbox_viewer'] loop
            -- USAGE: it would inherit. From PostgreSQL 16 on that is the grant's, not the role's.
            if not exists (select from pg_auth_members m where m.roleid = wanted::regrole and m.member = 'outbox_relay'::regrole)
                or pg_has_role('outbox_relay', wanted, 'usage') then
                execute format('grant %I to outbox_relay', wanted)
                    || case when current_setting('server_version_num')::integer >= 160000 then ' with inherit false, set true' else '' end;
            end if;
        end loop;
    exception when unique_violation or internal_error then
        null;           -- somebody else did it just now
    end;
end
$$;
