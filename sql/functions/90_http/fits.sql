create or replace function outbox_http.fits(type text, pattern text)
returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
-- Whether an event's type is the one asked for, or below it (order.*, *).
select fits.type = fits.pattern or (fits.pattern like '%*' and starts_with(fits.type, left(fits.pattern, -1)))
$$;
comment on function outbox_http.fits is 'Whether an event''s type is the one asked for.';
