use proptest::prelude::*;

use super::*;

const ONE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn written(parent: TraceParent) -> String {
    let mut out = Vec::new();
    parent.put(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn what_is_right_is_read_and_written_as_this_version() {
    for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("03", true), ("ff", true), ("fe", false)] {
        let parent = TraceParent::parse(format!("{}{flags}", &ONE[..53]).as_bytes()).unwrap();
        assert_eq!(written(parent), format!("{}{}", &ONE[..53], if sampled { "01" } else { "00" }), "{flags}");
    }
    for later in ["01", "cc", "fe"] {
        for more in ["", "-", "-what-the-future-will-be-like"] {
            let parent = TraceParent::parse(format!("{later}{}{more}", &ONE[2..]).as_bytes());
            assert_eq!(parent.map(written).as_deref(), Some(ONE), "{later} {more}");
        }
    }
}

/// The cases of W3C's own test suite, and a few more.
#[test]
fn what_is_wrong_is_none() {
    let cases = [
        String::new(),
        "00".to_owned(),
        ONE[..54].to_owned(),
        format!("{ONE}-"),
        format!("{ONE}-00"),
        format!("{ONE} "),
        format!(" {ONE}"),
        format!("ff{}", &ONE[2..]),
        format!("01{}.what", &ONE[2..]),
        format!("0{}", &ONE[1..54]),
        format!(".0{}", &ONE[2..]),
        ONE.to_uppercase(),
        ONE.replace("4bf9", "4BF9"),
        ONE.replace("4bf9", "xbf9"),
        ONE.replace('-', "_"),
        ONE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
        ONE.replace("00f067aa0ba902b7", &"0".repeat(16)),
        ONE.replace("-01", "-.1"),
        ONE.replace("-01", "-1"),
        format!("{ONE},{ONE}"),
    ];
    for case in cases {
        assert_eq!(TraceParent::parse(case.as_bytes()), None, "{case:?}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(trace in 1_u128.., span in 1_u64.., sampled: bool) {
        let (trace, span) = (TraceId(trace.try_into().unwrap()), SpanId(span.try_into().unwrap()));
        let parent = TraceParent { trace, span, sampled };
        prop_assert_eq!(TraceParent::parse(written(parent).as_bytes()), Some(parent));
    }

    #[test]
    fn no_bytes_panic_and_what_is_read_has_two_names(value in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,4})?".prop_map(String::into_bytes),
        "[0-9a-fA-F-]{50,58}".prop_map(String::into_bytes),
    ]) {
        if let Some(parent) = TraceParent::parse(&value) {
            prop_assert_eq!(&written(parent).into_bytes()[2..53], &value[2..53]);
        }
    }
}

fn trace(sent: &[&str], trusted: bool, sample: f64) -> RequestTrace {
    let settings = TracingSettings { propagate: true, sample, otlp: None };
    let tracing = Tracing { settings, queue: Arc::default() };
    RequestTrace::of(sent.iter().map(|value| value.as_bytes()), trusted, &tracing)
}

#[test]
fn a_trace_goes_on_with_a_span_of_ours_or_begins() {
    let given = TraceParent::parse(ONE.as_bytes()).unwrap();
    let (first, second) = (trace(&[ONE], false, 1.0), trace(&[ONE], false, 1.0));
    assert_eq!((first.own.trace, first.parent), (given.trace, Some(given.span)));
    assert!(first.own.span != given.span && first.own.span != second.own.span);
    for sent in [&[][..], &["?"], &[ONE, ONE], &["", ONE]] {
        let (first, second) = (trace(sent, true, 1.0), trace(sent, true, 1.0));
        assert_eq!((first.parent, second.parent), (None, None), "{sent:?}");
        assert!(first.own.trace != given.trace && first.own.trace != second.own.trace, "{sent:?}");
    }
}

#[test]
fn only_a_trusted_proxy_says_what_is_written_down() {
    let not = ONE.replace("-01", "-00");
    for (sent, sampled) in [(ONE, true), (&not, false)] {
        for (sample, chosen) in [(0.0, false), (1.0, true)] {
            assert_eq!(trace(&[sent], true, sample).own.sampled, sampled);
            assert_eq!(trace(&[sent], false, sample).own.sampled, chosen);
            assert_eq!(trace(&[&sent[1..]], true, sample).own.sampled, chosen);
        }
    }
    // 4,000 throws of a fair coin are this far from the half once in 10²⁰.
    let heads = (0..4_000).filter(|_| trace(&[ONE], false, 0.5).own.sampled).count();
    assert!((1_700..2_300).contains(&heads), "{heads}");
}
