//! The directives of `log.level`.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Whether the text is a level or `module=level` pairs.
///
/// [`EnvFilter`] takes a mistyped level for the name of a module and logs all of that module, so a bare
/// word has to be a level here.
pub(super) fn is_filter(text: &str) -> bool {
    // An empty word parses as a level too.
    let plausible = |part: &str| {
        !part.is_empty() && (part.parse::<LevelFilter>().is_ok() || part.contains(['=', '[', '{', ']', '}']))
    };
    text.split(',').all(|part| plausible(part.trim())) && EnvFilter::builder().parse(text).is_ok()
}

/// The directives, raised as often as `-v` was given: once outboxd's own modules to debug, twice
/// everything. What is logged in more detail already stays.
pub(super) fn raised(text: &str, verbosity: u8) -> String {
    let level_of = |name: &str| {
        text.split(',').rev().find_map(|part| match part.trim().split_once('=') {
            Some((target, level)) if target == name => level.parse::<LevelFilter>().ok(),
            None if name.is_empty() => part.trim().parse().ok(),
            _ => None,
        })
    };
    let general = level_of("").unwrap_or(LevelFilter::ERROR);
    let own = level_of("outboxd").unwrap_or(general);
    let mut text = text.to_owned();
    if verbosity >= 1 && own < LevelFilter::DEBUG {
        text.push_str(",outboxd=debug");
    }
    if verbosity >= 2 && general < LevelFilter::DEBUG {
        text.push_str(",debug");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_not_taken_for_a_module() {
        for text in ["info", "off", "INFO", "warn,outboxd::send=trace", "info,[delivery]=debug"] {
            assert!(is_filter(text), "{text}");
        }
        for text in ["", "infoo", "info,", "outboxd", "outboxd=loud"] {
            assert!(!is_filter(text), "{text}");
        }
    }

    #[test]
    fn verbosity_raises_and_never_lowers() {
        assert_eq!(raised("info", 0), "info");
        assert_eq!(raised("info", 1), "info,outboxd=debug");
        assert_eq!(raised("info", 2), "info,outboxd=debug,debug");
        assert_eq!(raised("info,hyper=warn,outboxd=info", 1), "info,hyper=warn,outboxd=info,outboxd=debug");
        assert_eq!(raised("trace", 2), "trace");
        assert_eq!(raised("warn,outboxd=trace", 1), "warn,outboxd=trace");
    }
}
