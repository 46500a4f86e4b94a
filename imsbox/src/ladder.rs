//! The message ladder of the demo, drawn from what the shell's tap shows.

use ims_core::sa::SaChange;
use ims_core::{Action, Event, Flow, Time, Transport};
use ims_diameter::{cx, dict};
use ims_shell::{Listening, Tapped};
use ims_sip::Message;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

const COLUMNS: [(&str, &str); 6] = [
    ("ue2", "handset 2"),
    ("ue", "handset 1"),
    ("pcscf", "P-CSCF"),
    ("icscf", "I-CSCF"),
    ("scscf", "S-CSCF"),
    ("hss", "HSS"),
];
/// The columns of the handsets.
const SECOND: usize = 0;
const FIRST: usize = 1;
const WIDTH: usize = 22;
/// More than a demo sends; a bound, because nothing may grow without one.
const MOST_STEPS: usize = 2_000;

/// One arrow, or a note at one column.
#[derive(Clone, Debug)]
struct Step {
    at: Time,
    from: usize,
    to: usize,
    label: String,
}

/// Collects steps while the nodes run.
#[derive(Default)]
pub(crate) struct Ladder {
    steps: Mutex<Vec<Step>>,
    listening: Mutex<Vec<Listening>>,
    second: Option<IpAddr>,
}

fn column(node: &str) -> usize {
    COLUMNS.iter().position(|(name, _)| *name == node).unwrap_or(FIRST)
}

fn is_handset(column: usize) -> bool {
    column <= FIRST
}

impl Ladder {
    /// `second`: the address of the second handset.
    pub(crate) fn new(second: Option<IpAddr>) -> Self {
        Self { second, ..Self::default() }
    }

    /// Tells which address is whose; what came before is unknown, and a handset's.
    pub(crate) fn learn(&self, listening: &[Listening]) {
        if let Ok(mut known) = self.listening.lock() {
            *known = listening.to_vec();
        }
    }

    fn owner(&self, addr: SocketAddr) -> usize {
        let known = self.listening.lock().map(|l| l.iter().find(|l| l.addr == addr).map(|l| column(&l.node)));
        let handset = if self.second == Some(addr.ip()) { SECOND } else { FIRST };
        known.ok().flatten().unwrap_or(handset)
    }

    /// What the label says of how a message travelled; nothing of the plain way.
    fn way(&self, flow: &Flow) -> &'static str {
        match (self.is_protected(flow.local), flow.transport) {
            (true, Transport::Tcp) => " [IPsec, TCP]",
            (true, Transport::Udp) => " [IPsec]",
            (false, Transport::Tcp) => " [TCP]",
            (false, Transport::Udp) => "",
        }
    }

    fn is_protected(&self, addr: SocketAddr) -> bool {
        self.listening.lock().is_ok_and(|l| l.iter().any(|l| l.addr == addr && l.protected))
    }

    fn push(&self, at: Time, from: usize, to: usize, label: String) {
        if let Ok(mut steps) = self.steps.lock()
            && steps.len() < MOST_STEPS
        {
            steps.push(Step { at, from, to, label });
        }
    }

    /// Called by the shell for every event that a node takes and every action that it gives.
    pub(crate) fn on_tap(&self, node: &str, at: Time, what: &Tapped<'_>) {
        let here = column(node);
        match what {
            Tapped::Event(Event::Sip(packet)) => {
                if let Some(label) = sip_label(&packet.bytes, self.way(&packet.flow)) {
                    self.push(at, self.owner(packet.flow.remote), here, label);
                }
            }
            // What local nodes get is shown when they get it; the handsets live elsewhere.
            Tapped::Action(Action::SendSip { flow, bytes, .. }) if is_handset(self.owner(flow.remote)) => {
                if let Some(label) = sip_label(bytes, self.way(flow)) {
                    self.push(at, here, self.owner(flow.remote), label);
                }
            }
            Tapped::Event(Event::Diameter { bytes, .. }) => {
                if let Some((from, label)) = diameter_label(bytes) {
                    self.push(at, from, here, label);
                }
            }
            Tapped::Action(Action::Sa { change: SaChange::Install { set, .. }, .. }) => {
                let suite = format!("{}/{}", set.suite.alg.token(), set.suite.ealg.token());
                self.push(at, here, here, format!("asks the kernel for 4 SAs: {suite}"));
            }
            Tapped::Event(Event::Sa { result, .. }) => {
                let answer = match result {
                    Ok(()) => "the kernel has them".into(),
                    Err(error) => format!("no SAs: {error}").split(':').take(2).collect::<Vec<_>>().join(":"),
                };
                self.push(at, here, here, answer);
            }
            _ => {}
        }
    }

    /// Everything so far, and forgets it.
    pub(crate) fn draw(&self) -> String {
        let steps = self.steps.lock().map(|mut s| std::mem::take(&mut *s)).unwrap_or_default();
        let mut out = String::new();
        let start = steps.first().map_or(Time::EPOCH, |s| s.at);
        // A handset that has no part in it has no column.
        let shown = Columns::of(&steps);
        let _ = writeln!(out, "     ms  {}", shown.heads().trim_end());
        for step in steps {
            let millis = step.at.since(start).as_micros();
            let _ = writeln!(out, "{:>3}.{:03}  {}", millis / 1000, millis % 1000, shown.line(&step));
        }
        out
    }
}

/// The columns of one ladder.
struct Columns {
    shown: Vec<usize>,
    width: usize,
}

impl Columns {
    fn of(steps: &[Step]) -> Self {
        let used = |n: usize| !is_handset(n) || steps.iter().any(|s| s.from == n || s.to == n);
        let shown: Vec<usize> = (0..COLUMNS.len()).filter(|n| used(*n)).collect();
        let width = if shown.len() < COLUMNS.len() { WIDTH } else { WIDTH - 4 };
        Self { shown, width }
    }

    fn heads(&self) -> String {
        let title = |n: &usize| COLUMNS.get(*n).map_or("", |(_, title)| *title);
        self.shown.iter().map(|n| format!("{:<w$}", title(n), w = self.width)).collect()
    }

    fn place(&self, column: usize) -> usize {
        self.shown.iter().position(|n| *n == column).unwrap_or(0) * self.width
    }

    fn line(&self, step: &Step) -> String {
        let mut cells: Vec<char> = Vec::new();
        for n in 0..self.shown.len() {
            cells.resize(n * self.width, ' ');
            cells.push('|');
        }
        let (from, to) = (self.place(step.from), self.place(step.to));
        let (left, right) = (from.min(to), from.max(to));
        if left == right {
            let note = format!("* {}", step.label);
            cells.resize((left + 2 + note.chars().count()).max(cells.len()), ' ');
            for (i, c) in note.chars().enumerate() {
                cells[left + 1 + i] = c;
            }
            return cells.into_iter().collect::<String>().trim_end().to_owned();
        }
        cells[left + 1..right].fill('-');
        let room = right - left - 4;
        let label: String = step.label.chars().take(room).collect();
        let begin = left + 2 + (room - label.chars().count()) / 2;
        for (i, c) in label.chars().enumerate() {
            cells[begin + i] = c;
        }
        if from < to {
            cells[right - 1] = '>';
        } else {
            cells[left + 1] = '<';
        }
        cells.into_iter().collect::<String>().trim_end().to_owned()
    }
}

fn sip_label(bytes: &bytes::Bytes, way: &str) -> Option<String> {
    let message = Message::parse(bytes.clone()).ok()?;
    let what = if message.is_request() {
        message.method().as_str().to_owned()
    } else {
        format!("{} {}", message.status(), String::from_utf8_lossy(message.reason()))
    };
    Some(format!("{what}{way}"))
}

/// Cx only: the base protocol's own messages would hide the story.
fn diameter_label(bytes: &bytes::Bytes) -> Option<(usize, String)> {
    let message = ims_diameter::Message::parse(bytes.clone()).ok()?;
    if message.application() != cx::APPLICATION {
        return None;
    }
    let sender = message.avps().first(&dict::ORIGIN_HOST)?.utf8().ok()?;
    let from = COLUMNS.iter().position(|(node, _)| sender.starts_with(node))?;
    Some((from, message.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_point_from_the_sender_to_the_receiver() {
        let step = |from, to, label: &str| Step { at: Time::EPOCH, from, to, label: label.into() };
        let steps = [step(1, 2, "REGISTER"), step(5, 3, "UAA"), step(2, 2, "4 SAs")];
        let shown = Columns::of(&steps);
        let right = shown.line(&steps[0]);
        assert!(right.starts_with("|-") && right.contains("REGISTER") && right[..=WIDTH].ends_with(">|"), "{right}");
        let left = shown.line(&steps[1]);
        assert_eq!(&left[2 * WIDTH..2 * WIDTH + 2], "|<");
        assert!(shown.line(&steps[2]).contains("* 4 SAs"));
        assert!(shown.heads().starts_with("handset 1 ") && !shown.heads().contains("handset 2"));
    }

    #[test]
    fn a_call_has_two_handsets() {
        let second = "10.0.0.2".parse().unwrap();
        let ladder = Ladder::new(Some(second));
        assert_eq!((ladder.owner((second, 5062).into()), ladder.owner(([10, 0, 0, 1], 5062).into())), (SECOND, FIRST));
        ladder.push(Time::EPOCH, SECOND, 2, "200 OK".into());
        ladder.push(Time::EPOCH, 2, FIRST, "200 OK".into());
        let drawn = ladder.draw();
        assert!(drawn.contains("handset 2") && drawn.contains("handset 1"), "{drawn}");
    }
}
