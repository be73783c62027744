-- The application's own schema, made by the application's own login. Nothing in it knows of outboxd:
-- its transactions insert into outbox.event besides.

create table petanque.club (
    club_id    text primary key,
    name       text not null,
    department text not null
);

create table petanque.member (
    member_id  integer primary key,
    first_name text not null,
    last_name  text not null,
    birth_year integer not null
);

create table petanque.license (
    license_number text primary key,
    member_id      integer not null references petanque.member,
    season         integer not null,
    club_id        text not null references petanque.club,
    category       text not null check (category in ('junior', 'senior', 'veteran')),
    insured        boolean not null,
    constraint license_one_a_season unique (member_id, season)
);
comment on constraint license_one_a_season on petanque.license is 'Nobody plays for two clubs.';

create table petanque.transfer (
    license_number text not null references petanque.license,
    from_club_id   text not null references petanque.club,
    to_club_id     text not null references petanque.club,
    constraint transfer_one_a_season primary key (license_number)
);

create table petanque.competition (
    competition_id text primary key,
    name           text not null,
    format         text not null check (format in ('doublette', 'triplette')),
    level          text not null,
    club_id        text not null references petanque.club,
    starts_on      date not null,
    completed_at   timestamptz
);

-- A player entered twice is found at commit, when the list of teams is complete.
create table petanque.entry (
    competition_id text not null references petanque.competition,
    team           integer not null,
    license_number text not null references petanque.license,
    constraint entry_player_once unique (competition_id, license_number) deferrable initially deferred
);
create index on petanque.entry (competition_id, team);

create table petanque.result (
    competition_id text not null references petanque.competition,
    round          text not null check (round in ('round_of_16', 'quarter_final', 'semi_final', 'final')),
    game           integer not null,
    winner         integer not null,
    loser          integer not null,
    loser_score    integer not null,
    primary key (competition_id, round, game),
    constraint result_won_at_13 check (loser_score between 0 and 12)
);

-- One row for each player whose place changed with a competition.
create table petanque.ranking (
    competition_id    text not null references petanque.competition,
    license_number    text not null references petanque.license,
    position          integer not null,
    previous_position integer,
    points            integer not null,
    ranked_at         timestamptz not null default clock_timestamp(),
    primary key (competition_id, license_number)
);

create table petanque.sanction (
    sanction_id    integer generated always as identity primary key,
    license_number text not null references petanque.license,
    competition_id text not null references petanque.competition,
    card           text not null check (card in ('yellow', 'orange', 'red')),
    reason         text not null
);

-- Bookkeeping of the demo: the events of transactions that did not commit, noted after the fact.
create table petanque.undone (
    event_id uuid primary key,
    type     text not null,
    reason   text not null
);

-- What payloads are made of.
create view petanque.club_card as
select club_id, jsonb_build_object('id', club_id, 'name', name, 'department', department) as club
from petanque.club;

create view petanque.license_card as
select license_number,
       jsonb_build_object('number', license_number, 'season', season, 'category', category, 'insured', insured) as license,
       jsonb_build_object('id', member_id, 'first_name', first_name, 'last_name', last_name) as member,
       club_id
from petanque.license join petanque.member using (member_id);

create view petanque.competition_card as
select competition_id,
       jsonb_build_object('id', competition_id, 'name', name, 'format', format, 'level', level,
           'starts_on', starts_on, 'club', club) as competition
from petanque.competition join petanque.club_card using (club_id);

create view petanque.team_card as
select competition_id, team,
       jsonb_build_object('team', team, 'players', jsonb_agg(jsonb_build_object('license', license_number,
           'name', first_name || ' ' || last_name) order by license_number)) as players
from petanque.entry join petanque.license using (license_number) join petanque.member using (member_id)
group by competition_id, team;
