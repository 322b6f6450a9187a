//! What is asked of a certificate authority.

use rustls::pki_types::DnsName;
use serde_yaml::Value;

use super::kind::ValueKind;
use super::web;

/// A name that a certificate is to have.
#[derive(Debug)]
pub(in crate::config) struct AcmeDomain;

impl ValueKind for AcmeDomain {
    type Checked = String;
    const WANTED: &str = "a host name such as a.example, without a wildcard";
    const SCHEMA: &str =
        r#"{"type": "string", "pattern": "^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$", "examples": ["a.example"]}"#;

    fn read(value: &Value) -> Option<String> {
        let name = value.as_str()?.to_ascii_lowercase();
        (DnsName::try_from(name.as_str()).is_ok() && !name.ends_with('.')).then_some(name)
    }

    fn hint(refused: &Value) -> Option<String> {
        let wild = refused.as_str()?.starts_with("*.");
        wild.then(|| "only DNS-01 proves wildcards, which no listener can answer".to_owned())
    }
}

/// Whom an authority may tell of troubles.
#[derive(Debug)]
pub(in crate::config) struct AcmeContact;

impl ValueKind for AcmeContact {
    type Checked = String;
    const WANTED: &str = "mailto: and an address, such as mailto:ops@a.example";
    const SCHEMA: &str = r#"{"type": "string", "pattern": "^mailto:.+@.+$", "examples": ["mailto:ops@a.example"]}"#;

    fn read(value: &Value) -> Option<String> {
        let text = value.as_str()?;
        let (name, host) = text.strip_prefix("mailto:")?.split_once('@')?;
        (!name.is_empty() && !host.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()))
            .then(|| text.to_owned())
    }
}

/// Where an authority is.
#[derive(Debug)]
pub(in crate::config) struct AcmeDirectory;

impl ValueKind for AcmeDirectory {
    type Checked = String;
    const WANTED: &str = "the https:// address of an authority's directory";
    const SCHEMA: &str = r#"{"type": "string", "pattern": "^https://.+", "examples": ["https://acme-v02.api.letsencrypt.org/directory"]}"#;

    fn read(value: &Value) -> Option<String> {
        let text = value.as_str()?;
        web::check(text, "https").ok().map(|()| text.to_owned())
    }

    fn hint(refused: &Value) -> Option<String> {
        web::check(refused.as_str()?, "https").err().flatten().map(str::to_owned)
    }
}
