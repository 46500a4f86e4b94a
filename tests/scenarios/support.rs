//! What several scenarios need.

use ims_core::command::Problem;
use ims_core::config::Span;
use ims_sip::{Message, Name};
use ims_tests::{Sent, Verdict};
use serde_json::Value;
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata};

/// The cause that a handset gives for a failed procedure.
pub(crate) fn cause(answer: &Result<Value, Problem>) -> &str {
    answer.as_ref().err().map_or("none", |p| p.kind.as_str())
}

/// A filter that loses the datagram with this number (from 0) among those that a handset sends or gets.
pub(crate) fn lose_gm_packet(number: usize) -> impl FnMut(&Sent<'_>) -> Verdict {
    let mut seen = 0;
    move |sent| {
        if !sent.from.starts_with("ue") && !sent.to.starts_with("ue") {
            return Verdict::Pass;
        }
        seen += 1;
        if seen - 1 == number { Verdict::Lose } else { Verdict::Pass }
    }
}

/// A filter that lets a test rewrite messages on one hop.
pub(crate) fn rewrite(
    from: &'static str,
    to: &'static str,
    change: impl Fn(&mut Message),
) -> impl FnMut(&Sent<'_>) -> Verdict {
    move |sent| {
        if sent.from != from || sent.to != to {
            return Verdict::Pass;
        }
        let Ok(mut message) = Message::parse(sent.bytes.clone()) else { return Verdict::Pass };
        change(&mut message);
        Verdict::Replace(message.to_bytes())
    }
}

/// Status of every response on the way to handsets, in order.
pub(crate) fn statuses_to_handsets(lab: &ims_tests::Lab) -> Vec<u16> {
    let handset = |id| lab.world.is_handset(id);
    let entries = lab.world.trace.iter().filter(|e| e.to.is_some_and(handset));
    let sip = entries.filter_map(|e| match &e.what {
        ims_tests::What::Sip { bytes, .. } => Message::parse(bytes.clone()).ok(),
        _ => None,
    });
    sip.filter(|m| !m.is_request()).map(|m| m.status()).collect()
}

/// Text of a header in the last message from one node to another.
pub(crate) fn last_header(lab: &ims_tests::Lab, from: &str, to: &str, name: Name) -> Option<String> {
    let sent = |e: &&ims_tests::Entry| lab.world.name(e.from) == from && e.to.is_some_and(|t| lab.world.name(t) == to);
    lab.world.trace.iter().rev().filter(sent).find_map(|e| match &e.what {
        ims_tests::What::Sip { bytes, .. } => Message::parse(bytes.clone()).ok()?.text(name).map(str::to_owned),
        _ => None,
    })
}

/// A world whose first handset is registered, and nothing else is going on.
pub(crate) fn attached(config: ims_tests::LabConfig) -> ims_tests::Lab {
    let mut lab = ims_tests::Lab::new(config);
    lab.register(0).unwrap();
    lab.rest();
    lab.world.trace.clear();
    lab
}

pub(crate) fn restart_hss(lab: &mut ims_tests::Lab) {
    let node = hss::Hss::new(lab.config.hss.clone()).unwrap();
    lab.world.restart(lab.hss, Box::new(node));
}

pub(crate) fn is_registered_in_hss(lab: &mut ims_tests::Lab) -> bool {
    lab.subscriber(0)["impus"].to_string().contains("\"registered\"")
}

/// Somebody is killed, and started again by `restart`, at each step that the world takes until the handset is told: whatever was
/// lost, the handset gets there, and what it is told is true. `told` looks after the restart, if the handset had been told, and
/// `end` when all is over.
pub(crate) fn die_at_any_step_of_a_registration(
    config: &ims_tests::LabConfig,
    restart: impl Fn(&mut ims_tests::Lab),
    told: impl Fn(&mut ims_tests::Lab, &str),
    end: impl Fn(&mut ims_tests::Lab, &str),
) {
    for steps in 0..1000 {
        let when = format!("after {steps} steps");
        let mut config = config.clone();
        config.ue.retry = Some(Span::secs(5));
        let mut lab = ims_tests::Lab::new(config);
        let id = lab.world.command(lab.ues[0], "register", Value::Null);
        for _ in 0..steps {
            lab.world.step();
        }
        let was_told = lab.world.reply(id).is_some_and(|told| told.is_ok());
        restart(&mut lab);
        if was_told {
            told(&mut lab, &when);
        }
        lab.world.run_for(Duration::from_secs(200));
        lab.rest();
        assert_eq!(lab.ue(0)["state"], "registered", "{when}\n{}", lab.world.ladder());
        end(&mut lab, &when);
        assert!(lab.refresh(0).is_ok(), "{when}");
        if was_told {
            assert!(steps > 20, "{steps} steps were tried");
            return;
        }
    }
    panic!("the handset was never told");
}

/// What the operator is told while this lives: every line of the log of this thread.
pub(crate) struct Told {
    lines: Arc<Mutex<Vec<String>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Told {
    pub(crate) fn listen() -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let guard = tracing::subscriber::set_default(Ear(lines.clone()));
        Self { lines, _guard: guard }
    }

    /// How many lines hold these words; the ear is empty afterwards.
    pub(crate) fn take(&self, words: &str) -> usize {
        let lines = std::mem::take(&mut *self.lines.lock().unwrap());
        let found = lines.iter().filter(|l| l.contains(words)).count();
        if found == 0 {
            eprintln!("the operator was told:\n{}", lines.join("\n"));
        }
        found
    }
}

struct Ear(Arc<Mutex<Vec<String>>>);

struct Words<'a>(&'a mut String);

impl Visit for Words<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl tracing::Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::new();
        event.record(&mut Words(&mut line));
        self.0.lock().unwrap().push(line);
    }
}

/// After ten minutes without a word nothing of an attempt is left at the P-CSCF.
pub(crate) fn assert_nothing_left(lab: &mut ims_tests::Lab) {
    lab.rest();
    lab.world.run_for(Duration::from_secs(600));
    let s = lab.world.snapshot(lab.pcscf);
    assert_eq!(
        (&s["registered"], &s["authenticating"], &s["sa_sets"], &s["forwarded"]),
        (&0.into(), &0.into(), &0.into(), &0.into()),
        "{s:#}"
    );
    assert_eq!(lab.world.sa_sets(lab.pcscf), 0, "nor in the kernel");
}

/// Status of every final answer that a node gave to whoever is no node of this world, in order.
pub(crate) fn answers(lab: &ims_tests::Lab, from: &str) -> Vec<u16> {
    let sent = |e: &&ims_tests::Entry| lab.world.name(e.from) == from && e.to.is_none();
    let sip = lab.world.trace.iter().filter(sent).filter_map(|e| match &e.what {
        ims_tests::What::Sip { bytes, .. } => Message::parse(bytes.clone()).ok(),
        _ => None,
    });
    sip.filter(|m| !m.is_request() && m.status() >= 200).map(|m| m.status()).collect()
}

/// What the operator is told while `run` runs.
pub(crate) fn sentences<T>(run: impl FnOnce() -> T) -> (T, Vec<String>) {
    let told = Told::listen();
    let result = run();
    (result, std::mem::take(&mut *told.lines.lock().unwrap()))
}
