//! What is to be read, beside what it is about: its commands are typed as they stand there, its links lead somewhere,
//! and nothing that it has to describe is missing.

mod complete;
mod links;
mod markdown;
mod stage;
mod typed;

use markdown::Page;

/// A page by its path.
macro_rules! page {
    ($path:literal) => {
        Page { path: $path, text: include_str!(concat!("../../../", $path)) }
    };
}

const README: Page = page!("README.md");
const BALANCING: Page = page!("docs/balancing.md");
const CLIENTS: Page = page!("docs/clients.md");
const CONFIGURATION: Page = page!("docs/configuration.md");
const CONTRIBUTING: Page = page!("CONTRIBUTING.md");
const LIMITS: Page = page!("docs/limits.md");
const OPERATIONS: Page = page!("docs/operations.md");
const TLS: Page = page!("docs/tls.md");

/// All of them but the change log, which tells of what was.
const PAGES: [Page; 17] = [
    README,
    BALANCING,
    CLIENTS,
    CONFIGURATION,
    CONTRIBUTING,
    LIMITS,
    OPERATIONS,
    TLS,
    page!("SECURITY.md"),
    page!("docs/architecture.md"),
    page!("docs/architecture-map.md"),
    page!("docs/benchmarks.md"),
    page!("docs/fleet.md"),
    page!("docs/performance.md"),
    page!("docs/upstream/README.md"),
    page!("findings/README.md"),
    page!("CHANGELOG.md"),
];
