//! REST API and console (the same for every role): commands for the HSS, the state of all nodes, errors by RFC 9457.

use crate::entropy;
use crate::inbox::Input;
use crate::world::World;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ims_core::{Problem, Secret};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tracing::debug;

/// The node that meets handsets, and bans those who flood it.
const PCSCF: &str = "pcscf";
/// The node that goes by criteria, and has the registrations.
const SCSCF: &str = "scscf";
/// The node that keeps subscribers.
pub(crate) const HSS: &str = "hss";
const CONNECTIONS: usize = 256;
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Subscribers in one page, when the request does not say.
const PAGE: u64 = 100;

#[derive(Clone)]
struct Console {
    world: Arc<World>,
    token: Arc<Secret<32>>,
}

/// Serves until the shell ends.
pub(crate) async fn serve(world: Arc<World>, listener: TcpListener, token: Secret<32>) {
    let routes = routes(Console { world, token: Arc::new(token) });
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "cannot accept a REST connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let service = TowerToHyperService::new(routes.clone());
        connections.spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(permit);
        });
    }
}

fn routes(console: Console) -> Router {
    let metrics = || Router::new().route("/metrics", get(metrics));
    let (open, closed) = match console.world.settings.metrics_need_token {
        true => (Router::new(), metrics()),
        false => (metrics(), Router::new()),
    };
    let limit = console.world.settings.http_body_limit;
    // Neither length nor time of the whole are limited, but of each line and each command.
    let bulk = Router::new()
        .route("/v1/subscribers/import", post(import))
        .layer(middleware::from_fn_with_state(console.clone(), authorise));
    Router::new()
        .route("/v1/subscribers", post(create).get(list))
        .route("/v1/subscribers/{imsi}", get(show).patch(change).delete(remove))
        .route("/v1/services", post(create_service).get(list_services))
        .route("/v1/services/{identity}", get(show_service).patch(change_service).delete(remove_service))
        .route("/v1/profiles/{impu}", get(profile))
        .route("/v1/ifc/explain", post(explain))
        .route("/v1/deregister", post(deregister))
        .route("/v1/bans", get(bans))
        .route("/v1/bans/{source}", axum::routing::delete(lift_ban))
        .route("/v1/status", get(status))
        .merge(closed)
        .layer(middleware::from_fn_with_state(console.clone(), authorise))
        .merge(open)
        .route("/healthz", get(health))
        .fallback(|| async { refuse(Problem::not_found("there is no such resource: see the API description")) })
        .method_not_allowed_fallback(|| async {
            refuse(problem(
                405,
                "method-not-allowed",
                "Method not allowed",
                "this resource knows other methods: see Allow",
            ))
        })
        .layer(middleware::from_fn_with_state(console.clone(), within_time))
        .layer(DefaultBodyLimit::max(limit))
        .merge(bulk)
        .with_state(console)
}

async fn within_time(State(console): State<Console>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(console.world.settings.http_time.0, next.run(request)).await {
        Ok(response) => response,
        Err(_) => refuse(Problem::unavailable("the request took too long: try again, and look at the log")),
    }
}

async fn authorise(State(console): State<Console>, request: Request, next: Next) -> Response {
    if is_authorised(request.headers(), &console.token) {
        return next.run(request).await;
    }
    let detail = "send `Authorization: Bearer TOKEN` with the token of the file admin.token in the data folder";
    let mut response = refuse(problem(401, "unauthorized", "A token is needed", detail));
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"imsbox\""));
    response
}

/// Compared in constant time, and as bytes: the digits may be of either case.
fn is_authorised(headers: &HeaderMap, token: &Secret<32>) -> bool {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .and_then(|(_, given)| Secret::<32>::from_hex(given.trim()))
        .is_some_and(|given| given.expose().ct_eq(token.expose()).into())
}

async fn create(State(console): State<Console>, Json(body): Json) -> Response {
    let made = call(&console.world, HSS, "subscriber.create", body).await;
    created(made, |made| made.get("imsi").and_then(Value::as_str).map(|imsi| format!("/v1/subscribers/{imsi}")))
}

fn created(made: Result<Value, Problem>, place: impl FnOnce(&Value) -> Option<String>) -> Response {
    match made {
        Ok(made) => {
            let place = place(&made);
            let mut response = answer(StatusCode::CREATED, &made);
            if let Some(place) = place.and_then(|p| HeaderValue::from_str(&p).ok()) {
                response.headers_mut().insert(header::LOCATION, place);
            }
            response
        }
        Err(problem) => refuse(problem),
    }
}

async fn import(State(console): State<Console>, body: Body) -> Response {
    crate::import::import(&console.world, body).await
}

async fn list(State(console): State<Console>, Query(query): Query<HashMap<String, String>>) -> Response {
    list_of(&console, "subscriber.list", query).await
}

async fn list_of(console: &Console, what: &str, query: HashMap<String, String>) -> Response {
    let mut args = json!({"after": "", "limit": PAGE});
    for (name, value) in query {
        match name.as_str() {
            "after" => args["after"] = value.into(),
            "limit" => match value.parse::<u64>() {
                Ok(limit) if limit > 0 => args["limit"] = limit.into(),
                _ => return refuse(Problem::invalid("limit", "the limit is a number above 0")),
            },
            _ => return refuse(Problem::invalid(&name, "only after and limit are known here")),
        }
    }
    respond(StatusCode::OK, call(&console.world, HSS, what, args).await)
}

async fn show(State(console): State<Console>, Path(imsi): Path<String>) -> Response {
    respond(StatusCode::OK, call(&console.world, HSS, "subscriber.show", json!({"imsi": imsi})).await)
}

async fn change(State(console): State<Console>, Path(imsi): Path<String>, Json(changes): Json) -> Response {
    let args = json!({"imsi": imsi, "changes": changes});
    respond(StatusCode::OK, call(&console.world, HSS, "subscriber.change", args).await)
}

async fn remove(State(console): State<Console>, Path(imsi): Path<String>) -> Response {
    match call(&console.world, HSS, "subscriber.remove", json!({"imsi": imsi})).await {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => refuse(problem),
    }
}

/// Public service identities. Those in paths are escaped: `sip%3Aecho%40ims.example`.
async fn create_service(State(console): State<Console>, Json(body): Json) -> Response {
    // An identity would have to be escaped to stand in a Location; who made it knows it.
    created(call(&console.world, HSS, "service.create", body).await, |_| None)
}

async fn list_services(State(console): State<Console>, Query(query): Query<HashMap<String, String>>) -> Response {
    list_of(&console, "service.list", query).await
}

async fn show_service(State(console): State<Console>, Path(identity): Path<String>) -> Response {
    respond(StatusCode::OK, call(&console.world, HSS, "service.show", json!({"identity": identity})).await)
}

async fn change_service(State(console): State<Console>, Path(identity): Path<String>, Json(changes): Json) -> Response {
    let args = json!({"identity": identity, "changes": changes});
    respond(StatusCode::OK, call(&console.world, HSS, "service.change", args).await)
}

async fn remove_service(State(console): State<Console>, Path(identity): Path<String>) -> Response {
    match call(&console.world, HSS, "service.remove", json!({"identity": identity})).await {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => refuse(problem),
    }
}

/// The profile of a public identity as an S-CSCF is given it.
async fn profile(State(console): State<Console>, Path(impu): Path<String>) -> Response {
    respond(StatusCode::OK, call(&console.world, HSS, "subscriber.profile", json!({"impu": impu})).await)
}

/// Which criteria a request meets, by the profile that the HSS of this process has unless the question brings one along.
async fn explain(State(console): State<Console>, Json(mut question): Json) -> Response {
    let has_hss = console.world.nodes.iter().any(|seat| seat.name == HSS);
    if has_hss && question.get("profile").is_none() && question.get("impu").is_some_and(Value::is_string) {
        let args = json!({"impu": question["impu"]});
        match call(&console.world, HSS, "subscriber.profile", args).await {
            Ok(profile) => question["profile"] = profile["user_data"].clone(),
            Err(problem) => return refuse(problem),
        }
    }
    respond(StatusCode::OK, call(&console.world, SCSCF, "ifc.explain", question).await)
}

/// The network ends registrations: `impu` or `impi`, `reject`, `retry_after`.
async fn deregister(State(console): State<Console>, Json(whom): Json) -> Response {
    respond(StatusCode::OK, call(&console.world, SCSCF, "deregister", whom).await)
}

async fn bans(State(console): State<Console>) -> Response {
    respond(StatusCode::OK, call(&console.world, PCSCF, "bans", Value::Null).await)
}

async fn lift_ban(State(console): State<Console>, Path(source): Path<String>) -> Response {
    match call(&console.world, PCSCF, "ban.lift", json!({"source": source})).await {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => refuse(problem),
    }
}

/// The snapshot of each node, under its name.
async fn status(State(console): State<Console>) -> Response {
    let mut all = Map::new();
    for seat in &console.world.nodes {
        if let Some(state) = snapshot(&console.world, &seat.name).await {
            all.insert(seat.name.clone(), state);
        }
    }
    answer(StatusCode::OK, &Value::Object(all))
}

/// Well is a process whose nodes all take what is put before them; what they lack from others is in the status.
async fn health(State(console): State<Console>) -> Response {
    for seat in &console.world.nodes {
        let (reply, answer) = oneshot::channel();
        seat.inbox.input(Input::Ping(reply));
        if answer.await.is_err() {
            return refuse(Problem::unavailable(format!("the {} has ended: look at the log", seat.name)));
        }
    }
    "ok\n".into_response()
}

async fn metrics(State(console): State<Console>) -> Response {
    let text = crate::metrics::exposition(&console.world).await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Sends a command to the node of that name and waits for its reply.
pub(crate) async fn call(world: &World, node: &str, call: &str, args: Value) -> Result<Value, Problem> {
    let Some(seat) = world.nodes.iter().find(|seat| seat.name == node) else {
        return Err(Problem::not_found(format!("there is no {node} in this process: ask the one that runs it")));
    };
    let (reply, answer) = oneshot::channel();
    seat.inbox.input(Input::Command { call: call.into(), args, reply });
    match tokio::time::timeout(world.settings.http_time.0, answer).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Problem::unavailable("the node is stopping")),
        Err(_) => Err(Problem::unavailable("the node did not reply in time: look at the log")),
    }
}

pub(crate) async fn snapshot(world: &World, node: &str) -> Option<Value> {
    let seat = world.nodes.iter().find(|seat| seat.name == node)?;
    let (reply, answer) = oneshot::channel();
    seat.inbox.input(Input::Snapshot(reply));
    tokio::time::timeout(world.settings.http_time.0, answer).await.ok()?.ok()
}

/// A JSON body, whatever Content-Type says; refused as a problem.
struct Json(Value);

impl<S: Send + Sync> FromRequest<S> for Json {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let status = rejection.into_response().status().as_u16();
            refuse(problem(status, "body", "The body cannot be read", "the body is too large or was cut off"))
        })?;
        serde_json::from_slice(&bytes).map(Json).map_err(|error| {
            // Position only: the parser's message may quote a key.
            let detail = format!("the body is no JSON: see line {} column {}", error.line(), error.column());
            refuse(problem(400, "invalid-json", "The body is not valid", &detail))
        })
    }
}

fn respond(status: StatusCode, result: Result<Value, Problem>) -> Response {
    match result {
        Ok(value) => answer(status, &value),
        Err(problem) => refuse(problem),
    }
}

pub(crate) fn answer(status: StatusCode, value: &Value) -> Response {
    let mut text = value.to_string();
    text.push('\n');
    (status, [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

pub(crate) fn problem(status: u16, kind: &str, title: &str, detail: &str) -> Problem {
    Problem { status, kind: kind.into(), title: title.into(), detail: detail.into(), field: None }
}

/// RFC 9457: `type` is a URN made of the kind, `field` an extension member.
fn refuse(problem: Problem) -> Response {
    refuse_with(problem, json!({}))
}

/// The same with more extension members.
pub(crate) fn refuse_with(problem: Problem, mut body: Value) -> Response {
    body["type"] = format!("urn:imsbox:problem:{}", problem.kind).into();
    body["title"] = problem.title.into();
    body["status"] = problem.status.into();
    body["detail"] = problem.detail.into();
    if let Some(field) = problem.field {
        body["field"] = field.into();
    }
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut text = body.to_string();
    text.push('\n');
    (status, [(header::CONTENT_TYPE, "application/problem+json")], Body::from(text)).into_response()
}

/// The token of the REST API, and where it is.
pub(crate) fn admin_token(settings: &crate::Settings) -> Result<(std::path::PathBuf, Secret<32>), crate::StartError> {
    Ok((settings.token_file(), entropy::admin_token(settings)?))
}
