//! Exploring a model, and saying what came of it: on the standard output, and in `target/faults/model.txt`.

use stateright::{Checker, Model, Property};
use std::fmt::Debug;
use std::fs::{self, File};
use std::hash::Hash;
use std::io::{Read, Seek, Write};
use std::path::Path;

/// The one property: no invariant is broken. One alone, because then breadth first finds its shortest counterexample.
const HOLDS: &str = "every invariant holds";

/// A model that knows which of its invariants a state breaks.
pub(crate) trait Protocol:
    Model<State: Clone + Debug + PartialEq + Hash + Send + Sync, Action: Clone + Debug + PartialEq> + Send + Sync + 'static
{
    /// The invariant that this state breaks.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;
}

/// For `Model::properties`.
pub(crate) fn invariants<P: Protocol>() -> Vec<Property<P>> {
    vec![Property::always(HOLDS, |model, state| model.broken(state).is_none())]
}

/// `OUTBOXD_MODEL_BOUND`: so much is added to what bounds each model. What make test explores has 0.
pub(crate) fn bound() -> u8 {
    std::env::var("OUTBOXD_MODEL_BOUND").map_or(0, |n| n.parse().expect("OUTBOXD_MODEL_BOUND is a small number"))
}

/// All that can be reached breaks nothing.
pub(crate) fn holds(name: &str, protocol: impl Protocol) {
    let report = Report::begin(format!("model {name}"));
    let checked = protocol.checker().spawn_bfs().join();
    if let Some(path) = checked.discovery(HOLDS) {
        let broken = checked.model().broken(path.last_state()).unwrap_or_default();
        let steps = path.into_actions();
        panic!("model {name}: {broken}, after {} steps: {steps:#?}", steps.len());
    }
    assert!(checked.is_done(), "model {name}: not all of it was explored");
    report.end(&format!("{} states, depth {}, holds", checked.unique_state_count(), checked.max_depth()));
}

/// Something that can be reached breaks that invariant, and nothing breaks another in fewer steps.
pub(crate) fn fails(name: &str, variant: &str, protocol: impl Protocol, invariant: &str) {
    let report = Report::begin(format!("model {name}, {variant}"));
    let checked = protocol.checker().spawn_bfs().join();
    let path = checked.discovery(HOLDS).unwrap_or_else(|| panic!("model {name}, {variant}: holds, and must not"));
    assert_eq!(checked.model().broken(path.last_state()), Some(invariant), "model {name}, {variant}");
    let steps = path.into_actions();
    report.end(&format!("fails after {} steps (as it must)", steps.len()));
    println!("    {invariant}: {}", steps.iter().map(|step| format!("{step:?}")).collect::<Vec<_>>().join(", "));
}

/// One line of the report, taken out while it is being found anew: what fails leaves none.
struct Report {
    subject: String,
}

impl Report {
    fn begin(subject: String) -> Self {
        let report = Self { subject };
        report.replace_by(None);
        report
    }

    fn end(self, result: &str) {
        println!("{}: {result}", self.subject);
        // With other bounds the figures are others.
        if bound() == 0 {
            self.replace_by(Some(result));
        }
    }

    /// Each test has its line, and they may run as threads of one process or as processes of their own.
    fn replace_by(&self, result: Option<&str>) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/faults");
        fs::create_dir_all(&folder).expect("target can be written");
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(folder.join("model.txt"));
        let file = file.as_mut().expect("the report can be opened");
        file.lock().expect("the report can be locked");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("the report is text");
        let mut lines: Vec<(String, String)> = text
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(subject, result)| (subject.to_owned(), result.to_owned()))
            .filter(|(subject, _)| *subject != self.subject)
            .collect();
        lines.extend(result.map(|result| (self.subject.clone(), result.to_owned())));
        lines.sort();
        let text: String = lines.iter().map(|(subject, result)| format!("{subject}: {result}\n")).collect();
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes())).expect("written");
    }
}
