create or replace function outbox_relay.matches(type text, payload jsonb, patterns text[], filter jsonpath)
returns boolean
language sql immutable parallel safe
-- Whether a subscription with these patterns and this filter wants an event: the definition. Expand does
-- the same through outbox_relay.route; outbox.unaccounted compares the two for every event in the log.
--
-- * means everything the application tells. What outboxd itself tells (outbox.…) is asked for by name:
-- a subscription to everything must not be sent the news of its own failures.
-- A filter matches when its first item exists and is neither false nor null. So a predicate
-- ($.total > 100) counts by its truth, a path with a filter ($.items[*] ? (@.qty > 5)) by finding
-- something, and a type mismatch is no match rather than an error.
return ('*' = any (patterns) and not starts_with(type, 'outbox.') or type = any (patterns)
        or exists (select from unnest(patterns) p where right(p, 2) = '.*' and starts_with(type, left(p, -1))))
    and (filter is null
        or coalesce(jsonb_path_query_first(payload, filter, '{}', true) not in ('false', 'null'), false));
comment on function outbox_relay.matches is 'Whether patterns and filter want an event.';
