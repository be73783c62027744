create or replace function outbox_relay.url_refusal(url text, insecure boolean)
returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
-- Why a URL cannot be an endpoint, as far as its text tells; null if it can. insecure: http: is allowed.
-- Called by check_subscription. The relay judges the URL again (src/egress/url_rule.rs), there also the spelling of
-- IPv6 addresses and of names that are not ASCII, and judges the address whenever it dials. What it takes is taken here.
declare
    authority text := substring(url from '^https?://([^/?]*)');
    host      text := substring(authority from '^(\[[^]]*\]|[^:]*)');
    port      text := substr(authority, length(host) + 1);
    -- One dot at the end says that a name is absolute.
    name      text := regexp_replace(host, '\.$', '');
    octet     constant text := '(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])';
begin
    return case
        when url is null then 'is missing'
        when octet_length(url) > 2048 then 'is longer than 2048 bytes'
        when url !~ '^https?://' then 'does not begin with https://'
        when url ~ '^http://' and not insecure then 'is not https:'
        when url ~ '[\s\\[:cntrl:]]' then 'has white space, a backslash or a control character'
        when url ~ '#' then 'has a fragment'
        when authority ~ '@' then 'has a user name or password'
        when substr(url, length(authority) + position('//' in url) + 2) !~ '^[\x21-\x7e]*$'
            then 'has a character in its path or query that is not ASCII: percent-encode it'
        when port !~ '^(:[1-9][0-9]{0,4})?$' or nullif(substr(port, 2), '')::integer > 65535
            then 'has a port that is no number from 1 to 65535 without leading zeros'
        when host ~ '^\[' then case when host !~ '^\[[0-9A-Fa-f:.]+\]$' then 'has no valid host' end
        -- All of ASCII but letters, digits, hyphen, underscore and dot.
        when host ~ '[\x21-\x2c\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]' or name ~ '^$|^\.|\.\.|\.$'
                or (host !~ '[^\x21-\x7e]' and (length(host) > 253 or host ~ '[^.]{64}'))
            then 'has no valid host'
        -- A last label of digits makes it an address to browsers and resolvers: 127.1, 0177.0.0.1, 0x7f000001.
        when name ~* '(^|\.)([0-9]+|0x[0-9a-f]*)$' and host !~ ('^(' || octet || '\.){3}' || octet || '$')
            then 'has an address in another spelling than 192.0.2.1'
        when name !~ '\.' then 'has a host of a single label'
        end;
end
$$;
comment on function outbox_relay.url_refusal is 'Why a URL cannot be an endpoint.';
