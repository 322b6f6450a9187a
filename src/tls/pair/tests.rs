use std::fs::Permissions;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, date_time_ymd};
use tempfile::TempDir;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::tls::TlsListeners;

/// A directory with files of a pair.
struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new(cert: &str, key: &str) -> Self {
        let fixture = Fixture { dir: TempDir::new().unwrap() };
        std::fs::write(fixture.files().cert, cert).unwrap();
        std::fs::write(fixture.files().key, key).unwrap();
        std::fs::set_permissions(fixture.files().key, Permissions::from_mode(0o600)).unwrap();
        fixture
    }

    fn files(&self) -> PairFiles {
        PairFiles { cert: self.dir.path().join("cert.pem"), key: self.dir.path().join("key.pem") }
    }

    fn load(&self) -> Result<(Pair, Vec<Flaw>), Vec<Flaw>> {
        Pair::load(&self.files(), SystemClock.wall())
    }

    /// What is wrong, without the files' directory.
    fn flaws(&self) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().display());
        self.load().unwrap_err().iter().map(|flaw| flaw.to_string().replace(&dir, "")).collect()
    }
}

/// A certificate for a time, and its key.
fn made(years: (i32, i32)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    (certificate(&key, years), key.serialize_pem())
}

fn certificate(key: &KeyPair, (from, to): (i32, i32)) -> String {
    let mut params = CertificateParams::new(vec!["test.example".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    params.self_signed(key).unwrap().pem()
}

const NOW: (i32, i32) = (2020, 2099);

#[test]
fn keys_of_every_kind_are_loaded() {
    for kind in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(kind).unwrap();
        let (pair, unwise) = Fixture::new(&certificate(&key, NOW), &key.serialize_pem()).load().unwrap();
        assert_eq!(unwise, [], "{pair:?}");
    }
}

#[test]
fn keys_are_read_in_all_their_forms() {
    let rsa = include_str!("fixtures/rsa-cert.pem");
    for (name, cert, key) in [
        ("PKCS #1", rsa, include_str!("fixtures/rsa-pkcs1.pem")),
        ("PKCS #8", rsa, include_str!("fixtures/rsa-pkcs8.pem")),
        // With the parameters of the curve before it, as OpenSSL writes it.
        ("SEC 1", include_str!("fixtures/ec-cert.pem"), include_str!("fixtures/ec-sec1.pem")),
    ] {
        Fixture::new(cert, key).load().unwrap_or_else(|flaws| panic!("{name}: {flaws:?}"));
    }
}

#[test]
fn each_flaw_is_named() {
    let (cert, key) = made(NOW);
    let (other, _) = made(NOW);
    let (_, der) = pem_bytes(&cert);
    for (cert, key, expected) in [
        ("", key.as_str(), "cert: cert.pem: holds no certificate, must be PEM with a section BEGIN CERTIFICATE"),
        (&cert, "", "key: key.pem: holds no private key, must be PEM with a section BEGIN PRIVATE KEY"),
        (&cert, "hello", "key: key.pem: holds no private key, must be PEM with a section BEGIN PRIVATE KEY"),
        (&key, &key, "cert: cert.pem: holds a private key and no certificate; are `cert` and `key` swapped?"),
        (&cert, &cert, "key: key.pem: holds a certificate and no private key; are `cert` and `key` swapped?"),
        (&other, &key, "key: key.pem: the private key is not that of the certificate in cert.pem"),
        (&cert[..cert.len() / 2], &key, "cert: cert.pem: is damaged PEM: a section has no END line"),
        (
            "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
            &key,
            "cert: cert.pem: is damaged PEM: a section is not Base64, or its first line is broken",
        ),
        (
            &format!("{cert}-----BEG"),
            &key,
            "cert: cert.pem: is damaged PEM: it ends within the first line of a section",
        ),
        (
            &format!("{cert}{}", &cert[..cert.len() - 5]),
            &key,
            "cert: cert.pem: is damaged PEM: a section has no END line",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key,
            "cert: cert.pem: the certificate is damaged, or none of X.509",
        ),
    ] {
        let flaws = Fixture::new(cert, key).flaws();
        assert_eq!(
            flaws[0].split("; cert is the").next().and_then(|it| it.split("; key is the").next()),
            Some(expected)
        );
    }
    let fixture = Fixture::new("", &key);
    std::fs::write(fixture.files().cert, der).unwrap();
    assert!(fixture.flaws()[0].ends_with("; this looks like DER, which `openssl` turns into PEM"));
}

/// The text and the bytes in it.
fn pem_bytes(text: &str) -> (&str, Vec<u8>) {
    use rustls::pki_types::pem::PemObject;
    (text, CertificateDer::from_pem_slice(text.as_bytes()).unwrap().to_vec())
}

#[test]
fn everything_is_told_at_once() {
    let (_, key) = made(NOW);
    let of_another = Fixture::new(&made((2001, 2002)).0, &key).flaws();
    assert!(
        of_another.len() == 1 && of_another[0].contains("is not that of"),
        "expired, which is no flaw: {of_another:?}"
    );
    let fixture = Fixture::new("", "");
    std::fs::remove_file(fixture.files().cert).unwrap();
    std::fs::remove_file(fixture.files().key).unwrap();
    std::fs::create_dir(fixture.files().key).unwrap();
    let expected = ["cert: cert.pem: there is no such file", "key: key.pem: this is a directory, not a file"];
    assert_eq!(fixture.flaws(), expected);
}

#[test]
fn an_encrypted_key_is_called_that() {
    let (cert, _) = made(NOW);
    for text in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
    ] {
        let flaws = Fixture::new(&cert, text).flaws();
        assert!(flaws.len() == 1 && flaws[0].contains("the private key is encrypted"), "{flaws:?}");
    }
}

#[test]
fn no_byte_of_a_key_is_shown() {
    let (cert, key) = made(NOW);
    let secret = key.lines().nth(1).unwrap();
    for text in [key.replace("-----END", ""), format!("-----BEGIN {secret}"), key.replace('A', "!")] {
        let fixture = Fixture::new(&cert, &text);
        let said = format!("{:?} {:?}", fixture.load(), Fixture::new(&cert, &key).load());
        assert!(!said.contains(&secret[..16]), "{said}");
    }
}

#[test]
fn what_is_not_wise_is_a_warning() {
    let (cert, key) = made(NOW);
    let fixture = Fixture::new(&cert, &key);
    std::fs::set_permissions(fixture.files().key, Permissions::from_mode(0o644)).unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    let ends = fixture.load().unwrap().0.ends();
    let (_, unwise) = Pair::load(&fixture.files(), ends - 13 * day).unwrap();
    let [soon, open] = &unwise[..] else { panic!("{unwise:?}") };
    assert!(soon.part == Part::Cert && soon.message.ends_with("the certificate ends soon, on 2099-01-01 00:00 UTC"));
    assert!(open.part == Part::Key && open.message.contains("is open to every user of this machine (mode 644)"));
    let (_, unwise) = Pair::load(&fixture.files(), ends - 15 * day).unwrap();
    assert_eq!(unwise.len(), 1, "there is time enough: {unwise:?}");
    assert_eq!(Pair::load(&fixture.files(), ends + day).unwrap().1.len(), 1, "that it has ended is told apart");
    // One of the chain that has expired does not keep the listener from serving.
    let chain = Fixture::new(&[cert, made((2001, 2002)).0].concat(), &key);
    let (_, unwise) = chain.load().unwrap();
    assert!(unwise[0].message.ends_with("certificate 2 of the chain: the certificate expired on 2002-01-01 00:00 UTC"));
}

#[test]
fn one_that_is_not_valid_now_is_loaded_and_says_why() {
    for (years, why) in
        [((2001, 2002), "expired on 2002-01-01 00:00 UTC"), ((2098, 2099), "is not valid before 2098-01-01 00:00 UTC")]
    {
        let (cert, key) = made(years);
        let fixture = Fixture::new(&cert, &key);
        let (pair, unwise) = fixture.load().unwrap();
        assert_eq!(unwise, []);
        let expected = format!("cert: {}: the certificate {why}", fixture.files().cert.display());
        assert_eq!(pair.lapse(SystemClock.wall()).unwrap().to_string(), expected);
        let listeners =
            TlsListeners::new([("127.0.0.1:443".parse().unwrap(), pair.clone().into())], &[], SystemClock.now())
                .unwrap();
        let said = listeners.lapsed(SystemClock.wall());
        assert!(
            said.len() == 1 && said[0].starts_with("listener 127.0.0.1:443: ") && said[0].contains(why),
            "{said:?}"
        );
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!((pair.lapse(pair.ends()), listeners.lapsed(pair.ends() - day).len()), (None, 0));
    }
}

#[test]
fn the_subject_is_told_or_else_the_first_name() {
    let (cert, key) = made(NOW);
    assert_eq!(Fixture::new(&cert, &key).load().unwrap().0.subject(), "CN=rcgen self signed cert");
    for name in ["test.example", "192.0.2.7", "2001:db8::7"] {
        let (mut params, key) = (CertificateParams::new(vec![name.to_owned()]).unwrap(), KeyPair::generate().unwrap());
        params.distinguished_name = rcgen::DistinguishedName::new();
        let cert = params.self_signed(&key).unwrap().pem();
        assert_eq!(Fixture::new(&cert, &key.serialize_pem()).load().unwrap().0.subject(), name);
    }
}

#[test]
fn a_changed_certificate_makes_another_pair() {
    let key = KeyPair::generate().unwrap();
    let fixture = Fixture::new(&certificate(&key, NOW), &key.serialize_pem());
    let (first, _) = fixture.load().unwrap();
    assert_eq!(first, fixture.load().unwrap().0);
    std::fs::write(fixture.files().cert, certificate(&key, (2020, 2098))).unwrap();
    assert_ne!(first, fixture.load().unwrap().0, "renewed with the same key");
}
