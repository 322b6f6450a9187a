//! `tollgate healthcheck`: whether the server is ready, for whoever can only run a command.

use http::Method;

use super::api::{AnswerPatience, ApiClient, EMPTY};
use super::endpoint::EndpointArgs;
use super::failure::Failure;

/// Asks `/readyz` of the admin API, for 2 s at most.
///
/// # Errors
/// Why it is not ready, or that it does not answer. Always a failure of exit code 1: Docker reserves 2.
pub(super) fn run(args: &EndpointArgs) -> Result<(), Failure> {
    let endpoint = args.resolve(|name| std::env::var_os(name));
    let endpoint = endpoint.map_err(|failure| Failure::ApiClient(failure.to_string()))?;
    let asked = ApiClient::new(endpoint).call(AnswerPatience::Probe, Method::GET, "/readyz", EMPTY);
    asked.map(drop).map_err(|failure| Failure::ApiClient(format!("not ready: {failure}")))
}
