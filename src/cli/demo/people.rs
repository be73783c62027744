//! What the season is made of: clubs, names, competitions. Drawn from with a fixed seed, so that every
//! run tells the same story.

/// The season everything happens in.
pub(super) const SEASON: i32 = 2025;

/// Department and name; the club's number is its department and its place in this list.
pub(super) const CLUBS: [(&str, &str); 8] = [
    ("13", "La Ciotat Pétanque"),
    ("13", "La Boule Phocéenne"),
    ("84", "Les Amis du Rocher"),
    ("06", "La Boule d'Azur"),
    ("30", "Pétanque des Arènes"),
    ("83", "La Fanny Toulonnaise"),
    ("34", "Le Cochonnet Biterrois"),
    ("04", "Le Carreau de Manosque"),
];

/// Members of each club.
pub(super) const MEMBERS: usize = 12;

const FIRST_NAMES: [&str; 40] = [
    "Adèle",
    "Alain",
    "Amina",
    "Anaïs",
    "André",
    "Bastien",
    "Brigitte",
    "Cédric",
    "Chantal",
    "Claude",
    "Colette",
    "Damien",
    "Denis",
    "Élodie",
    "Émile",
    "Fabienne",
    "Farid",
    "Gérard",
    "Ginette",
    "Henri",
    "Inès",
    "Jean-Luc",
    "Josette",
    "Karim",
    "Lucie",
    "Lucien",
    "Magali",
    "Marcel",
    "Marius",
    "Mireille",
    "Nadia",
    "Norbert",
    "Odette",
    "Pascal",
    "Raymonde",
    "René",
    "Sylvain",
    "Thérèse",
    "Yvette",
    "Zoé",
];

const LAST_NAMES: [&str; 40] = [
    "Amato",
    "Arnaud",
    "Aubert",
    "Barthélemy",
    "Benali",
    "Blanc",
    "Bonnefoy",
    "Bouchard",
    "Brun",
    "Castellani",
    "Chabert",
    "Cohen",
    "Daumas",
    "Delmas",
    "Esposito",
    "Fabre",
    "Faure",
    "Garcin",
    "Gastaldi",
    "Giraud",
    "Imbert",
    "Jourdan",
    "Khelifi",
    "Lombard",
    "Marchetti",
    "Martin",
    "Mistral",
    "Nguyen",
    "Olive",
    "Pagnol",
    "Pellegrin",
    "Quilichini",
    "Reynaud",
    "Ricard",
    "Roux",
    "Sabatier",
    "Tosello",
    "Vial",
    "Villeneuve",
    "Ziani",
];

/// A competition as its organiser announces it.
#[derive(Debug)]
pub(super) struct Announced {
    /// Its name.
    pub(super) name: &'static str,
    /// `doublette` or `triplette`.
    pub(super) format: &'static str,
    /// Whom it is open to.
    pub(super) level: &'static str,
    /// The organising club, as a place in [`CLUBS`].
    pub(super) club: usize,
    /// The first day, as a date of ISO 8601.
    pub(super) starts_on: &'static str,
}

const fn announced(
    name: &'static str,
    format: &'static str,
    level: &'static str,
    club: usize,
    starts_on: &'static str,
) -> Announced {
    Announced { name, format, level, club, starts_on }
}

/// Two a weekend.
pub(super) const COMPETITIONS: [Announced; 8] = [
    announced("Challenge de la Première Boule", "doublette", "regional", 0, "2025-04-05"),
    announced("Concours du Vieux-Port", "triplette", "regional", 1, "2025-04-05"),
    announced("Grand Prix du Pont Saint-Bénézet", "doublette", "national", 2, "2025-05-17"),
    announced("Souvenir Fanny Dubriand", "triplette", "regional", 3, "2025-05-17"),
    announced("Prix de la Feria", "doublette", "departmental", 4, "2025-06-07"),
    announced("Nocturne de la Rade", "triplette", "regional", 5, "2025-06-07"),
    announced("Grand Prix de la Saint-Aphrodise", "doublette", "national", 6, "2025-07-12"),
    announced("Trophée de la Durance", "triplette", "departmental", 7, "2025-07-12"),
];

/// The one whose transaction stays open while all the others are played.
pub(super) const CHAMPIONSHIP: Announced = announced("Championnat de France", "triplette", "national", 2, "2025-09-20");

/// A club's number.
pub(super) fn club_id(club: usize) -> String {
    format!("{}{:02}", CLUBS[club].0, club + 1)
}

/// A registration form as a club's secretary fills it in.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) license_number: String,
    pub(super) member_id: i32,
    pub(super) first_name: &'static str,
    pub(super) last_name: &'static str,
    pub(super) birth_year: i32,
    pub(super) insured: bool,
}

impl Form {
    /// The `number`th member of a club.
    pub(super) fn draw(random: &mut fastrand::Rng, club: usize, number: usize) -> Self {
        Self {
            license_number: format!("{}{number:04}", club_id(club)),
            member_id: (club * 100 + number) as i32,
            first_name: FIRST_NAMES[random.usize(..FIRST_NAMES.len())],
            last_name: LAST_NAMES[random.usize(..LAST_NAMES.len())],
            birth_year: SEASON - random.i32(12..80),
            insured: random.u32(..10) < 6,
        }
    }

    /// The category of age.
    pub(super) fn category(&self) -> &'static str {
        match SEASON - self.birth_year {
            ..18 => "junior",
            18..60 => "senior",
            _ => "veteran",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_run_draws_the_same_members_with_numbers_of_their_own() {
        let draw = || {
            let mut random = fastrand::Rng::with_seed(1);
            let numbered = (0..CLUBS.len()).flat_map(|club| (1..=MEMBERS).map(move |number| (club, number)));
            numbered.map(|(club, number)| Form::draw(&mut random, club, number)).collect::<Vec<_>>()
        };
        let (forms, again) = (draw(), draw());
        assert_eq!(format!("{forms:?}"), format!("{again:?}"));
        let numbers: BTreeSet<_> = forms.iter().map(|form| form.license_number.clone()).collect();
        let members: BTreeSet<_> = forms.iter().map(|form| form.member_id).collect();
        assert_eq!((numbers.len(), members.len()), (forms.len(), forms.len()));
    }
}
