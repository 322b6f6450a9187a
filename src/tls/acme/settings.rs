//! What a listener asks of an authority.

use std::sync::Arc;

use super::challenges::Challenges;

/// What is asked of an authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AcmeSettings {
    /// The names of the certificate, in lower case, at least one.
    pub domains: Vec<String>,
    /// Whom the authority may tell of troubles, as `mailto:` addresses.
    pub contact: Vec<String>,
    /// Where it is.
    pub directory: String,
}

/// A listener's certificate from an authority.
#[derive(Clone, Debug)]
pub struct AcmeListener {
    /// What is asked of the authority.
    pub settings: AcmeSettings,
    /// What it asks back; known once the server runs.
    pub(in crate::tls) challenges: Option<Arc<Challenges>>,
}

impl From<AcmeSettings> for AcmeListener {
    fn from(settings: AcmeSettings) -> Self {
        AcmeListener { settings, challenges: None }
    }
}

impl PartialEq for AcmeListener {
    /// When the same is asked.
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

impl Eq for AcmeListener {}
