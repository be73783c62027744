create or replace function outbox_relay.actor(out actor text, out via text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
-- Who acts in this session. The daemon says for whom it acts in outbox.actor (a token, the configuration, or
-- itself); from anybody else that setting is not believed.
declare
    claimed  text := nullif(current_setting('outbox.actor', true), '');
    believed boolean := claimed is not null
        and (select pg_has_role(session_user, r.oid, 'member') from pg_roles r where r.rolname = 'outbox_relay');
begin
    actor := case when believed then claimed else session_user end;
    via := case when not coalesce(believed, false) then 'sql' when starts_with(claimed, 'token ') then 'http' else 'relay' end;
    actor := coalesce(actor, session_user);
end
$$;
comment on function outbox_relay.actor is 'Who acts in this session, and how.';
