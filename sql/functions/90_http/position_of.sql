create or replace function outbox_http.position_of(cursor text, parts integer)
returns bigint[]
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
-- A cursor of one or two numbers, joined with a dash; null if there is none.
begin
    if position_of.cursor !~ ('^[0-9]{1,18}(-[0-9]{1,18}){' || parts - 1 || '}$') then
        raise exception using errcode = 'OB060', message = 'this cursor is none of this list', hint = 'Pass next_cursor of the page before, as it is.';
    end if;
    return string_to_array(position_of.cursor, '-')::bigint[];
end
$$;
comment on function outbox_http.position_of is 'Reads a cursor.';
