//! Any text, and any valid configuration.

use std::fmt::Write;
use std::time::Duration;

use proptest::prelude::*;

use super::check;

/// Pieces of YAML and of our keys, which meet in ways that nobody would think of.
fn soup() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "listeners",
        "upstreams",
        "routes",
        "limits",
        "admin",
        "database",
        "user",
        "pid_file",
        "working_directory",
        "token_file",
        "pingora",
        "address",
        "name",
        "backends",
        "weight",
        "path",
        "health_check",
        "a",
        "1",
        "-1",
        "1.5",
        "~",
        "null",
        "true",
        "0.0.0.0:80",
        "5s",
        "10MiB",
        "/",
        "\"",
        "'",
        ": ",
        ":",
        ", ",
        "[",
        "]",
        "{",
        "}",
        "- ",
        "\n",
        "\n  ",
        "\n    ",
        "? ",
        "&a ",
        "*a",
        "!t ",
        "!!str ",
        "<<: ",
        "|\n",
        ">\n",
        "#",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "\t",
        "\u{0}",
        "é",
        "99999999999999999999999999",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// Whatever is said of `text` has a path, a line within the text, and a place in order.
fn judge(text: &str) -> Result<(), TestCaseError> {
    if let Err(problems) = check(text) {
        let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
        prop_assert!(!lines.is_empty());
        prop_assert!(lines.is_sorted());
        prop_assert!(problems.iter().all(|problem| !problem.path.is_empty() && !problem.message.is_empty()));
        // What YAML takes for the end of a line.
        let last = 2 + text.matches(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
        prop_assert!(lines.iter().flatten().all(|line| (1..=last).contains(line)), "{:?}", lines);
        prop_assert!(problems.iter().all(|problem| !problem.to_string().contains('\n')));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_gets_an_answer(text in "(?s).{0,80}") {
        judge(&text)?;
    }

    #[test]
    fn any_soup_gets_an_answer(text in soup()) {
        judge(&text)?;
    }

    #[test]
    fn a_good_file_with_a_piece_cut_out_gets_an_answer(from in 0..2000_usize, length in 1..30_usize) {
        let mut text = include_str!("../../../conf/routes.yaml").to_owned();
        let from = from.min(text.len());
        text.replace_range(from..(from + length).min(text.len()), "");
        judge(&text)?;
    }
}

prop_compose! {
    fn pool()(
        backends in prop::collection::btree_map(1..=u16::MAX, 1..=65_535_u32, 1..5),
        balance in prop::sample::select(vec!["round_robin", "random", "least_connections"]),
        retries in 0..=16_u32,
        millis in prop::array::uniform6(1..=86_400_000_u64),
        thresholds in prop::array::uniform2(1..=100_u32),
    ) -> (Vec<(u16, u32)>, &'static str, u32, [u64; 6], [u32; 2]) {
        (backends.into_iter().collect(), balance, retries, millis, thresholds)
    }
}

proptest! {
    /// A file with every key, at any allowed value, is read to just these values.
    #[test]
    fn any_valid_file_is_read_as_written(
        pools in prop::collection::btree_map("[A-Za-z0-9._-]{1,64}", pool(), 1..4),
        ports in prop::collection::btree_set(1..=u16::MAX, 1..4),
        max_body in 1..=1_u64 << 40,
    ) {
        let mut text = String::from("listeners:\n");
        for port in &ports {
            writeln!(text, "  - address: 127.0.0.1:{port}").unwrap();
        }
        text += "upstreams:\n";
        for (name, (backends, balance, retries, [connect, read, write, idle, interval, timeout], [up, down])) in &pools {
            writeln!(text, "  - name: \"{name}\"\n    balance: {balance}\n    retries: {retries}\n    backends:").unwrap();
            for (port, weight) in backends {
                writeln!(text, "      - {{address: \"[::1]:{port}\", weight: {weight}}}").unwrap();
            }
            writeln!(text, "    connect_timeout: {connect}ms\n    read_timeout: {read}ms").unwrap();
            writeln!(text, "    write_timeout: {write}ms\n    idle_timeout: {idle}ms").unwrap();
            writeln!(text, "    health_check: {{interval: {interval}ms, timeout: {timeout}ms, ").unwrap();
            writeln!(text, "      healthy_threshold: {up}, unhealthy_threshold: {down}}}").unwrap();
        }
        text += "routes:\n";
        for (index, name) in pools.keys().enumerate() {
            writeln!(text, "  - {{path: /{index}, upstream: \"{name}\"}}").unwrap();
        }
        writeln!(text, "limits: {{max_body: {max_body}}}\nadmin: {{address: null}}").unwrap();

        let config = check(&text).map_err(|problems| TestCaseError::fail(format!("{problems}\n{text}")))?;
        prop_assert_eq!(config.limits.max_body, max_body);
        prop_assert_eq!(config.listeners.iter().map(|listener| listener.address.port()).collect::<Vec<_>>(), Vec::from_iter(ports));
        prop_assert_eq!(config.upstreams.len(), pools.len());
        for ((pool, route), (name, (backends, balance, retries, millis, thresholds))) in
            config.upstreams.iter().zip(&config.routes).zip(&pools)
        {
            prop_assert_eq!((&pool.name, &route.upstream), (name, name));
            prop_assert_eq!(pool.balance, balance.parse().unwrap());
            prop_assert_eq!(pool.retries, *retries);
            let written: Vec<_> = backends.iter().map(|(port, weight)| (format!("[::1]:{port}"), *weight)).collect();
            let read: Vec<_> = pool.backends.iter().map(|b| (b.address.to_string(), b.weight.get())).collect();
            prop_assert_eq!(read, written);
            let (times, health) = (&pool.timeouts, &pool.health);
            let read = [times.connect, times.read, times.write, times.idle, health.interval, health.timeout];
            prop_assert_eq!(read, millis.map(Duration::from_millis));
            prop_assert_eq!([health.healthy_threshold.get(), health.unhealthy_threshold.get()], *thresholds);
        }
    }
}
