create or replace function outbox_relay.patterns_of(type text)
returns setof text
language sql immutable parallel safe
-- The patterns that want a type: order.line.created is wanted as itself, as order.line.*, order.* and *; outboxd's
-- own types not as *.
-- Kept free of SET so that the planner inlines it. Called by expand and try_filters.
begin atomic
    select patterns_of.type
    union all select '*' where not starts_with(patterns_of.type, 'outbox.')
    union all select left(patterns_of.type, i) || '*' from generate_series(2, length(patterns_of.type) - 1) i where substr(patterns_of.type, i, 1) = '.';
end;
comment on function outbox_relay.patterns_of is 'The patterns by which subscriptions ask for an event of this type.';
