create or replace function outbox_relay.ed25519_public_key(seed bytea)
returns bytea
language plpgsql immutable strict set search_path = pg_catalog, pg_temp
as $$
-- The public key of an ed25519 seed of 32 bytes (RFC 8032, 5.1.5), so that it is there as soon as
-- outbox.subscribe returns: no extension of PostgreSQL knows the curve, and a relay may not be running.
-- Once for each key that is made; signing is the relay's work, with a library.
--
-- Points are (X, Y, Z, T) with x = X/Z, y = Y/Z, T = XY/Z. The addition is complete, so it doubles too.
-- Compared with another implementation for the RFC's vectors and random seeds by the tests.
declare
    p  constant numeric := 2::numeric ^ 255 - 19;
    d2 constant numeric := 16295367250680780974490674513165176452449235426866156013048779062215315747161;   -- 2d
    base_x constant numeric := 15112221349535400772501151409588531511454012693041857206046113283949847762202;
    base_y constant numeric := 46316835694926478169428394003475163141307993866256225615783033603165251855960;
    hash bytea := substring(sha512(seed) for 32);
    qx numeric := 0; qy numeric := 1; qz numeric := 1; qt numeric := 0;     -- the neutral element
    ax numeric; ay numeric; az numeric; at numeric;
    a numeric; b numeric; c numeric; d numeric; e numeric; f numeric; g numeric; h numeric;
    inverse numeric := 1;
    y numeric;
    key bytea := decode(repeat('00', 32), 'hex');
begin
    if octet_length(seed) <> 32 then
        raise exception 'a seed of ed25519 has 32 bytes';
    end if;
    hash := set_bit(set_bit(set_bit(set_bit(set_bit(hash, 0, 0), 1, 0), 2, 0), 255, 0), 254, 1);
    -- Double and add, from the highest bit down.
    for i in reverse 254..0 loop
        for step in 1..1 + get_bit(hash, i) loop
            if step = 1 then
                ax := qx; ay := qy; az := qz; at := qt;
            else
                ax := base_x; ay := base_y; az := 1; at := mod(base_x * base_y, p);
            end if;
            a := mod((qy - qx) * (ay - ax), p);
            b := mod((qy + qx) * (ay + ax), p);
            c := mod(mod(qt * d2, p) * at, p);
            d := mod(2 * qz * az, p);
            e := b - a; f := d - c; g := d + c; h := b + a;
            qx := mod(e * f, p); qy := mod(g * h, p); qz := mod(f * g, p); qt := mod(e * h, p);
        end loop;
    end loop;
    -- 1/Z = Z^(p - 2), and p - 2 = 2^255 - 21 has all bits set but the third and the fifth (…01011).
    for i in reverse 254..0 loop
        inverse := mod(inverse * inverse, p);
        if i not in (2, 4) then
            inverse := mod(inverse * qz, p);
        end if;
    end loop;
    y := mod(mod(qy * inverse, p) + p, p);
    for i in 0..31 loop
        key := set_byte(key, i, mod(y, 256)::integer);
        y := div(y, 256);
    end loop;
    return set_bit(key, 255, mod(mod(mod(qx * inverse, p) + p, p), 2)::integer);
end
$$;
comment on function outbox_relay.ed25519_public_key is 'The public key of an ed25519 seed (RFC 8032).';
