//! What events carry: made up and of a given size, or real.
//!
//! The made-up ones look like an order: many keys, numbers, names, identifiers, words. A repeated letter would be
//! compressed to nothing where PostgreSQL moves large values out of line, and would flatter every figure.

use super::{Arguments, BenchError};
use fastrand::Rng;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Where `make bench` installs them.
const REAL: &str = "target/bench/payloads/node_modules/@octokit/webhooks-examples/api.github.com/index.json";

/// So many different ones of a size: more than stay in any cache of a core, few enough to keep at hand.
const VARIETY: u64 = 256;

const WORDS: &str = "account address amount arrived bank before between blue box cancelled card careful carrier cash \
    change charge city claim class code colour confirmed copper cotton country courier credit customer damaged date \
    day delayed delivery deposit desk discount door double early east edge empty exchange express fee field fine first \
    fold fragile free friday garden gift glass gold goods green handle harbour heavy hold home hour house inside invoice \
    item july key kilogram label large late leather left length letter light limit line linen list local long lower \
    market measure metal monday morning narrow neighbour new night north note number oak office old open order original \
    outside packed page paid pair paper parcel partial payment phone piece pine plain please policy porch postal price \
    print promised quantity quarter quick rate ready rear receipt red refund remaining remark repaired replaced return \
    reverse right road roll round sample second section sent september set shelf ship short side signature silver size \
    small solid south special spring stairs standard stock stone store street summer supplier surcharge tax terms thick \
    thin third thursday ticket today tomorrow total tracking transfer truck tuesday under unit until upper urgent valid \
    value voucher warehouse warranty water weekend weight west white wide window winter with without wood wool yellow";

/// A set of payloads that events take in turn.
#[derive(Clone)]
pub(super) struct Payloads {
    /// For people.
    pub(super) name: String,
    /// Type of the event, and payload.
    pub(super) texts: Vec<(String, String)>,
}

impl Payloads {
    /// Made up, each of exactly so many bytes, and the same in every run; 200 at least.
    pub(super) fn of_size(bytes: usize) -> Self {
        let mut rng = Rng::with_seed(bytes as u64);
        let texts = (0..VARIETY).map(|_| ("order.updated".to_owned(), order(&mut rng, bytes))).collect();
        Self { name: size(bytes), texts }
    }

    /// Real ones, of a file or a directory of JSON files: as `@octokit/webhooks-examples` has them (a list of objects
    /// with `name` and `examples`), or a payload a file.
    ///
    /// # Errors
    /// If there are none; says where they were looked for.
    pub(super) fn real(arguments: &Arguments) -> Result<Self, String> {
        let path = arguments.payloads.clone().unwrap_or_else(|| PathBuf::from(REAL));
        let texts = read(&path).map_err(|e| {
            let way =
                if arguments.payloads.is_none() { "; make bench installs them, --payloads names others" } else { "" };
            format!("{}: {e}{way}", path.display())
        })?;
        let name = if arguments.payloads.is_none() { "octokit".into() } else { path.display().to_string() };
        Ok(Self { name, texts })
    }

    /// One after the other, from the start again after the last.
    pub(super) fn nth(&self, n: u64) -> &(String, String) {
        &self.texts[(n % self.texts.len() as u64) as usize]
    }

    pub(super) fn mean_bytes(&self) -> f64 {
        self.texts.iter().map(|(_, text)| text.len()).sum::<usize>() as f64 / self.texts.len() as f64
    }
}

/// As people say it.
pub(super) fn size(bytes: usize) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0).replace(".0 ", " ")
}

fn read(path: &Path) -> Result<Vec<(String, String)>, BenchError> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
        files.sort();
    }
    let mut texts = vec![];
    for file in files {
        match serde_json::from_str(&std::fs::read_to_string(&file)?)? {
            Value::Array(events) => {
                for event in &events {
                    let name = event["name"].as_str().unwrap_or("event");
                    let examples = event["examples"].as_array().into_iter().flatten();
                    texts.extend(examples.map(|example| (format!("github.{name}"), example.to_string())));
                }
            }
            payload => texts.push(("bench.event".to_owned(), payload.to_string())),
        }
    }
    if texts.is_empty() { Err("no payloads in it".into()) } else { Ok(texts) }
}

fn words(rng: &mut Rng, count: usize) -> String {
    let all: Vec<&str> = WORDS.split_whitespace().collect();
    (0..count).map(|_| all[rng.usize(..all.len())]).collect::<Vec<_>>().join(" ")
}

fn id(rng: &mut Rng) -> String {
    uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid().to_string()
}

fn money(rng: &mut Rng) -> f64 {
    f64::from(rng.u32(100..100_000)) / 100.0
}

/// An order with as many lines as fit, filled up to the byte with its remark.
fn order(rng: &mut Rng, bytes: usize) -> String {
    let mut order = json!({
        "order_id": id(rng), "number": rng.u32(100_000..999_999), "total": money(rng), "currency": "EUR", "paid": rng.bool(),
        "lines": [], "remark": "",
    });
    if bytes >= 400 {
        order["customer"] = json!({ "customer_id": id(rng), "name": words(rng, 2), "vip": rng.bool(),
            "email": format!("{}.{}@example.com", words(rng, 1), rng.u32(..)) });
    }
    let mut length = order.to_string().len();
    loop {
        let line = json!({ "sku": format!("{:08X}", rng.u32(..)), "quantity": rng.u32(1..20), "price": money(rng),
            "tax_rate": f64::from(rng.u8(..20)) / 100.0, "name": words(rng, 4), "tracking": id(rng), "weight_g": rng.u32(10..30_000) });
        length += line.to_string().len() + 1;
        if length > bytes {
            break;
        }
        if let Some(lines) = order["lines"].as_array_mut() {
            lines.push(line);
        }
    }
    let room = bytes.saturating_sub(order.to_string().len());
    order["remark"] = words(rng, room)[..room].into();
    order.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn made_up_payloads_are_json_of_exactly_their_size_and_no_two_are_the_same() {
        for bytes in [300, 1024, 16 << 10] {
            let payloads = Payloads::of_size(bytes);
            assert_eq!(payloads.texts.iter().map(|(_, text)| text).collect::<HashSet<_>>().len(), VARIETY as usize);
            for (_, text) in &payloads.texts {
                assert_eq!(text.len(), bytes);
                let value: Value = serde_json::from_str(text).expect("JSON");
                assert!(value["total"].is_number());
            }
            assert!(payloads.texts == Payloads::of_size(bytes).texts, "the same every time");
        }
    }

    #[test]
    fn sizes_are_told_as_people_say_them() {
        assert_eq!([307, 1024, 1536, 10 << 10].map(size), ["0.3 KiB", "1 KiB", "1.5 KiB", "10 KiB"]);
    }
}
