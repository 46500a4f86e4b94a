//! What nodes keep across restarts: [`ims_core::Action::Put`] and [`ims_core::Action::Delete`] in,
//! [`ims_core::Event::Restored`] out.
//!
//! [`Keeper`] is what a store has to do, and nothing in it says where the store is: [`Journal`] is one in files of this machine, one
//! that is shared by several machines would take the same batches and wait for its server.

mod folder;
mod journal;
mod rewrite;
mod segment;

use ims_core::metrics::{Samples, catalogue};
use ims_core::{Kept, Time};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;
use tracing::{error, info, warn};

pub use journal::Journal;

/// Entries in one [`ims_core::Event::Restored`].
pub(crate) const PORTION: usize = 256;
/// A store that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// What waits for a store that fails, keys and values: beyond it changes are lost, and counted.
const WAITING_BYTES: usize = 64 << 20;

/// One thing to be kept, or (without a value) to be forgotten.
pub struct Change {
    pub key: String,
    pub value: Option<bytes::Bytes>,
}

impl Change {
    fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, bytes::Bytes::len)
    }
}

pub type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, KeepError>> + Send + 'a>>;

/// Why something is not kept; written for the operator.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeepError(pub String);

/// Where one node's entries live.
pub trait Keeper: Send {
    /// The next portion of what was kept when the node ended; empty when that was all.
    fn restore(&mut self) -> Work<'_, Vec<Kept>>;

    /// Takes the changes in order. When it returns, they outlive the death of this process. After an error, all of them may be
    /// given again.
    fn commit<'a>(&'a mut self, changes: &'a [Change]) -> Work<'a, ()>;

    /// Entries that are kept.
    fn entries(&self) -> usize;
}

/// A node's keeper, the changes of the batch that the node is at, and what is to be said of both.
pub(crate) struct Keeping {
    node: String,
    keeper: Box<dyn Keeper>,
    /// Of this batch: nothing that the node wanted done after the first of them may happen before they are committed.
    batch: Vec<Change>,
    trouble: Option<Trouble>,
    /// Changes that were given up since the process began.
    lost: u64,
    /// By operation.
    failures: BTreeMap<&'static str, u64>,
}

/// A store that fails: the service goes on, and what could not be written waits for better days.
struct Trouble {
    error: KeepError,
    since: Time,
    retry_at: Time,
    waiting: BTreeMap<String, Option<bytes::Bytes>>,
    waiting_bytes: usize,
}

impl Keeping {
    pub(crate) fn new(node: &str, keeper: Box<dyn Keeper>) -> Self {
        Self { node: node.into(), keeper, batch: Vec::new(), trouble: None, lost: 0, failures: BTreeMap::new() }
    }

    /// The next portion of what was kept; None when that was all.
    pub(crate) async fn restore(&mut self) -> Option<Vec<Kept>> {
        match self.keeper.restore().await {
            Ok(portion) if portion.is_empty() => None,
            Ok(portion) => Some(portion),
            Err(error) => {
                self.failed("restore");
                error!(
                    node = self.node,
                    "not all that was kept can be read, the node goes on without the rest: {error}"
                );
                None
            }
        }
    }

    pub(crate) fn take(&mut self, change: Change) {
        self.batch.push(change);
    }

    /// Whether actions must wait for [`Keeping::commit`].
    pub(crate) fn has_changes(&self) -> bool {
        !self.batch.is_empty()
    }

    pub(crate) fn retry_at(&self) -> Option<Time> {
        self.trouble.as_ref().map(|t| t.retry_at)
    }

    /// Has the batch written. A store that fails does not hold the node up: its changes wait, and are written before later ones.
    pub(crate) async fn commit(&mut self, now: Time) {
        if self.trouble.is_some() {
            self.postpone();
            return self.retry(now).await;
        }
        match self.keeper.commit(&self.batch).await {
            Ok(()) => self.batch.clear(),
            Err(error) => {
                self.failed("commit");
                error!(
                    node = self.node,
                    "what the node keeps cannot be written; the service goes on, but a restart now would lose registrations: {error}"
                );
                let retry_at = now + RETRY;
                self.trouble =
                    Some(Trouble { error, since: now, retry_at, waiting: BTreeMap::new(), waiting_bytes: 0 });
                self.postpone();
            }
        }
    }

    /// The last change of each key waits.
    fn postpone(&mut self) {
        let Some(trouble) = &mut self.trouble else { return };
        for change in self.batch.drain(..) {
            let size = change.size();
            if trouble.waiting_bytes + size > WAITING_BYTES && !trouble.waiting.contains_key(&change.key) {
                self.lost += 1;
                continue;
            }
            let before = change.key.len();
            if let Some(old) = trouble.waiting.insert(change.key, change.value) {
                trouble.waiting_bytes -= before + old.map_or(0, |v| v.len());
            }
            trouble.waiting_bytes += size;
        }
    }

    async fn retry(&mut self, now: Time) {
        let Some(trouble) = self.trouble.as_mut().filter(|t| t.retry_at <= now) else { return };
        let changes: Vec<Change> =
            trouble.waiting.iter().map(|(key, value)| Change { key: key.clone(), value: value.clone() }).collect();
        match self.keeper.commit(&changes).await {
            Ok(()) => {
                let (seconds, lost) = (now.since(trouble.since).as_secs(), self.lost);
                match lost {
                    0 => info!(node = self.node, seconds, "what the node keeps is written again, nothing is missing"),
                    _ => {
                        warn!(node = self.node, seconds, lost, "what the node keeps is written again, but some is lost")
                    }
                }
                self.trouble = None;
            }
            Err(error) => {
                trouble.error = error;
                trouble.retry_at = now + RETRY;
                self.failed("commit");
            }
        }
    }

    fn failed(&mut self, operation: &'static str) {
        *self.failures.entry(operation).or_default() += 1;
    }

    pub(crate) fn measure(&self, out: &mut Samples) {
        out.size(&catalogue::KEPT, &[], self.keeper.entries());
        out.size(&catalogue::KEPT_WAITING, &[], self.trouble.as_ref().map_or(0, |t| t.waiting.len()));
        out.counts(&catalogue::KEPT_FAILURES, &self.failures);
        out.count(&catalogue::KEPT_LOST, &[], self.lost);
    }

    /// For the node's snapshot.
    pub(crate) fn describe(&self, now: Time) -> Value {
        let mut out = json!({ "entries": self.keeper.entries(), "lost": self.lost });
        if let Some(trouble) = &self.trouble {
            out["error"] = trouble.error.to_string().into();
            out["failing_for_s"] = now.since(trouble.since).as_secs().into();
            out["waiting"] = trouble.waiting.len().into();
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shaky {
        broken: Arc<Mutex<bool>>,
        kept: Arc<Mutex<BTreeMap<String, Bytes>>>,
    }

    impl Keeper for Shaky {
        fn restore(&mut self) -> Work<'_, Vec<Kept>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn commit<'a>(&'a mut self, changes: &'a [Change]) -> Work<'a, ()> {
            Box::pin(async move {
                if *self.broken.lock().unwrap() {
                    return Err(KeepError("no space left".into()));
                }
                let mut kept = self.kept.lock().unwrap();
                for change in changes {
                    match &change.value {
                        Some(value) => kept.insert(change.key.clone(), value.clone()),
                        None => kept.remove(&change.key),
                    };
                }
                Ok(())
            })
        }

        fn entries(&self) -> usize {
            self.kept.lock().unwrap().len()
        }
    }

    fn put(key: &str, value: &'static str) -> Change {
        Change { key: key.into(), value: Some(Bytes::from_static(value.as_bytes())) }
    }

    /// Kept, waiting, failures to commit, lost.
    fn measured(keeping: &Keeping) -> [f64; 4] {
        let mut samples = Samples::default();
        keeping.measure(&mut samples);
        let mut out = [0.0; 4];
        for sample in samples {
            let place = [&catalogue::KEPT, &catalogue::KEPT_WAITING, &catalogue::KEPT_FAILURES, &catalogue::KEPT_LOST];
            let place = place.iter().position(|m| m.name == sample.metric.name).expect("one of these");
            out[place] = match sample.value {
                ims_core::metrics::Value::Level(n) => n,
                ims_core::metrics::Value::Count(n) => n as f64,
                ims_core::metrics::Value::Histogram(_) => panic!("none is a histogram"),
            };
        }
        out
    }

    #[tokio::test]
    async fn a_store_that_fails_is_told_and_catches_up_in_order() {
        let store = Shaky::default();
        let mut keeping = Keeping::new("x", Box::new(store.clone()));
        let at = Time::from_secs;
        keeping.take(put("a", "1"));
        assert!(keeping.has_changes());
        keeping.commit(at(10)).await;
        assert!(!keeping.has_changes() && keeping.describe(at(10))["error"].is_null());

        *store.broken.lock().unwrap() = true;
        keeping.take(put("a", "2"));
        keeping.take(put("b", "1"));
        keeping.commit(at(11)).await;
        assert!(!keeping.has_changes(), "the node goes on");
        *store.broken.lock().unwrap() = false;
        keeping.take(Change { key: "b".into(), value: None });
        keeping.take(put("a", "3"));
        keeping.commit(at(11)).await;
        assert_eq!(keeping.retry_at(), Some(at(12)), "not tried at each batch");
        let told = keeping.describe(at(12));
        assert_eq!((told["error"].as_str(), told["waiting"].as_u64()), (Some("no space left"), Some(2)));
        assert_eq!(told["failing_for_s"], 1);
        assert_eq!(measured(&keeping), [1.0, 2.0, 1.0, 0.0], "kept, waiting, failures, lost");

        keeping.commit(at(12)).await;
        assert_eq!(keeping.retry_at(), None);
        assert_eq!(*store.kept.lock().unwrap(), BTreeMap::from([("a".to_owned(), Bytes::from_static(b"3"))]));
        assert_eq!(keeping.describe(at(13)), json!({ "entries": 1, "lost": 0 }));
        assert_eq!(measured(&keeping), [1.0, 0.0, 1.0, 0.0]);
    }

    #[tokio::test]
    async fn what_waits_has_a_bound() {
        let store = Shaky { broken: Arc::new(Mutex::new(true)), ..Default::default() };
        let mut keeping = Keeping::new("x", Box::new(store.clone()));
        let large = Bytes::from(vec![0; WAITING_BYTES / 4]);
        for key in ["a", "b", "c", "d", "e"] {
            keeping.take(Change { key: key.into(), value: Some(large.clone()) });
            keeping.commit(Time::from_secs(1)).await;
        }
        assert_eq!(keeping.describe(Time::from_secs(1))["lost"], 2);
        keeping.take(Change { key: "a".into(), value: None });
        keeping.commit(Time::from_secs(1)).await;
        keeping.take(put("f", "1"));
        keeping.commit(Time::from_secs(1)).await;
        assert_eq!(keeping.describe(Time::from_secs(1))["lost"], 2, "there is room again");
        assert_eq!(measured(&keeping)[3], 2.0);
    }
}
