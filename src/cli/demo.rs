//! `tollgate demo`: the proxy at work, with nothing to set up.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use super::failure::Failure;
use super::output::{print, start_events};
use crate::client::Quota;
use crate::config::{self, BackendOverride, Overrides};
use crate::process::descriptors::raise_open_files_limit;
use crate::server::echo::Echo;
use crate::server::{Server, ServerError, Stop};
use crate::telemetry::AccessLogSettings;
use crate::upstream::BackendAddress;

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// Of one length, so that all answers are: `ab` counts answers of another length than the first one's as failed.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// Runs the proxy over three sample backends of the same process, on ports that are free.
pub(super) fn run() -> Result<(), Failure> {
    let events = start_events()?;
    raise_open_files_limit();
    let free = SocketAddr::new(LISTEN.ip(), 0);
    let echoes = NAMES.iter().map(|name| Echo::bind(free, *name)).collect::<Result<Vec<_>, _>>();
    let echoes = echoes.map_err(ServerError::from)?;
    let backends = echoes
        .iter()
        .map(|echo| BackendOverride { address: BackendAddress::Socket(echo.address()), weight: NonZeroU32::MIN })
        .collect();
    let mut config = config::load(None, &Overrides { listen: vec![LISTEN], backends, ..Overrides::default() })?;
    // High enough for `ab` with a thousand connections, and there to be seen in the headers.
    config.rate_limit.quota = Quota::new(100_000, 10_000.0).expect("both are within bounds");
    // The screen is for the commands to try.
    config.access_log = AccessLogSettings { target: None, ..config.access_log };
    let admin = config.admin.as_ref().and_then(|admin| admin.address.tcp());
    let welcome = welcome(&echoes, admin.expect("the admin API is on by default"));
    let mut server = Server::bind(config)?;
    print(&format!("{welcome}\n"));
    echoes.into_iter().for_each(|echo| server.add_echo(echo));
    Ok(server.run(Stop::Signals, events.as_ref().map(|events| events.log().clone()))?)
}

fn welcome(echoes: &[Echo], admin: SocketAddr) -> String {
    // As it was typed, so that it can be typed again.
    let program = std::env::args().next().unwrap_or_else(|| "tollgate".to_owned());
    let backends: Vec<_> =
        NAMES.iter().zip(echoes).map(|(name, echo)| format!("{name} ({})", echo.address())).collect();
    format!(
        "tollgate proxies http://{LISTEN} to three sample backends: {}.

Try, in another terminal:

  curl -i http://{LISTEN}/                      each answer names its backend, in turn
  curl -s http://{LISTEN}/ -d 'hello'           any method, any body
  curl -i 'http://{LISTEN}/?status=503'         the answer's status, as you like it
  curl -i 'http://{LISTEN}/?delay_ms=1000'      a slow one
  curl -s 'http://{LISTEN}/?bytes=100000' | wc -c
  ab -n 5000 -c 1000 http://{LISTEN}/           (apache2-utils)

Clients have limits of their own. The admin API edits them while traffic flows, and data/ keeps them:

  curl -s http://{admin}/clients -d '{{\"client_id\":\"user1\",\"capacity\":100,\"rate_per_sec\":10}}'
  curl -i http://{LISTEN}/ -H 'X-Api-Key: user1'     a client without a key goes by its id
  curl -s http://{admin}/clients/user1               its tokens, among other things
  curl -s -X PATCH http://{admin}/clients/user1 -d '{{\"capacity\":1000,\"rate_per_sec\":100}}'
  curl -s -X PATCH http://{admin}/clients/user1 -d '{{\"mode\":\"blocked\"}}'
  {program} clients list
  curl -s -X DELETE http://{admin}/clients/user1

Ctrl-C stops it.
",
        backends.join(", "),
    )
}
