//! The fleet.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::{START, check, lines};
use crate::config::load::load_text;
use crate::config::{Overrides, parse_fleet};
use crate::fleet::{FleetSettings, StoreTls, WhenUnreachable};

/// What a fleet of this store is with nothing else said.
fn plain(store: &str) -> FleetSettings {
    FleetSettings {
        store: store.parse().unwrap(),
        password_file: None,
        tls: StoreTls::default(),
        prefix: "tollgate".to_owned(),
        node: None,
        lease: Duration::from_millis(100),
        timeout: Duration::from_millis(25),
        max_asks: 1024.try_into().unwrap(),
        when_unreachable: WhenUnreachable::Share,
    }
}

#[test]
fn a_fleet_is_what_is_written_or_its_defaults() {
    let fleet = |text: &str| check(&format!("{START}{text}")).unwrap().fleet;
    assert_eq!((fleet(""), fleet("fleet: null\n")), (None, None));
    assert_eq!(fleet("fleet: {store: redis://10.0.0.5:6379/0}\n"), Some(plain("redis://10.0.0.5")));
    let nothing = "tls: {ca: null, cert: null, key: null}, password_file: null, node: null";
    assert_eq!(fleet(&format!("fleet: {{store: rediss://a, {nothing}}}\n")), Some(plain("rediss://a")));
    assert_eq!(fleet("fleet: {store: rediss://a, tls: null}\n"), Some(plain("rediss://a")));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, " a b\r\n").unwrap();
    let all = format!(
        "fleet:\n  store: redis+sentinel://u@a,b:1/main/2\n  password_file: {}\n  prefix: p\n  node: edge-1\n  lease: \
         10ms\n  timeout: 1s\n  max_asks: 1\n  when_unreachable: refuse\n",
        file.display()
    );
    let expected = FleetSettings {
        password_file: Some(file.clone()),
        prefix: "p".to_owned(),
        node: Some("edge-1".to_owned()),
        lease: Duration::from_millis(10),
        timeout: Duration::from_secs(1),
        max_asks: 1.try_into().unwrap(),
        when_unreachable: WhenUnreachable::Refuse,
        ..plain("redis+sentinel://u@a,b:1/main/2")
    };
    assert_eq!(fleet(&all), Some(expected));
}

#[test]
fn the_environments_store_makes_a_fleet_and_counts_before_the_files() {
    let fleet = Some(parse_fleet("redis://:secret@other").unwrap());
    let overrides = Overrides { fleet, ..Overrides::default() };
    let of = |text: &str| load_text("f.yaml", &format!("{START}{text}"), &overrides, &|_| None);
    let store = |text: &str| of(text).unwrap().fleet.unwrap().store;
    for text in ["", "fleet: null\n", "fleet: {prefix: p}\n", "fleet: {store: redis://a}\n"] {
        let store = store(text);
        assert_eq!((store.to_string().as_str(), store.password.as_deref()), ("redis://other:6379", Some("secret")));
    }
    assert_eq!(of("fleet: {prefix: p}\n").unwrap().fleet.unwrap().prefix, "p");
    assert_eq!(
        lines(of("database: null\n")),
        ["database: must be the path of a file with `fleet`, where this node keeps the clients, not null (line 5)"]
    );
    assert!(parse_fleet("http://a").unwrap_err().to_string().starts_with("must begin with redis://"));
}

#[test]
fn files_of_the_fleet_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (empty, two) = (file("empty", "\n"), file("two", "a\nb\n"));
    let said = |keys: &str| lines(check(&format!("{START}fleet: {{{keys}}}\n")));
    let told = |file: &str, what: &str| [format!("fleet.password_file: {file}: {what} (line 5)")];
    for (path, what) in [
        (empty.as_str(), "is empty, must hold the store's password"),
        (&two, "must hold one line, the store's password"),
        ("/nowhere/at/all", "there is no such file"),
    ] {
        assert_eq!(said(&format!("store: redis://a, password_file: {path}")), told(path, what));
    }
    let password = file("open", "hunter2");
    std::fs::set_permissions(&password, Permissions::from_mode(0o644)).unwrap();
    let config = check(&format!("{START}fleet: {{store: redis://a, password_file: {password}}}\n")).unwrap();
    let why = format!("is open to every user of this machine (mode 644); `chmod 600 {password}` closes it");
    assert_eq!(config.warnings, [format!("fleet.password_file: {password} {why}")]);
    let certified = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let (cert, key) =
        (file("cert.pem", &certified.cert.pem()), file("key.pem", &certified.signing_key.serialize_pem()));
    let tls = |store: &str, keys: &str| said(&format!("store: {store}, tls: {{{keys}}}"));
    assert_eq!(tls("rediss://a", &format!("ca: {cert}, cert: {cert}, key: {key}")), [""; 0]);
    let plain = "must be null with redis://a:6379: over TLS the address begins with rediss:// (line 5)";
    assert_eq!(
        tls("redis://a", &format!("ca: {cert}, cert: {cert}, key: {key}")),
        [format!("fleet.tls.ca: {plain}"), format!("fleet.tls.cert: {plain}"), format!("fleet.tls.key: {plain}")]
    );
    let alone = "is missing, must be the path of a PEM file";
    assert_eq!(
        tls("rediss://a", &format!("ca: {cert}, cert: {cert}")),
        [format!("fleet.tls.key: {alone}: cert is of no use without it (line 5)")]
    );
    assert_eq!(
        tls("rediss://a", &format!("ca: {cert}, key: {key}")),
        [format!("fleet.tls.cert: {alone}: key is of no use without it (line 5)")]
    );
    for (keys, at) in [
        (format!("ca: {empty}"), "fleet.tls.ca: "),
        ("ca: /nowhere/at/all".to_owned(), "fleet.tls.ca: "),
        (format!("ca: {cert}, cert: {key}, key: {key}"), "fleet.tls.cert: "),
    ] {
        let said = tls("rediss://a", &keys);
        assert!(said.len() == 1 && said[0].starts_with(at), "{keys}: {said:?}");
    }
}
