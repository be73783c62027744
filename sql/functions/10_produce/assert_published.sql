create or replace function outbox.assert_published(type text, match jsonpath default null, count integer default null, tenant_id text default null)
returns bigint
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
-- Raises unless this transaction has inserted such events: count of them, or at least one. Returns how many.
-- Says what was published instead, by type; payloads stay out of the log of a test run.
-- Called by the tests of applications. See docs/testing.md.
declare
    found_   bigint := (select count(*) from outbox.published(assert_published.type, assert_published.match, assert_published.tenant_id));
    of_type  bigint;
    instead  text;
begin
    if found_ = assert_published.count or (assert_published.count is null and found_ > 0) then
        return found_;
    end if;
    select count(*) into of_type from outbox.published(assert_published.type, null, assert_published.tenant_id);
    select string_agg(format('%s x %s', p.times, p.type), ', ' order by p.type) into instead
    from (select e.type, count(*) as times from outbox.published(tenant_id => assert_published.tenant_id) e group by e.type) p;
    raise exception using errcode = 'OB050',
        message = format('%s %s published%s, expected %s', found_,
            case when found_ = 1 then assert_published.type || ' was' else assert_published.type || ' were' end,
            case when assert_published.match is null then '' else format(' that match %s (%s of any payload)', assert_published.match, of_type) end,
            coalesce(assert_published.count::text, 'at least one')),
        detail = format('This transaction has published: %s.', coalesce(instead, 'nothing')),
        hint = 'See them all: select * from outbox.published().';
end
$$;
comment on function outbox.assert_published is 'Raises unless this transaction has published such events; for applications'' own tests.';
