//! `POST /v1/subscribers/import`: many subscribers in one request, one JSON object a line (NDJSON).
//!
//! The body is worked on as it comes, a chunk of lines at a time, so that its length is no matter. The commands of a chunk are
//! given to the node together: the store takes them in one transaction. A line that is refused does not hold the others up.

use crate::http::{HSS, answer, call, problem, refuse_with};
use crate::world::World;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::future::join_all;
use ims_core::Problem;
use serde_json::{Value, json};
use std::time::Duration;

/// Lines whose commands wait at the same time: fewer than a node has room for.
const CHUNK: usize = 500;
/// Problems that are told one by one.
const TOLD: usize = 100;

/// How far the work has come.
#[derive(Default)]
struct Import {
    line: u64,
    /// What waits, with the number of its line.
    chunk: Vec<(u64, Vec<u8>)>,
    created: u64,
    failed: u64,
    told: Vec<Value>,
}

/// Takes the whole body in, and says what became of its lines.
pub(crate) async fn import(world: &World, body: Body) -> Response {
    let mut import = Import::default();
    match import.read(world, body).await {
        Ok(()) if import.failed == 0 => answer(StatusCode::OK, &json!({ "created": import.created })),
        Ok(()) => {
            let detail = format!("{} lines were refused, {} subscribers were created", import.failed, import.created);
            import.refusal(problem(422, "lines-refused", "Not all lines were taken", &detail))
        }
        Err(problem) => import.refusal(problem),
    }
}

impl Import {
    async fn read(&mut self, world: &World, body: Body) -> Result<(), Problem> {
        let (limit, patience) = (world.settings.http_body_limit, world.settings.http_time.0);
        let (mut parts, mut line) = (body.into_data_stream(), Vec::new());
        while let Some(part) = next(&mut parts, patience).await? {
            let mut rest = &part[..];
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(&rest[..end]);
                rest = &rest[end + 1..];
                self.take(world, std::mem::take(&mut line)).await;
            }
            line.extend_from_slice(rest);
            if line.len() > limit {
                let detail = format!("line {} is longer than http_body_limit", self.line + 1);
                return Err(problem(413, "body", "The body cannot be read", &detail));
            }
        }
        self.take(world, line).await;
        self.perform(world).await;
        Ok(())
    }

    async fn take(&mut self, world: &World, line: Vec<u8>) {
        self.line += 1;
        if !line.trim_ascii().is_empty() {
            self.chunk.push((self.line, line));
        }
        if self.chunk.len() >= CHUNK {
            self.perform(world).await;
        }
    }

    async fn perform(&mut self, world: &World) {
        let chunk = std::mem::take(&mut self.chunk);
        let done = join_all(chunk.iter().map(|(_, line)| create(world, line))).await;
        for ((line, _), result) in chunk.iter().zip(done) {
            match result {
                Ok(()) => self.created += 1,
                Err(problem) => self.note(*line, &problem),
            }
        }
    }

    fn note(&mut self, line: u64, problem: &Problem) {
        self.failed += 1;
        if self.told.len() < TOLD {
            self.told.push(json!({ "line": line, "detail": problem.detail, "field": problem.field }));
        }
    }

    /// The problem, with how far the work came.
    fn refusal(self, problem: Problem) -> Response {
        let more = json!({ "created": self.created, "failed": self.failed, "lines": self.told });
        refuse_with(problem, more)
    }
}

async fn next(
    parts: &mut axum::body::BodyDataStream,
    patience: Duration,
) -> Result<Option<axum::body::Bytes>, Problem> {
    let cut = || problem(400, "body", "The body cannot be read", "the body was cut off, or came too slowly");
    let part = tokio::time::timeout(patience, parts.next()).await.map_err(|_| cut())?;
    part.transpose().map_err(|_| cut())
}

async fn create(world: &World, line: &[u8]) -> Result<(), Problem> {
    // Position only: the parser's message may quote a key.
    let wrong = |error: serde_json::Error| {
        problem(400, "invalid-json", "Not valid", &format!("this line is no JSON: see column {}", error.column()))
    };
    let args: Value = serde_json::from_slice(line).map_err(wrong)?;
    call(world, HSS, "subscriber.create", args).await.map(drop)
}
