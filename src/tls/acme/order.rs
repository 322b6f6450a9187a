//! One order, from the account to the certificate.

use std::time::{Duration, SystemTime};

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use super::challenges::Challenges;
use super::settings::AcmeSettings;

/// How long an authority may take to look, and to sign.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long a certificate claims to be valid that is made here.
const SELF_MADE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// By what it is proved that the names are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// HTTP-01.
    Http,
    /// TLS-ALPN-01.
    Tls,
}

impl Proof {
    pub(super) fn name(self) -> &'static str {
        match self {
            Proof::Http => "HTTP-01",
            Proof::Tls => "TLS-ALPN-01",
        }
    }

    fn kind(self) -> ChallengeType {
        match self {
            Proof::Http => ChallengeType::Http01,
            Proof::Tls => ChallengeType::TlsAlpn01,
        }
    }
}

/// What an authority's refusal has when it does not know the account any more.
pub(super) const NO_SUCH_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// An account with an authority.
pub(super) struct OpenedAccount {
    account: Account,
    /// What is to be kept of it.
    pub(super) kept: String,
}

/// The account that was kept, or a new one.
///
/// # Errors
/// Why there is none, in words.
pub(super) async fn account(settings: &AcmeSettings, kept: Option<String>) -> Result<OpenedAccount, String> {
    let builder = Account::builder().map_err(told)?;
    if let Some(kept) = kept
        && let Ok(credentials) = serde_json::from_str(&kept)
    {
        let account = builder.from_credentials(credentials).await.map_err(told)?;
        return Ok(OpenedAccount { account, kept });
    }
    let contact: Vec<_> = settings.contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let created = builder.create(&new, settings.directory.clone(), None).await;
    let (account, credentials) = created.map_err(|error| match error {
        // The library looks at no status: a page that says 404 is what it cannot read.
        Error::Json(_) => format!("what answers at {} is no ACME directory ({})", settings.directory, told(error)),
        _ => told(error),
    })?;
    Ok(OpenedAccount { account, kept: serde_json::to_string(&credentials).map_err(told)? })
}

/// Gets a certificate, with those that lead to a root and its key, in PEM. Answers go to `challenges`.
///
/// # Errors
/// Why there is none, in words.
pub(super) async fn obtain(
    settings: &AcmeSettings,
    proof: Proof,
    challenges: &Challenges,
    OpenedAccount { account, .. }: &OpenedAccount,
) -> Result<String, String> {
    let names: Vec<_> = settings.domains.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await.map_err(told)?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(told)?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let offered = authorization.challenge(proof.kind());
        let mut challenge = offered.ok_or_else(|| format!("the authority does not offer it for {name}"))?;
        let answer = challenge.key_authorization();
        match proof {
            Proof::Http => challenges.put_answer(&challenge.token, answer.as_str()).await,
            Proof::Tls => challenges.put_certificate(name.clone(), proving(name, answer.digest().as_ref())?),
        }
        challenge.set_ready().await.map_err(told)?;
    }
    let patience = RetryPolicy::new().timeout(PATIENCE);
    let status = order.poll_ready(&patience).await.map_err(told)?;
    if status != OrderStatus::Ready {
        return Err(refusal(&mut order).await);
    }
    let key = order.finalize().await.map_err(told)?;
    let chain = order.poll_certificate(&patience).await.map_err(told)?;
    Ok(format!("{}\n{key}", chain.trim_end()))
}

/// An error; where it is an authority's, in its words.
fn in_words(error: &impl std::fmt::Display) -> String {
    error.to_string().replacen("API error: ", "the authority says: ", 1)
}

/// An error with what it comes from.
fn told(error: impl std::error::Error) -> String {
    let mut said = in_words(&error);
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_said = cause.to_string();
        if !said.ends_with(&cause_said) {
            said.push_str(": ");
            said.push_str(&cause_said);
        }
        source = cause.source();
    }
    said
}

/// Why an order came to nothing, as the authority says it of one of the names.
async fn refusal(order: &mut instant_acme::Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        let name = authorization.identifier().to_string();
        let errors = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        if let Some(error) = errors.into_iter().next() {
            return format!("{name}: {}", in_words(error));
        }
    }
    "the authority gave no reason".to_owned()
}

/// A certificate that proves to hold `name` (RFC 8737 section 3).
fn proving(name: String, digest: &[u8]) -> Result<CertifiedKey, String> {
    let mut params = CertificateParams::new(vec![name]).map_err(told)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(told)?;
    let certificate = params.self_signed(&key).map_err(told)?;
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = any_supported_type(&der).map_err(|error| error.to_string())?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], signing))
}

/// A certificate for these names that nobody believes, and its key, in PEM. It does not claim to be good for long: who
/// watches how long certificates are valid is to notice.
///
/// # Errors
/// When one cannot be made.
pub(super) fn self_made(domains: &[String], now: SystemTime) -> Result<String, String> {
    let (key, mut params) = (KeyPair::generate().map_err(told)?, CertificateParams::new(domains).map_err(told)?);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "self-made by tollgate until an authority signs one");
    (params.not_before, params.not_after) = ((now - SELF_MADE / 7).into(), (now + SELF_MADE).into());
    let certificate = params.self_signed(&key).map_err(told)?;
    Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
}
