//! A store that cannot: every call says so, and nothing looks complete that is not.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::json;

use super::body;
use crate::admin::Access;
use crate::admin::fixture::Fixture;
use crate::client::{ClientId, Quota};
use crate::store::{
    Batch, Change, ClientRepository, Committed, Difference, Follower, HistoryEntry, HistoryRules, Page, PageQuery,
    Profile, Record, Reply, StoreError,
};

/// Gives so many clients and then fails; fails at once in everything else.
struct Failing {
    clients: usize,
}

fn full() -> StoreError {
    StoreError("data/tollgate.db: the disk is full".to_owned())
}

impl ClientRepository for Failing {
    fn change(&self, _: Change) -> Reply<Committed> {
        Reply::ready(Err(full().into()))
    }

    fn apply(&self, _: Batch) -> Reply<Difference> {
        Reply::ready(Err(full().into()))
    }

    fn get(&self, _: &ClientId) -> Result<Option<Record>, StoreError> {
        Err(full())
    }

    fn page(&self, _: &PageQuery) -> Result<Page, StoreError> {
        Err(full())
    }

    fn history(&self, _: &ClientId, _: Option<u64>, _: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        Err(full())
    }

    fn latest_changes(&self, _: usize) -> Result<Vec<(ClientId, HistoryEntry)>, StoreError> {
        Err(full())
    }

    fn for_each(&self, each: &mut dyn FnMut(Record) -> bool) -> Result<(), StoreError> {
        let quota = Quota::new(1, 1.0).unwrap();
        let profile = Profile { note: "x".repeat(1_000), ..Profile::new(quota) };
        let at = std::time::SystemTime::UNIX_EPOCH;
        for number in 0..self.clients {
            let id = ClientId::parse(&format!("client-{number}")).unwrap();
            let (number, profile) = (number as u64, profile.clone());
            if !each(Record { number, id, profile, created_at: at, updated_at: at, version: 1 }) {
                return Ok(());
            }
        }
        Err(full())
    }

    fn keep_history(&self, _: HistoryRules) {}

    fn follow(&self, _: Follower) {}
}

#[tokio::test]
async fn every_call_says_so() {
    let api = Fixture::over(Arc::new(Failing { clients: 0 }), Access::Loopback);
    let client = body(&json!({"client_id": "a"}));
    for (method, target, text) in [
        ("POST", "/clients", client.as_str()),
        ("PUT", "/clients/a", &client),
        ("PATCH", "/clients/a", "{}"),
        ("DELETE", "/clients/a", ""),
        ("POST", "/clients/a/rollback", r#"{"version":1}"#),
        ("POST", "/clients/a/reset", ""),
        ("GET", "/clients/a", ""),
        ("GET", "/clients/a/history", ""),
        ("GET", "/clients", ""),
        ("GET", "/clients?format=ndjson", ""),
        ("PUT", "/clients", "[]"),
    ] {
        let answer = api.call(method, target, text).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["retry-after"]),
            (503, &"1".parse().unwrap()),
            "{method} {target}"
        );
        let message = "The store is unavailable: data/tollgate.db: the disk is full";
        assert_eq!(answer.json(), json!({"code": 503, "message": message}), "{method} {target}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_breaks_off_never_looks_complete() {
    let api = Fixture::over(Arc::new(Failing { clients: 1_000 }), Access::Loopback);
    let service = TowerToHyperService::new(api.admin.router.clone());
    let request = Request::builder().uri("/clients?format=ndjson").header("host", "localhost").body(Body::empty());
    let response = service.call(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 200, "it has begun");
    let error = response.into_body().collect().await.unwrap_err();
    assert!(error.to_string().contains("the disk is full"), "{error}");
}
