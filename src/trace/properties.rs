//! `traceparent` against the grammar of the specification, position by position.

use super::*;
use proptest::prelude::*;

/// <https://www.w3.org/TR/trace-context/#traceparent-header-field-values>
fn is_traceparent(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_hex = |from: usize, to: usize| bytes[from..to].iter().all(|byte| b"0123456789abcdef".contains(byte));
    let is_nothing = |from: usize, to: usize| bytes[from..to].iter().all(|byte| *byte == b'0');
    bytes.len() >= 55
        && is_hex(0, 2)
        && &bytes[..2] != b"ff"
        && [bytes[2], bytes[35], bytes[52]] == *b"---"
        && is_hex(3, 35)
        && is_hex(36, 52)
        && is_hex(53, 55)
        && !is_nothing(3, 35)
        && !is_nothing(36, 52)
        && (bytes.len() == 55 || (&bytes[..2] != b"00" && bytes[55] == b'-'))
}

proptest! {
    #[test]
    fn a_header_is_read_if_the_grammar_has_it(
        header in "(00|01|cc|ff)-(0{32}|[0-9a-f]{32})-(0{16}|[0-9a-f]{16})-[0-9a-f]{2}(-[a-z]{0,4})?",
        at in any::<proptest::sample::Index>(),
        change in proptest::option::of(prop_oneof!["", "[0-9a-fA-F+ -]", "\\PC"]),
    ) {
        let mut header = header;
        if let Some(change) = change {
            let at = at.index(header.len());
            header.replace_range(at..=at, &change);
        }
        let read = TraceContext::parse(&header);
        prop_assert_eq!(read.is_some(), is_traceparent(&header), "{}", header);
        if let Some(context) = read {
            prop_assert_eq!(&context.to_string()[3..], &header[3..55]);
        }
    }
}
