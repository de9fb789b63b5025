//! The HTTP API of a node.

mod guard;
mod idempotency;
mod metrics;
mod problem;

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};

use super::node::{Node, StartError};
use super::registry::Registered;
use super::request::RunRequest;
use super::runs::RunEntry;
use super::service::{self, WorkerService};
use super::view::RunView;
pub(super) use guard::Guard;
use idempotency::Before;
use problem::Problem;

/// The longest body of a request.
const LONGEST_BODY: usize = 64 * 1024;

/// What handlers work with.
#[derive(Clone)]
struct Api {
    node: Node,
    guard: Arc<Guard>,
}

pub(super) fn router(node: Node, guard: Arc<Guard>) -> Router {
    let api = Api { node, guard };
    let guarded = middleware::from_fn_with_state(api.clone(), guard::check);
    Router::new()
        .route("/", get(|| page("text/html; charset=utf-8", include_str!("page/index.html"))))
        .route("/app.js", get(|| page("text/javascript", include_str!("page/app.js"))))
        .route("/app.css", get(|| page("text/css", include_str!("page/app.css"))))
        .route("/openapi.json", get(|| page("application/json", include_str!("api/openapi.json"))))
        .route("/health", get(health))
        .route("/metrics", get(metrics::metrics))
        .route("/scenarios", get(scenarios))
        .route("/peers", get(peers))
        .route("/run", post(run))
        .route("/runs", get(runs))
        .route("/runs/{id}", get(view))
        .route("/runs/{id}/statistics", get(statistics))
        .route("/runs/{id}/events", get(events))
        .route("/runs/{id}/stop", post(stop))
        .route_service(service::PATH, WorkerService(api.node.clone()))
        .fallback(|| async { Problem::not_found("there is no such path; see /openapi.json") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "see /openapi.json for the methods")
        })
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .layer(guarded)
        .with_state(api)
}

async fn page(kind: &'static str, content: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], content)
}

/// For probes: whether the node serves, and whether it takes runs.
async fn health(State(api): State<Api>) -> Response {
    match api.node.is_leaving() {
        false => Json(json!({ "status": "ok" })).into_response(),
        true => {
            let body = Json(json!({ "status": "leaving" }));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

#[derive(Serialize)]
struct ScenarioView {
    name: &'static str,
    module: &'static str,
    parameters: &'static [&'static str],
}

async fn scenarios(State(api): State<Api>) -> Json<Vec<ScenarioView>> {
    let all = api.node.registry.all();
    let view = |one: &'static Registered| {
        let &Registered { name, module, parameters, .. } = one;
        ScenarioView { name, module, parameters }
    };
    Json(all.map(view).collect())
}

async fn peers(State(api): State<Api>) -> impl IntoResponse {
    Json(api.node.peers.borrow().to_vec())
}

async fn runs(State(api): State<Api>) -> impl IntoResponse {
    Json(api.node.runs.all().iter().map(|view| RunView::clone(view)).collect::<Vec<_>>())
}

async fn run(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if !kind.is_empty() && !kind.eq_ignore_ascii_case("application/json") {
        let detail = format!("the body is said to be {kind}; send JSON, as `curl --json` does");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let request = RunRequest::parse(&body)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    request
        .check(&api.node.config.limits, api.node.config.allowed)
        .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    let key = match headers.get("idempotency-key") {
        None => None,
        Some(key) => match key.to_str() {
            Ok(key) if (1..=255).contains(&key.len()) => Some(key.to_owned()),
            _ => {
                let detail = "the Idempotency-Key is to have 1 to 255 characters of ASCII";
                return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
            }
        },
    };
    if let Some(key) = &key {
        match api.guard.idempotency.before(key, &body) {
            Before::New => {}
            Before::Same(id) => {
                api.guard.refused("replayed");
                return Ok(started(&id));
            }
            Before::Other => {
                let detail = "this Idempotency-Key came with another body before";
                return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
            }
        }
    }
    let id = api.node.start(request).map_err(|error| {
        let detail = error.to_string();
        match error {
            StartError::NoScenario(_) => Problem::not_found(detail),
            StartError::Arguments(_) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail),
            StartError::TooManyRuns(_) => {
                Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(10)
            }
            StartError::ShuttingDown => Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail),
        }
    })?;
    if let Some(key) = key {
        api.guard.idempotency.remember(key, &body, id.clone());
    }
    Ok(started(&id))
}

fn started(id: &str) -> Response {
    let location = format!("/runs/{id}");
    let body = Json(json!({ "id": id, "location": location }));
    (StatusCode::CREATED, [(header::LOCATION, location)], body).into_response()
}

fn entry(api: &Api, id: &str) -> Result<RunEntry, Problem> {
    api.node.runs.get(id).ok_or_else(|| {
        Problem::not_found("this node knows no such run; GET /runs lists those that it knows")
    })
}

async fn view(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let view = entry(&api, &id)?.view.borrow().clone();
    Ok(Json(RunView::clone(&view)))
}

async fn statistics(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Problem> {
    let statistics = entry(&api, &id)?.statistics();
    match statistics {
        Some(statistics) => Ok(Json(&*statistics).into_response()),
        None => {
            let detail = "the run is not over; GET /runs/{id} shows how it is doing";
            Err(Problem::new(StatusCode::CONFLICT, detail))
        }
    }
}

async fn events(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    // It ends when the run does, after its last state.
    let mut was_over = false;
    let states = WatchStream::new(entry(&api, &id)?.view);
    let states = states.take_while(move |view| !std::mem::replace(&mut was_over, view.is_over()));
    let states = states.map(|view| {
        let event = Event::default().event("state").json_data(&*view);
        Ok(event.unwrap_or_default())
    });
    Ok(Sse::new(states).keep_alive(KeepAlive::default()))
}

async fn stop(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Problem> {
    let entry = entry(&api, &id)?;
    entry.stop.notify_one();
    let body = Json(json!({ "id": id, "location": format!("/runs/{id}") }));
    Ok((StatusCode::ACCEPTED, body).into_response())
}
