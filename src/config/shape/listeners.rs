//! Where to listen, and by which protocols.

use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::value::{
    AcmeContact, AcmeDirectory, AcmeDomain, Choice, ClientCerts, Flag, Listen, OrNone, PemPath, Whole,
};
use crate::config::written::{List, Section, Written};
use crate::proxy::HeaderVersions;

/// One address to listen on.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub(in crate::config) struct ListenerKeys {
    /// An IP address and a port.
    pub(in crate::config) address: Written<Listen>,
    /// The certificate and its key, for HTTPS with HTTP/2 and HTTP/1.1. Null is plain HTTP/1.1.
    #[schemars(extend("default" = null))]
    pub(in crate::config) tls: Written<OrNone<Section<TlsKeys>>>,
    /// Which version of the PROXY protocol's header every connection begins with, before TLS; it says whom the
    /// connection is from. Only `identity.trusted_proxies` may connect then. Null is none.
    #[schemars(extend("default" = null))]
    pub(in crate::config) proxy_protocol: Written<OrNone<Choice<HeaderVersions>>>,
    /// Whether clients may speak HTTP/2 without TLS, by prior knowledge, beside HTTP/1.1. Only without `tls`.
    #[schemars(extend("default" = false))]
    pub(in crate::config) h2c: Written<Flag>,
    /// A port of HTTPS: every request is answered 308 with the same address in HTTPS, but for those below
    /// `/.well-known/acme-challenge/`. Only without `tls`. Null serves requests.
    #[schemars(extend("default" = null))]
    pub(in crate::config) redirect_to_https: Written<OrNone<Whole<NonZeroU16, 1, 65_535>>>,
}

/// Certificates with their keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["cert", "key"]}, {"required": ["pairs"]}, {"required": ["acme"]}]))]
pub(in crate::config) struct TlsKeys {
    /// A PEM file: the certificate, followed by those that lead to a root. With `key`, the same as one of `pairs`.
    pub(in crate::config) cert: Written<PemPath>,
    /// A PEM file: the certificate's private key, not encrypted.
    pub(in crate::config) key: Written<PemPath>,
    /// Certificates with their keys, chosen by the name that a client asks for; the first is for everybody else.
    pub(in crate::config) pairs: Written<List<Section<PairKeys>>>,
    /// A certificate from an authority that speaks ACME, asked for and renewed by the listener itself; null is none.
    #[schemars(extend("default" = null))]
    pub(in crate::config) acme: Written<OrNone<Section<AcmeKeys>>>,
    /// A file with the keys of tickets, one a line in Base64, for several nodes behind one name; the first seals. Null
    /// leaves them to the process, which keeps them in memory, renews them and hands them on at an upgrade.
    #[schemars(extend("default" = null))]
    pub(in crate::config) ticket_keys: Written<OrNone<PemPath>>,
    /// A PEM file: the authorities that sign certificates of clients, and lists of those that were revoked. Null asks
    /// nobody for one. There are no tickets with it.
    #[schemars(extend("default" = null))]
    pub(in crate::config) client_ca: Written<OrNone<PemPath>>,
    /// Whether clients without a certificate get in. Only with `client_ca`.
    #[schemars(extend("default" = "optional"))]
    pub(in crate::config) client_certs: Written<Choice<ClientCerts>>,
}

/// A certificate from an authority. To use it is to agree to its terms of service.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["domains"]))]
pub(in crate::config) struct AcmeKeys {
    /// The names of the certificate, without wildcards.
    pub(in crate::config) domains: Written<List<AcmeDomain>>,
    /// Whom the authority may tell of troubles.
    #[schemars(extend("default" = []))]
    pub(in crate::config) contact: Written<List<AcmeContact, 0>>,
    /// Where the authority is.
    #[schemars(extend("default" = "https://acme-v02.api.letsencrypt.org/directory"))]
    pub(in crate::config) directory: Written<AcmeDirectory>,
}

/// A certificate and its key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert", "key"]))]
pub(in crate::config) struct PairKeys {
    /// A PEM file: the certificate, followed by those that lead to a root.
    pub(in crate::config) cert: Written<PemPath>,
    /// A PEM file: the certificate's private key, not encrypted.
    pub(in crate::config) key: Written<PemPath>,
}
