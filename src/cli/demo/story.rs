//! What happens, chapter by chapter. It goes on when a condition holds, never after a fixed time.

use super::DemoError;
use super::desk::{Office, Tally};
use super::narrator::Narrator;
use super::people::{CHAMPIONSHIP, COMPETITIONS};
use super::receivers::Receiver;
use super::report::{Known, close_the_books, copy_books};
use super::season::{self, Clerk};
use super::stage::{APPLICATION, OPERATOR, RELAY, Stage};
use crate::schema;
use crate::throwaway::Throwaway;
use std::time::Duration;
use tokio_postgres::Client;

const CATALOG: &str = include_str!("catalog.sql");
const APPLICATION_SCHEMA: &str = include_str!("petanque.sql");
const LOOK_AROUND: &str = include_str!("look_around.sql");

/// Requests of the ranking board that are answered 503 at first.
const UNAVAILABLE_FOR: u32 = 25;
/// Requests a receiver must be busy with when the relay is killed.
const IN_HAND: usize = 4;

const NEWSLETTER: usize = 0;
const BOARD: usize = 1;
const INSURANCE: usize = 2;

/// What is left when the story is over.
pub(super) struct Ending {
    stage: Stage,
    // Their ports stay taken until the end.
    receivers: [Receiver; 3],
    /// Whether produced, delivered and accounted for agree.
    pub(super) agrees: bool,
}

impl Ending {
    /// Keeps the table of the receivers' books up to date, for whoever looks around.
    pub(super) async fn keep_books(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            if let Err(e) = copy_books(&self.stage, &self.receivers).await {
                eprintln!("outboxd: demo.received is no longer kept: {e}");
                return std::future::pending().await;
            }
        }
    }

    /// Stops the relay in good order. The server goes with its last handle.
    pub(super) async fn clear_away(&mut self) {
        // Best effort: what does not stop in time is killed when it is dropped.
        let _ = self.stage.stop_relay().await;
    }
}

/// What a receiver wants, and how.
struct Wish {
    types: &'static [&'static str],
    signature: &'static str,
    envelope: &'static str,
    policy: &'static str,
    filter: Option<&'static str>,
}

/// In the order of the receivers.
const WISHES: [Wish; 3] = [
    Wish {
        types: &["competition.*", "result.published"],
        signature: "standard",
        envelope: "standard",
        policy: "standard",
        filter: None,
    },
    Wish {
        types: &["ranking.*", "result.published"],
        signature: "x-signature",
        envelope: "event",
        policy: "patient",
        filter: None,
    },
    Wish {
        types: &["license.*", "sanction.created"],
        signature: "standard",
        envelope: "standard",
        policy: "hasty",
        filter: Some("$.license.insured == true"),
    },
];

/// Everything on the stage.
struct Story<'a> {
    narrator: &'a mut Narrator,
    stage: Stage,
    receivers: [Receiver; 3],
    subscription_ids: [i64; 3],
    offices: [Office; 4],
    known: Known,
}

/// The title.
pub(super) fn introduce(narrator: &mut Narrator) {
    narrator.gap();
    narrator.say(
        "A pétanque federation keeps licenses, competitions and rankings in PostgreSQL. Others want to know \
         what happens: a newsletter, a ranking board, an insurance. This is one season of it, on a server of \
         its own in a temporary directory. All traffic stays on this machine.",
    );
    narrator.chapter("A database, and three logins");
}

/// The whole story.
pub(super) async fn tell(narrator: &mut Narrator, server: Throwaway, keep: bool) -> Result<Ending, DemoError> {
    let (stage, report) = Stage::set_up(server).await?;
    let receivers =
        [Receiver::alive("club newsletter")?, Receiver::alive("ranking board")?, Receiver::dead("insurance")?];
    let mut offices = Vec::new();
    for seed in 1..=4 {
        offices.push(Office::new(stage.connect(APPLICATION).await?, seed));
    }
    let Ok(offices) = offices.try_into() else { return Err(DemoError::Unexpected("four offices are not four".into())) };
    let known = Known { tally: Tally::default(), replayed: 0, in_hand_at_kill: 0, forged: 0 };
    let mut story = Story { narrator, stage, receivers, subscription_ids: [0; 3], offices, known };
    let told = story.play(&report).await;
    match told {
        Ok(agrees) => {
            if keep {
                story.invite();
            }
            Ok(Ending { stage: story.stage, receivers: story.receivers, agrees })
        }
        Err(e) => {
            eprintln!("the end of the relay's log:\n{}", story.stage.relay_log_end());
            Err(e)
        }
    }
}

impl Story<'_> {
    async fn play(&mut self, report: &schema::Report) -> Result<bool, DemoError> {
        self.a_database(report).await?;
        self.a_catalog().await?;
        self.receivers_and_a_relay().await?;
        self.registrations().await?;
        let clerk = self.first_weekend().await?;
        self.kill_the_relay().await?;
        self.rotate_a_secret().await?;
        self.repair_the_insurance().await?;
        self.back_from_lunch(clerk).await?;
        self.the_books().await
    }

    async fn a_database(&mut self, report: &schema::Report) -> Result<(), DemoError> {
        let version: String = self
            .stage
            .admin
            .query_one("select split_part(current_setting('server_version'), ' ', 1)", &[])
            .await?
            .get(0);
        let (migrations, files) = (report.migrations.len(), report.files.len());
        self.narrator.say(format_args!(
            "PostgreSQL {version} runs at 127.0.0.1:{}, with its default durability. {migrations} migrations and {files} files \
             of functions and grants are applied, as `outboxd migrate` does. Three logins, one role each:",
            self.stage.port()
        ));
        self.narrator.typed(format_args!(
            "{APPLICATION:<16}outbox_producer   the federation's application, owner of schema petanque"
        ));
        self.narrator.typed(format_args!("{OPERATOR:<16}outbox_operator   whoever looks after the outbox"));
        self.narrator.typed(format_args!("{RELAY:<16}outbox_relay      the daemon"));
        self.narrator.say("What they may not do is tried out:");
        let relay = self.stage.connect(RELAY).await?;
        let (application, operator) = (self.offices[0].client(), &self.stage.operator);
        for (who, client, statement) in [
            (APPLICATION, application, "select * from outbox.event"),
            (APPLICATION, application, "select outbox.replay_failed(1)"),
            (OPERATOR, operator, "insert into outbox.event (type, payload) values ('license.issued', '{}')"),
            (OPERATOR, operator, "select secret from outbox_relay.signing_secret"),
            (RELAY, &relay, "select * from petanque.member"),
        ] {
            let said = refusal(client, statement).await?;
            self.narrator.typed(format_args!("{who:<16}{statement};"));
            self.narrator.answer(format_args!("{:<16}{said}", ""));
        }
        application.batch_execute(APPLICATION_SCHEMA).await?;
        season::found_clubs(&self.offices[0]).await
    }

    async fn a_catalog(&mut self) -> Result<(), DemoError> {
        self.narrator.chapter("A catalog of events");
        self.stage.operator.batch_execute(CATALOG).await?;
        self.narrator.say(
            "The operator defines seven types, each with a JSON Schema and an example: \
             competition.created, competition.completed, result.published, license.issued, \
             license.transferred, ranking.updated, sanction.created. From now on a type that is not \
             there is refused in the producer's transaction, so that a misspelling cannot vanish:",
        );
        let misspelt = "insert into outbox.event (type, payload) values ('licence.issued', '{}')";
        self.narrator.typed(format_args!("{misspelt};"));
        let said = refusal(self.offices[0].client(), misspelt).await?;
        self.narrator.answer(said);
        Ok(())
    }

    async fn receivers_and_a_relay(&mut self) -> Result<(), DemoError> {
        self.narrator.chapter("Three receivers, one relay");
        let operator = &self.stage.operator;
        self.narrator.say(
            "The receivers listen at plain http on this host. Production does neither: https is the rule, and \
             loopback and private addresses are refused. Here the operator allows the one, and the relay is \
             started with OUTBOXD_EGRESS__ALLOW='[\"127.0.0.1/32\"]' for the other. And circuits are off: one of \
             the receivers will be down, and the story waits until its last delivery was given up.",
        );
        let insecure = "select outbox.set('allow_insecure_http', 'true'), outbox.set('circuit_failures', '0')";
        operator.batch_execute(insecure).await?;
        let policies = "insert into outbox.retry_policy (name, delays) values\n  ('patient', '{300ms,600ms,1200ms,2400ms,4800ms}'),\n  ('hasty', '{200ms,400ms}')";
        operator.batch_execute(policies).await?;
        self.narrator.typed(format_args!("{insecure};\n{policies};"));
        let subscribe =
            "select (s).subscription_id, (s).secret, (s).key_id from outbox.subscribe($1, $2::text[], name => $3,
                         signature => $4, envelope => $5, retry_policy => $6, filter => $7) s";
        for (nth, wish) in WISHES.iter().enumerate() {
            let Wish { types, signature, envelope, policy, filter } = wish;
            let receiver = &self.receivers[nth];
            let row = operator
                .query_one(
                    subscribe,
                    &[&receiver.url(), &types, &receiver.name, &signature, &envelope, &policy, &filter],
                )
                .await?;
            let key_id: String = row.get(2);
            self.subscription_ids[nth] = row.get(0);
            receiver.learn(row.get(1));
            let filter = filter.map_or_else(String::new, |filter| format!(", filter {filter}"));
            self.narrator.typed(format_args!("{:<16}{}{filter}", receiver.name, types.join(", ")));
            self.narrator.answer(format_args!("{:<16}signature {signature}, retries {policy}, key {key_id}", ""));
        }
        self.receivers[BOARD].be_unavailable_for(UNAVAILABLE_FOR);
        let (name, pid) = self.stage.start_relay().await?;
        self.narrator.say(format_args!(
            "The newsletter is well. The ranking board will answer 503 to its first {UNAVAILABLE_FOR} requests. The \
             insurance is dead: nobody listens at its port. `outboxd run` is up as {name}, process {pid}."
        ));
        Ok(())
    }

    async fn registrations(&mut self) -> Result<(), DemoError> {
        self.narrator.chapter("Registrations");
        let [a, b, c, d] = &mut self.offices;
        let forms = tokio::try_join!(
            async { Ok::<_, DemoError>(season::register_members(a, 0).await? + season::register_members(a, 1).await?) },
            async { Ok(season::register_members(b, 2).await? + season::register_members(b, 3).await?) },
            async { Ok(season::register_members(c, 4).await? + season::register_members(c, 5).await?) },
            async { Ok(season::register_members(d, 6).await? + season::import_members(d, 7).await?) },
        )?;
        let forms = forms.0 + forms.1 + forms.2 + forms.3;
        self.stage.wait_until_idle().await?;
        let licenses: i64 = self.stage.admin.query_one("select count(*) from petanque.license", &[]).await?.get(0);
        let dead = self.stage.status("dead_letters").await?;
        self.narrator.say(format_args!(
            "Eight clubs send {forms} forms over four connections; {licenses} licenses are issued. The license, its member \
             and the event are one transaction each:"
        ));
        self.narrator.typed(
            "begin;\n\
             select outbox.publish('license.issued', '{…}',\n\
            \x20    idempotency_key => 'license.issued/13010006', …);\n\
             insert into petanque.member …; insert into petanque.license …;\n\
             commit;",
        );
        let tally = self.tally();
        self.narrator.say(format_args!(
            "Some forms come twice: the idempotency key makes one event of them. {} ask for a second license: \
             license_one_a_season says no, and the event that was published a moment before is gone with the \
             transaction. One club hands in a list as one transaction, each line in a savepoint: {} lines fail. \
             The insurance wants those who are insured. It is dead, so after three attempts within a second \
             each of its {dead} deliveries is a dead letter.",
            tally.rolled_back_total(),
            tally.savepoints
        ));
        Ok(())
    }

    async fn first_weekend(&mut self) -> Result<Clerk, DemoError> {
        self.narrator.chapter("The season begins");
        let connection = self.stage.connect(APPLICATION).await?;
        let clerk = Clerk::begin(connection, &CHAMPIONSHIP, &mut self.offices[3].random).await?;
        self.narrator.say(
            "A clerk opens a transaction, creates the national championship in it, and goes to lunch. Its event \
             has its place in the log before all that follows, and cannot be seen. Nothing waits for it.",
        );
        let before = self.tally().rolled_back_total();
        let fannies = season::play_weekend(&mut self.offices, &COMPETITIONS, 0).await?;
        let cards = [("yellow", "one minute exceeded"), ("orange", "left the circle, again")];
        season::sanction_players(&mut self.offices[1], &cards).await?;
        self.stage.wait_until_idle().await?;
        let board = self.receivers[BOARD].book();
        let retried = "select count(*), max(attempts)::bigint from outbox.delivery where subscription_id = $1 and attempts > 1 and state = 'succeeded'";
        let row = self.stage.operator.query_one(retried, &[&self.subscription_ids[BOARD]]).await?;
        let (retried, most): (i64, i64) = (row.get(0), row.get(1));
        self.narrator.say(format_args!(
            "First weekend: 30 games, {fannies} of them 13 to 0. A player entered twice is found at commit, a score of \
             13 to 13 by a constraint, one card is withdrawn by the jury: {} rollbacks, and as many events that \
             never were. The ranking board answered {} requests with 503; {retried} deliveries came through later, after \
             {most} attempts at most, each due when its retry policy said.",
            self.tally().rolled_back_total() - before,
            board.unavailable
        ));
        let status = self.receivers[NEWSLETTER].post_forgery().await?;
        self.known.forged += 1;
        self.narrator.say(format_args!(
            "Somebody posts a forged result to the newsletter. Its own check of the signature answers {status}."
        ));
        Ok(clerk)
    }

    async fn kill_the_relay(&mut self) -> Result<(), DemoError> {
        self.narrator.chapter("kill -9");
        // No answer leaves before the kill: what is in hand then is certain to come again.
        self.receivers[NEWSLETTER].answer_after(Duration::from_secs(600));
        let Self { stage, offices, receivers, .. } = self;
        let newsletter = &receivers[NEWSLETTER];
        let (_, in_hand) = tokio::try_join!(season::play_weekend(offices, &COMPETITIONS, 1), async {
            stage.wait_for("the newsletter to be busy", async |_| Ok(newsletter.in_hand() >= IN_HAND)).await?;
            let in_hand = newsletter.in_hand();
            stage.kill_relay().await?;
            Ok(in_hand)
        })?;
        newsletter.answer_after(Duration::ZERO);
        self.known.in_hand_at_kill = in_hand;
        let waiting = self.stage.status("unexpanded_events").await?;
        let leased = self.stage.status("leased").await?;
        self.narrator.say(format_args!(
            "Second weekend. The newsletter is slow today: it has {in_hand} requests in hand, verified and not yet \
             answered, when the relay gets SIGKILL. The games go on; the application has nothing to notice."
        ));
        self.narrator.typed("select relays, unexpanded_events, leased from outbox.status();");
        self.narrator
            .answer(format_args!("relays 0, unexpanded_events {waiting}, leased {leased} (to a relay that is gone)"));
        let (name, pid) = self.stage.start_relay().await?;
        self.stage.wait_until_idle().await?;
        let duplicates = self.receivers[NEWSLETTER].book().accepted.values().filter(|times| **times > 1).count();
        self.narrator.say(format_args!(
            "{name}, process {pid}, finds the other's lock free, takes its leases over and catches up. What had been \
             sent and not recorded is sent again: {duplicates} events came to the newsletter twice, under the same id. \
             That is what at least once means."
        ));
        Ok(())
    }

    async fn rotate_a_secret(&mut self) -> Result<(), DemoError> {
        self.narrator.chapter("A secret is rotated");
        let rotate = "select (k).secret, (k).key_id from outbox.rotate_secret($1, overlap => '1 hour') k";
        let row = self.stage.operator.query_one(rotate, &[&self.subscription_ids[NEWSLETTER]]).await?;
        let (newsletter, key_id) = (&self.receivers[NEWSLETTER], row.get::<_, String>(1));
        newsletter.learn(row.get(0));
        let before = newsletter.book();
        self.narrator.typed(format_args!(
            "select * from outbox.rotate_secret({}, overlap => '1 hour');",
            self.subscription_ids[NEWSLETTER]
        ));
        self.narrator.answer(format_args!("new key {key_id}"));
        season::play_weekend(&mut self.offices, &COMPETITIONS, 2).await?;
        self.stage.wait_until_idle().await?;
        let newsletter = &self.receivers[NEWSLETTER];
        let during = newsletter.book();
        newsletter.forget_old_secrets();
        season::play_weekend(&mut self.offices, &COMPETITIONS, 3).await?;
        season::transfer_players(&mut self.offices[2], 6).await?;
        self.stage.wait_until_idle().await?;
        let after = self.receivers[NEWSLETTER].book();
        let (both, new) =
            (during.verified_with_both, after.verified_with.get(1).copied().unwrap_or(0) - during.verified_with_both);
        if before.verified_with_both != 0 || both == 0 || new == 0 || after.refused != self.known.forged {
            return Err(DemoError::Unexpected("the rotation was not seamless".into()));
        }
        self.narrator.say(format_args!(
            "Third weekend: both keys sign, and the newsletter verified {both} requests with the old secret and with \
             the new one. Then it forgets the old. Fourth weekend: {new} more, with the new one alone. None refused."
        ));
        Ok(())
    }

    async fn repair_the_insurance(&mut self) -> Result<(), DemoError> {
        self.narrator.chapter("The insurance is repaired");
        let id = self.subscription_ids[INSURANCE];
        let reasons =
            "select count(*), last_error from outbox.delivery where subscription_id = $1 and state = 'dead_letter'
                       group by last_error order by 1 desc";
        self.narrator.say("Its dead letters by now, and why:");
        for row in self.stage.operator.query(reasons, &[&id]).await? {
            let (count, reason): (i64, Option<String>) = (row.get(0), row.get(1));
            self.narrator.answer(format_args!("{count}  {}", reason.unwrap_or_default()));
        }
        self.receivers[INSURANCE].come_alive()?;
        let dry: i64 =
            self.stage.operator.query_one("select outbox.replay_failed($1, dry_run => true)", &[&id]).await?.get(0);
        let replayed: i64 = self.stage.operator.query_one("select outbox.replay_failed($1)", &[&id]).await?.get(0);
        self.known.replayed = replayed;
        self.narrator.say("Now it listens. What would be replayed, and then in earnest:");
        self.narrator.typed(format_args!("select outbox.replay_failed({id}, dry_run => true);"));
        self.narrator.answer(dry);
        self.narrator.typed(format_args!("select outbox.replay_failed({id});"));
        self.narrator.answer(replayed);
        season::transfer_players(&mut self.offices[2], 6).await?;
        season::sanction_players(&mut self.offices[1], &[("red", "threw the jack into the sea")]).await?;
        self.stage.wait_until_idle().await?;
        let left = self.stage.status("dead_letters").await?;
        let first =
            "select count(*) from outbox.delivery where subscription_id = $1 and state = 'succeeded' and attempts = 1";
        let first: i64 = self.stage.operator.query_one(first, &[&id]).await?.get(0);
        let accepted = self.receivers[INSURANCE].book().accepted.len();
        self.narrator.say(format_args!(
            "Transfers go on meanwhile: {first} events of interest to it arrive at the first attempt. It has {accepted} events \
             in its book now; dead letters left: {left}. The attempt log keeps both runs."
        ));
        Ok(())
    }

    async fn back_from_lunch(&mut self, clerk: Clerk) -> Result<(), DemoError> {
        self.narrator.chapter("Back from lunch");
        let before = self.receivers[NEWSLETTER].book().accepted.len();
        clerk.commit().await?;
        self.known.tally.committed += 1;
        let newsletter = &self.receivers[NEWSLETTER];
        self.stage
            .wait_for("the championship to arrive", async |_| Ok(newsletter.book().accepted.len() > before))
            .await?;
        self.stage.wait_until_idle().await?;
        let behind = "select count(*) from outbox.event where event_seq > (select min(event_seq) from outbox.event where payload -> 'competition' ->> 'name' = $1)";
        let behind: i64 = self.stage.operator.query_one(behind, &[&CHAMPIONSHIP.name]).await?.get(0);
        self.narrator.say(format_args!(
            "The clerk commits. {behind} events that come after it in the log were delivered long ago; the newsletter \
             has the championship a moment later. A cursor that only remembers a position would have lost it."
        ));
        Ok(())
    }

    async fn the_books(&mut self) -> Result<bool, DemoError> {
        self.narrator.chapter("The books");
        self.known.tally = self.tally();
        self.narrator.say("What was produced, what arrived, and whether the two agree: these queries say it.");
        let wrong = close_the_books(&self.stage, self.narrator, &self.receivers, &self.known).await?;
        self.narrator.gap();
        let elapsed_s = self.narrator.elapsed_s();
        if wrong.is_empty() {
            let verdict = self.narrator.verdict(true, "Produced, delivered and accounted for agree.");
            self.narrator.say(format_args!("{verdict} {elapsed_s:.1} s."));
        } else {
            self.narrator.say(self.narrator.verdict(false, "The books do not agree:"));
            wrong.iter().for_each(|line| self.narrator.say(line));
        }
        Ok(wrong.is_empty())
    }

    /// The clerk's and all the offices'.
    fn tally(&self) -> Tally {
        let mut tally = self.known.tally.clone();
        self.offices.iter().for_each(|office| tally.add(&office.tally));
        tally
    }

    /// How to look around.
    fn invite(&mut self) {
        self.narrator.chapter("Look around");
        self.narrator.say("All of it is still running. In another terminal:");
        self.narrator.typed(format_args!("psql {}", self.stage.url()));
        self.narrator.say("and there, besides the queries above:");
        self.narrator.typed(LOOK_AROUND);
        self.narrator.say("What arrives at a receiver is shown here. The relay's log:");
        self.narrator.typed(self.stage.relay_log().display());
        self.narrator.say("^C ends it all.");
        self.narrator.gap();
        self.receivers.iter().for_each(Receiver::announce);
    }
}

/// What the database says to a statement that it must refuse.
async fn refusal(client: &Client, statement: &str) -> Result<String, DemoError> {
    match client.batch_execute(statement).await {
        Ok(()) => Err(DemoError::Unexpected(format!("{statement}: this was not refused"))),
        Err(e) if e.as_db_error().is_some() => Ok(schema::describe(&e)),
        Err(e) => Err(e.into()),
    }
}
