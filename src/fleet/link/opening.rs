//! Opening a connection to one server.

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, TlsCertificates,
};

use super::errors::{LinkError, StoreFault};
use crate::fleet::settings::{FleetSettings, HostPort, StoreTls, password_in};

/// Connects to one server.
pub(super) async fn connect(
    info: ConnectionInfo,
    tls: Option<TlsCertificates>,
) -> Result<MultiplexedConnection, RedisError> {
    let client = match tls {
        Some(certificates) => Client::build_with_tls(info, certificates)?,
        None => Client::open(info)?,
    };
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// How a node is connected to, and as whom.
pub(super) fn info(settings: &FleetSettings, node: &HostPort, login: bool) -> Result<ConnectionInfo, LinkError> {
    let (host, port) = (node.host.clone(), node.port);
    let address = if settings.store.tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    };
    let mut redis = RedisConnectionInfo::default().set_skip_set_lib_name();
    if login {
        redis = redis.set_db(i64::from(settings.store.db));
        if let Some(user) = &settings.store.user {
            redis = redis.set_username(user);
        }
        if let Some(password) = password(settings)? {
            redis = redis.set_password(password);
        }
    }
    Ok(address.into_connection_info().map_err(words)?.set_redis_settings(redis))
}

/// The password. Its file is read anew for each connection, as those for TLS are: it is replaced now and then.
fn password(settings: &FleetSettings) -> Result<Option<String>, LinkError> {
    let Some(path) = &settings.password_file else { return Ok(settings.store.password.clone()) };
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| LinkError::Unreachable(format!("cannot read {}: {error}", path.display())))?;
    Ok(Some(password_in(&text).to_owned()))
}

/// The files for TLS, read anew for each connection, as they are replaced now and then.
pub(super) fn certificates(settings: &FleetSettings) -> Result<Option<TlsCertificates>, LinkError> {
    let StoreTls { ca, cert, key } = &settings.tls;
    let read = |path: &std::path::PathBuf| {
        let failed = |error| LinkError::Unreachable(format!("cannot read {}: {error}", path.display()));
        std::fs::read(path).map_err(failed)
    };
    if !settings.store.tls {
        return Ok(None);
    }
    let client_tls = match (cert, key) {
        (Some(cert), Some(key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
        _ => None,
    };
    Ok(Some(TlsCertificates { client_tls, root_cert: ca.as_ref().map(read).transpose()? }))
}

/// What an error says, for people.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn words(error: RedisError) -> LinkError {
    match StoreFault::of(&error).error {
        LinkError::TimedOut => LinkError::Unreachable(error.to_string()),
        said => said,
    }
}
