//! The application: a federation that registers members, plays a season and publishes what happens.
//! Each function here is one thing its users do, with its transaction.

use super::DemoError;
use super::desk::{Desk, Office, Outcome, Stop};
use super::people::{Announced, CLUBS, Form, MEMBERS, SEASON, club_id};
use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

/// Teams of a competition: four rounds, fifteen games.
const TEAMS: i32 = 16;
const ROUNDS: [(&str, i32); 4] = [("round_of_16", 8), ("quarter_final", 4), ("semi_final", 2), ("final", 1)];
/// Every so many members, somebody presses the button twice.
const IMPATIENT: usize = 6;

/// Enters the clubs; nobody is told.
pub(super) async fn found_clubs(office: &Office) -> Result<(), DemoError> {
    for (club, (department, name)) in CLUBS.iter().enumerate() {
        let found = "insert into petanque.club (club_id, name, department) values ($1, $2, $3)";
        office.client().execute(found, &[&club_id(club), name, department]).await?;
    }
    Ok(())
}

/// A club registers its members, one form a transaction. Some forms are sent twice, and one member asks
/// for a second license. Returns how many forms were sent.
pub(super) async fn register_members(office: &mut Office, club: usize) -> Result<u32, DemoError> {
    let mut forms = 0;
    for number in 1..=MEMBERS {
        let form = Form::draw(&mut office.random, club, number);
        let times = if number % IMPATIENT == 0 { 2 } else { 1 };
        for _ in 0..times {
            let new = office.transact(async |desk| register(desk, &form, club).await).await?.committed()?;
            office.tally.repeated += u32::from(!new);
            forms += 1;
        }
        if number == MEMBERS {
            let second = Form { license_number: format!("{}9001", club_id(club)), ..form };
            office
                .transact(async |desk| register(desk, &second, club).await)
                .await?
                .rolled_back("license_one_a_season")?;
            forms += 1;
        }
    }
    Ok(forms)
}

/// A club hands in its list: one transaction, each line of it in a savepoint of its own. Two lines name
/// somebody who is on the list already.
pub(super) async fn import_members(office: &mut Office, club: usize) -> Result<u32, DemoError> {
    let mut forms: Vec<Form> = (1..=MEMBERS).map(|number| Form::draw(&mut office.random, club, number)).collect();
    for (line, repeated) in [(4, 2), (9, 5)] {
        let again = Form { license_number: format!("{}90{line:02}", club_id(club)), ..forms[repeated].clone() };
        forms.insert(line, again);
    }
    let lines = forms.len() as u32;
    let refused = async |desk: &Desk<'_>| {
        let mut refused = 0;
        for form in &forms {
            refused +=
                u32::from(desk.in_savepoint(async || register(desk, form, club).await.map(|_| ())).await?.is_some());
        }
        Ok(refused)
    };
    match office.transact(refused).await?.committed()? {
        2 => Ok(lines),
        other => Err(DemoError::Unexpected(format!("{other} lines of the list were refused, not 2"))),
    }
}

/// Payload by the application, in its own language; published once, however often the form comes.
/// Returns whether it came for the first time.
async fn register(desk: &Desk<'_>, form: &Form, club: usize) -> Result<bool, Stop> {
    let club_id = club_id(club);
    let payload = json!({
        "license": { "number": form.license_number, "season": SEASON, "category": form.category(), "insured": form.insured },
        "member": { "id": form.member_id, "first_name": form.first_name, "last_name": form.last_name },
        "club": { "id": club_id, "name": CLUBS[club].1, "department": CLUBS[club].0 },
    });
    let key = format!("license.issued/{}", form.license_number);
    desk.publish("license.issued", &payload, &form.license_number, Some(&key)).await?;
    desk.transaction
        .execute(
            "insert into petanque.member (member_id, first_name, last_name, birth_year) values ($1, $2, $3, $4)
             on conflict do nothing",
            &[&form.member_id, &form.first_name, &form.last_name, &form.birth_year],
        )
        .await?;
    let issued = desk
        .transaction
        .execute(
            "insert into petanque.license (license_number, member_id, season, club_id, category, insured)
             values ($1, $2, $3, $4, $5, $6) on conflict (license_number) do nothing",
            &[&form.license_number, &form.member_id, &SEASON, &club_id, &form.category(), &form.insured],
        )
        .await?;
    Ok(issued == 1)
}

/// Two competitions at once, then the rankings. In the first one somebody is entered twice, and a
/// score is taken down wrongly. Returns the number of games that ended 13 to 0.
pub(super) async fn play_weekend(
    offices: &mut [Office; 4],
    announced: &[Announced],
    number: usize,
) -> Result<u32, DemoError> {
    let [first, second, ..] = offices;
    let (one, two) = (&announced[2 * number], &announced[2 * number + 1]);
    let (ids, mut fannies) = ([competition_id(one, 2 * number), competition_id(two, 2 * number + 1)], 0);
    for (office, competition, id, slip) in [(&mut *first, one, &ids[0], true), (&mut *second, two, &ids[1], false)] {
        let teams = draw_teams(office, competition).await?;
        if slip {
            let mut mistaken = teams.clone();
            mistaken[15][0] = mistaken[0][0].clone();
            create(office, competition, id, &mistaken).await?.rolled_back("entry_player_once")?;
        }
        create(office, competition, id, &teams).await?.committed()?;
    }
    let (a, b) = tokio::try_join!(play(first, &ids[0], true), play(second, &ids[1], false))?;
    fannies += a.fannies + b.fannies;
    complete(first, &ids[0], a.winner).await?;
    complete(second, &ids[1], b.winner).await?;
    Ok(fannies)
}

fn competition_id(announced: &Announced, number: usize) -> String {
    format!("{SEASON}-{}-{:02}", CLUBS[announced.club].0, number + 1)
}

/// À la mêlée: teams are drawn by lot.
async fn draw_teams(office: &mut Office, announced: &Announced) -> Result<Vec<Vec<String>>, DemoError> {
    let size = if announced.format == "doublette" { 2 } else { 3 };
    let rows = office.client().query("select license_number from petanque.license order by 1", &[]).await?;
    let mut players: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    office.random.shuffle(&mut players);
    Ok(players.chunks(size).take(TEAMS as usize).map(<[String]>::to_vec).collect())
}

/// A competition with all its teams; whoever is entered twice is found at commit, after the event.
async fn create(
    office: &mut Office,
    announced: &Announced,
    id: &str,
    teams: &[Vec<String>],
) -> Result<Outcome<()>, DemoError> {
    let event_id = draw_id(&mut office.random);
    office
        .transact(async |desk| {
            desk.transaction.execute(CREATE, &[&id, &announced.name, &announced.format, &announced.level, &club_id(announced.club), &announced.starts_on]).await?;
            desk.transaction.execute(CREATED, &[&event_id, &id, &(teams.len() as i32)]).await?;
            desk.inserted(event_id, "competition.created");
            for (team, players) in (1_i32..).zip(teams) {
                let enter = "insert into petanque.entry (competition_id, team, license_number) select $1, $2, unnest($3::text[])";
                desk.transaction.execute(enter, &[&id, &team, players]).await?;
            }
            Ok(())
        })
        .await
}

struct Played {
    winner: i32,
    fannies: u32,
}

/// Single elimination, a transaction for each game.
async fn play(office: &mut Office, id: &str, slip: bool) -> Result<Played, DemoError> {
    let mut playing: Vec<i32> = (1..=TEAMS).collect();
    let mut fannies = 0;
    for (round, games) in ROUNDS {
        let mut winners = Vec::new();
        for game in 1..=games {
            let (Some(a), Some(b)) = (playing.pop(), playing.pop()) else { break };
            let (winner, loser) = if office.random.bool() { (a, b) } else { (b, a) };
            let loser_score = office.random.i32(0..13);
            if slip && round == "final" {
                // The referee takes down 13 to 13.
                publish_result(office, id, round, game, winner, loser, 13).await?.rolled_back("result_won_at_13")?;
            }
            publish_result(office, id, round, game, winner, loser, loser_score).await?.committed()?;
            winners.push(winner);
            fannies += u32::from(loser_score == 0);
        }
        playing = winners;
    }
    Ok(Played { winner: playing[0], fannies })
}

async fn publish_result(
    office: &mut Office,
    id: &str,
    round: &str,
    game: i32,
    winner: i32,
    loser: i32,
    loser_score: i32,
) -> Result<Outcome<()>, DemoError> {
    let event_id = draw_id(&mut office.random);
    office
        .transact(async |desk| {
            desk.transaction.execute(RESULT_PUBLISHED, &[&event_id, &id, &round, &game, &winner, &loser, &loser_score]).await?;
            desk.inserted(event_id, "result.published");
            let result = "insert into petanque.result (competition_id, round, game, winner, loser, loser_score) values ($1, $2, $3, $4, $5, $6)";
            desk.transaction.execute(result, &[&id, &round, &game, &winner, &loser, &loser_score]).await?;
            Ok(())
        })
        .await
}

/// The final was played: the competition is completed and the ranking computed anew, in one transaction.
async fn complete(office: &mut Office, id: &str, winner: i32) -> Result<(), DemoError> {
    office
        .transact(async |desk| {
            desk.transaction
                .execute("update petanque.competition set completed_at = now() where competition_id = $1", &[&id])
                .await?;
            desk.transaction.execute(COMPLETED, &[&id, &winner]).await?;
            desk.transaction.execute(RANK, &[&id]).await?;
            Ok(())
        })
        .await?
        .committed()
}

/// Some players change clubs; two of them try to do so again.
pub(super) async fn transfer_players(office: &mut Office, players: u32) -> Result<(), DemoError> {
    let movable =
        "select license_number, club_id from petanque.license left join petanque.transfer using (license_number)
                   where from_club_id is null order by 1";
    let rows = office.client().query(movable, &[]).await?;
    let mut movable: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    office.random.shuffle(&mut movable);
    for (nth, (license_number, from)) in (0..players).zip(movable) {
        let clubs: Vec<String> = (0..CLUBS.len()).map(club_id).filter(|club| *club != from).collect();
        let (to, elsewhere) = (&clubs[office.random.usize(..clubs.len())], &clubs[0]);
        transfer(office, &license_number, to).await?.committed()?;
        if nth < 2 {
            let elsewhere = if elsewhere == to { &clubs[1] } else { elsewhere };
            transfer(office, &license_number, elsewhere).await?.rolled_back("transfer_one_a_season")?;
        }
    }
    Ok(())
}

async fn transfer(office: &mut Office, license_number: &str, to: &str) -> Result<Outcome<()>, DemoError> {
    let event_id = draw_id(&mut office.random);
    office
        .transact(async |desk| {
            let now = "select club_id from petanque.license where license_number = $1 for update";
            let from: String = desk.transaction.query_one(now, &[&license_number]).await?.get(0);
            desk.transaction
                .execute("update petanque.license set club_id = $2 where license_number = $1", &[&license_number, &to])
                .await?;
            desk.transaction.execute(TRANSFERRED, &[&event_id, &license_number, &from, &to]).await?;
            desk.inserted(event_id, "license.transferred");
            let note = "insert into petanque.transfer (license_number, from_club_id, to_club_id) values ($1, $2, $3)";
            desk.transaction.execute(note, &[&license_number, &from, &to]).await?;
            Ok(())
        })
        .await
}

/// The jury shows cards to some finalists, and thinks better of one.
pub(super) async fn sanction_players(
    office: &mut Office,
    cards: &[(&'static str, &'static str)],
) -> Result<(), DemoError> {
    let finalists = "select license_number, competition_id from petanque.result
                     join petanque.entry using (competition_id) where round = 'final' and team = loser order by 2, 1";
    let rows = office.client().query(finalists, &[]).await?;
    let mut finalists: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    office.random.shuffle(&mut finalists);
    for (nth, ((card, reason), (license_number, competition))) in cards.iter().zip(finalists).enumerate() {
        let show = async |desk: &Desk<'_>, withdrawn| {
            let event_id = desk.transaction.query_one("select gen_random_uuid()", &[]).await?.get(0);
            desk.transaction.execute(SANCTIONED, &[&event_id, &license_number, &competition, card, reason]).await?;
            desk.inserted(event_id, "sanction.created");
            let note =
                "insert into petanque.sanction (license_number, competition_id, card, reason) values ($1, $2, $3, $4)";
            desk.transaction.execute(note, &[&license_number, &competition, card, reason]).await?;
            if withdrawn { Err(Stop::Withdrawn(WITHDRAWN)) } else { Ok(()) }
        };
        if nth == 0 {
            office.transact(async |desk| show(desk, true).await).await?.rolled_back(WITHDRAWN)?;
        }
        office.transact(async |desk| show(desk, false).await).await?.committed()?;
    }
    Ok(())
}

const WITHDRAWN: &str = "withdrawn by the jury";

/// A clerk who opens a transaction, creates the championship in it, and goes to lunch.
pub(super) struct Clerk {
    client: Client,
}

impl Clerk {
    /// The transaction is open when this returns, and its event is inserted.
    pub(super) async fn begin(
        client: Client,
        announced: &Announced,
        random: &mut fastrand::Rng,
    ) -> Result<Self, DemoError> {
        let id = competition_id(announced, 8);
        client.batch_execute("begin").await?;
        client
            .execute(
                CREATE,
                &[
                    &id,
                    &announced.name,
                    &announced.format,
                    &announced.level,
                    &club_id(announced.club),
                    &announced.starts_on,
                ],
            )
            .await?;
        client.execute(CREATED, &[&draw_id(random), &id, &64]).await?;
        Ok(Self { client })
    }

    /// Back from lunch.
    pub(super) async fn commit(self) -> Result<(), DemoError> {
        Ok(self.client.batch_execute("commit").await?)
    }
}

/// An id of the application's own; without one, the column's default makes a version 7 UUID.
fn draw_id(random: &mut fastrand::Rng) -> Uuid {
    uuid::Builder::from_random_bytes(random.u128(..).to_be_bytes()).into_uuid()
}

const CREATE: &str = "
insert into petanque.competition (competition_id, name, format, level, club_id, starts_on)
values ($1, $2, $3, $4, $5, $6::text::date)";

const CREATED: &str = "
insert into outbox.event (event_id, type, ordering_key, payload)
select $1, 'competition.created', competition_id, jsonb_build_object('competition', competition, 'teams', $3::integer)
from petanque.competition_card where competition_id = $2";

const RESULT_PUBLISHED: &str = "
insert into outbox.event (event_id, type, ordering_key, payload)
select $1, 'result.published', c.competition_id, jsonb_build_object('competition', c.competition, 'round', $3::text, 'game', $4::integer,
    'winner', w.players, 'loser', l.players, 'score', jsonb_build_array(13, $7::integer), 'fanny', $7::integer = 0)
from petanque.competition_card c
join petanque.team_card w on w.competition_id = c.competition_id and w.team = $5
join petanque.team_card l on l.competition_id = c.competition_id and l.team = $6
where c.competition_id = $2";

const COMPLETED: &str = "
insert into outbox.event (type, ordering_key, payload)
select 'competition.completed', c.competition_id, jsonb_build_object('competition', c.competition, 'winner', w.players,
    'games', (select count(*) from petanque.result r where r.competition_id = c.competition_id))
from petanque.competition_card c join petanque.team_card w using (competition_id)
where c.competition_id = $1 and w.team = $2";

/// Points by round, places by points, and an event for each place among the first thirty that changed:
/// one statement, as many events as there are.
const RANK: &str = "
with points as (
    select e.license_number, sum(case r.round when 'final' then 12 when 'semi_final' then 6 when 'quarter_final' then 3 else 1 end
        * case c.level when 'national' then 3 when 'regional' then 2 else 1 end)::integer as points
    from petanque.result r
    join petanque.competition c using (competition_id)
    join petanque.entry e on e.competition_id = r.competition_id and e.team = r.winner
    where c.completed_at is not null
    group by e.license_number),
ranked as (
    select license_number, points, rank() over (order by points desc)::integer as position from points),
previous as (
    select distinct on (license_number) license_number, position from petanque.ranking order by license_number, ranked_at desc),
changed as (
    insert into petanque.ranking (competition_id, license_number, position, previous_position, points)
    select $1, license_number, r.position, p.position, r.points
    from ranked r left join previous p using (license_number)
    where r.position <= 30 and r.position is distinct from p.position
    returning license_number, position, previous_position, points)
insert into outbox.event (type, ordering_key, payload)
select 'ranking.updated', license_number, jsonb_build_object('license', l.license, 'member', l.member,
    'position', c.position, 'previous_position', c.previous_position, 'points', c.points)
from changed c join petanque.license_card l using (license_number)
order by c.position, license_number";

const TRANSFERRED: &str = "
insert into outbox.event (event_id, type, ordering_key, payload)
select $1, 'license.transferred', license_number, jsonb_build_object('license', license, 'member', member, 'from', f.club, 'to', t.club)
from petanque.license_card, petanque.club_card f, petanque.club_card t
where license_number = $2 and f.club_id = $3 and t.club_id = $4";

const SANCTIONED: &str = "
insert into outbox.event (event_id, type, ordering_key, payload)
select $1, 'sanction.created', license_number, jsonb_build_object('license', license, 'member', member, 'competition', competition,
    'card', $4::text, 'reason', $5::text)
from petanque.license_card, petanque.competition_card
where license_number = $2 and competition_id = $3";
