create or replace function outbox_relay.make_segment(segment bigint)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Makes the partitions of one segment. They are made apart and then attached, which locks out no writer.
-- Called by maintain.
declare
    width constant bigint := 10000000000;
    parent text;
    wide   name;
begin
    foreach parent in array array['outbox.event', 'outbox_relay.finished', 'outbox.attempt'] loop
        execute format('create table %s_s%s (like %s including defaults including constraints)', parent, segment, parent);
        for wide in select a.attname from pg_attribute a where a.attrelid = parent::regclass and a.attstattarget = 0 and a.attnum > 0 loop
            execute format('alter table %s_s%s alter column %I set statistics 0', parent, segment, wide);
        end loop;
        execute format('alter table %s attach partition %s_s%s for values from (%s) to (%s)',
            parent, parent, segment, segment * width, (segment + 1) * width);
    end loop;
    insert into outbox_relay.segment (segment) values (make_segment.segment);
end
$$;
comment on function outbox_relay.make_segment is 'Makes the partitions of one segment of the log.';
