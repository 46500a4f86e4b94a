//! The session descriptions of a handset: an offer as phones make it, and answers (RFC 3264). No media flows.

use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::IpAddr;

/// Where the handset would take media. Nothing listens there.
const AUDIO_PORT: u16 = 49_152;
const VIDEO_PORT: u16 = 49_154;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Direction {
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    pub(crate) fn token(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    fn parse(token: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive].into_iter().find(|d| d.token() == token)
    }

    fn of(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// What the other side sees of it.
    pub(crate) fn mirrored(self) -> Self {
        Self::of(self.receives(), self.sends())
    }
}

/// Payload types as we number them, most wanted first.
const AUDIO: [(u8, &str); 4] =
    [(104, "AMR-WB/16000/1"), (102, "AMR/8000/1"), (105, "telephone-event/16000"), (100, "telephone-event/8000")];
const NARROW: [u8; 2] = [102, 100];

/// One `m=` line with what we need of its attributes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stream {
    kind: String,
    port: u16,
    proto: String,
    /// Payload type and its rtpmap.
    formats: Vec<(String, String)>,
    direction: Direction,
}

/// What the other side said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Description {
    pub(crate) streams: Vec<Stream>,
}

impl Description {
    /// Reads what a handset needs of a description; None when it is none.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let mut streams: Vec<Stream> = Vec::new();
        let mut session_direction = None;
        let (mut version, mut origin) = (false, false);
        for line in text.lines() {
            let (kind, value) = line.split_once('=')?;
            match kind {
                "v" => version = value.trim() == "0",
                "o" => origin = true,
                "m" => streams.push(stream(value)?),
                "a" => match (streams.last_mut(), Direction::parse(value.trim())) {
                    (Some(stream), Some(direction)) => stream.direction = direction,
                    (None, Some(direction)) => session_direction = Some(direction),
                    (Some(stream), None) => stream.map(value),
                    (None, None) => {}
                },
                _ => {}
            }
            if streams.is_empty() {
                continue;
            }
            if let (Some(direction), Some(stream)) = (session_direction, streams.last_mut().filter(|_| kind == "m")) {
                stream.direction = direction;
            }
        }
        (version && origin).then_some(Self { streams })
    }

    fn audio(&self) -> Option<&Stream> {
        self.streams.iter().find(|s| s.kind == "audio" && s.port > 0)
    }

    fn has_video(&self) -> bool {
        self.streams.iter().any(|s| s.kind == "video" && s.port > 0)
    }
}

fn stream(value: &str) -> Option<Stream> {
    let mut words = value.split_ascii_whitespace();
    let (kind, port, proto) = (words.next()?, words.next()?, words.next()?);
    let port = port.split('/').next()?.parse().ok()?;
    let formats = words.take(64).map(|f| (f.to_owned(), String::new())).collect();
    Some(Stream { kind: kind.into(), port, proto: proto.into(), formats, direction: Direction::default() })
}

impl Stream {
    fn map(&mut self, attribute: &str) {
        let Some((number, name)) = attribute.strip_prefix("rtpmap:").and_then(|m| m.split_once(' ')) else { return };
        if let Some(format) = self.formats.iter_mut().find(|(n, _)| n == number) {
            format.1 = name.trim().to_owned();
        }
    }

    /// Of what is offered, the first speech codec that we have, and the tones of its rate.
    fn chosen(&self, narrow: bool) -> Vec<(String, String)> {
        let ours = |name: &str| {
            let known = AUDIO.iter().find(|(_, n)| same_codec(n, name));
            known.is_some_and(|(number, _)| !narrow || NARROW.contains(number))
        };
        let is_tone = |name: &str| name.to_ascii_lowercase().starts_with("telephone-event");
        let Some(speech) = self.formats.iter().find(|(_, name)| !is_tone(name) && ours(name)) else {
            return Vec::new();
        };
        let rate = |name: &str| name.split('/').nth(1).map(str::to_owned);
        let tone = self.formats.iter().find(|(_, name)| is_tone(name) && rate(name) == rate(&speech.1));
        std::iter::once(speech).chain(tone).cloned().collect()
    }
}

fn same_codec(a: &str, b: &str) -> bool {
    let trimmed = |name: &str| name.strip_suffix("/1").unwrap_or(name).to_ascii_lowercase();
    trimmed(a) == trimmed(b)
}

/// The session as this side has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Session {
    address: IpAddr,
    id: u64,
    version: u64,
    /// We hold the other side.
    pub(crate) holding: bool,
    pub(crate) video: bool,
    pub(crate) narrow: bool,
    /// With preconditions: whether our bearer is up.
    pub(crate) bearer: Option<bool>,
    /// What was agreed: our direction, the codec, and whether there is video.
    agreed: Option<Agreed>,
    /// The `m=` lines so far, in order: they never go away (RFC 3264 8).
    had_video: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Agreed {
    direction: Direction,
    codec: String,
    video: bool,
}

impl Session {
    pub(crate) fn new(address: IpAddr, id: u64, video: bool) -> Self {
        Self {
            address,
            id,
            version: 0,
            holding: false,
            video,
            narrow: false,
            bearer: None,
            agreed: None,
            had_video: false,
        }
    }

    fn head(&mut self) -> String {
        self.version += 1;
        let family = if self.address.is_ipv4() { "IP4" } else { "IP6" };
        let Self { address, id, version, .. } = self;
        format!("v=0\r\no=- {id} {version} IN {family} {address}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\n")
    }

    /// An offer of the session as this side wants it.
    pub(crate) fn offer(&mut self) -> String {
        let mut out = self.head();
        let formats = AUDIO.iter().filter(|(n, _)| !self.narrow || NARROW.contains(n));
        let formats: Vec<(String, String)> = formats.map(|(n, name)| (n.to_string(), (*name).into())).collect();
        let direction = if self.holding { Direction::SendOnly } else { Direction::SendRecv };
        audio(&mut out, AUDIO_PORT, "RTP/AVP", &formats, direction);
        self.precondition(&mut out);
        self.had_video |= self.video;
        if self.had_video {
            video(&mut out, if self.video { VIDEO_PORT } else { 0 }, "RTP/AVP", "113", direction);
        }
        out
    }

    /// What there is of the bearer, and what is wanted (RFC 3312 5).
    fn precondition(&self, out: &mut String) {
        let Some(up) = self.bearer else { return };
        let now = if up { "sendrecv" } else { "none" };
        let _ = write!(
            out,
            "a=curr:qos local {now}\r\na=curr:qos remote none\r\na=des:qos mandatory local sendrecv\r\na=des:qos optional remote sendrecv\r\n"
        );
    }

    /// The answer to an offer; None when nothing of it can be taken (488).
    pub(crate) fn answer(&mut self, offer: &Description, takes_video: bool) -> Option<String> {
        let asked = offer.audio()?;
        let chosen = asked.chosen(self.narrow);
        let codec = chosen.first()?.1.clone();
        // Whom we hold hears nothing from its own side, and we take nothing (RFC 3264 8.4).
        let theirs = asked.direction.mirrored();
        let direction = Direction::of(theirs.sends(), theirs.receives() && !self.holding);
        self.video = takes_video && offer.has_video();
        let mut out = self.head();
        let mut answered = false;
        for stream in &offer.streams {
            match stream.kind.as_str() {
                "audio" if !answered && stream.port > 0 => {
                    answered = true;
                    audio(&mut out, AUDIO_PORT, &stream.proto, &chosen, direction);
                    self.precondition(&mut out);
                }
                "video" => {
                    let port = if self.video && stream.port > 0 { VIDEO_PORT } else { 0 };
                    let format = stream.formats.first().map_or("113", |(number, _)| number);
                    self.had_video = true;
                    video(&mut out, port, &stream.proto, format, stream.direction.mirrored());
                }
                other => {
                    let format = stream.formats.first().map_or("0", |(number, _)| number);
                    let _ = write!(out, "m={other} 0 {} {format}\r\n", stream.proto);
                }
            }
        }
        self.agreed = Some(Agreed { direction, codec, video: self.video });
        Some(out)
    }

    /// Takes the answer to our offer; false when it is none (RFC 3264 6: as many streams, and a codec of ours).
    pub(crate) fn take_answer(&mut self, answer: &Description) -> bool {
        let expected = 1 + usize::from(self.had_video);
        let Some(audio) = answer.audio().filter(|_| answer.streams.len() == expected) else { return false };
        let Some((_, codec)) = audio.chosen(self.narrow).into_iter().next() else { return false };
        self.video &= answer.has_video();
        self.agreed = Some(Agreed { direction: audio.direction.mirrored(), codec, video: self.video });
        true
    }

    pub(crate) fn is_agreed(&self) -> bool {
        self.agreed.is_some()
    }

    pub(crate) fn snapshot(&self) -> Value {
        self.agreed
            .as_ref()
            .map_or(Value::Null, |a| json!({ "direction": a.direction.token(), "codec": a.codec, "video": a.video }))
    }
}

fn audio(out: &mut String, port: u16, proto: &str, formats: &[(String, String)], direction: Direction) {
    let numbers: Vec<&str> = formats.iter().map(|(n, _)| n.as_str()).collect();
    let _ = write!(out, "m=audio {port} {proto} {}\r\nb=AS:41\r\nb=RS:0\r\nb=RR:0\r\n", numbers.join(" "));
    for (number, name) in formats {
        let _ = write!(out, "a=rtpmap:{number} {name}\r\n");
        if name.starts_with("AMR") {
            let _ = write!(out, "a=fmtp:{number} mode-change-capability=2;max-red=0\r\n");
        }
    }
    let _ = write!(out, "a=ptime:20\r\na=maxptime:240\r\na={}\r\n", direction.token());
}

fn video(out: &mut String, port: u16, proto: &str, format: &str, direction: Direction) {
    let _ = write!(out, "m=video {port} {proto} {format}\r\n");
    if port > 0 {
        let _ = write!(out, "b=AS:560\r\na=rtpmap:{format} H264/90000\r\na={}\r\n", direction.token());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(video: bool) -> Session {
        Session::new("10.0.0.1".parse().unwrap(), 7, video)
    }

    /// One round of offer and answer; what each side has then.
    fn round(a: &mut Session, b: &mut Session) -> (Value, Value) {
        let offer = Description::parse(a.offer().as_bytes()).unwrap();
        let answer = b.answer(&offer, true).unwrap();
        assert!(a.take_answer(&Description::parse(answer.as_bytes()).unwrap()));
        (a.snapshot(), b.snapshot())
    }

    #[test]
    fn both_sides_agree_on_codec_and_direction() {
        let (mut a, mut b) = (session(false), session(false));
        let (one, two) = round(&mut a, &mut b);
        assert_eq!(
            (&one["codec"], &one["direction"], one.clone()),
            (&json!("AMR-WB/16000/1"), &json!("sendrecv"), two)
        );
        a.narrow = true;
        assert_eq!(round(&mut a, &mut b).1["codec"], "AMR/8000/1");
    }

    #[test]
    fn hold_by_one_and_by_both() {
        let (mut a, mut b) = (session(false), session(false));
        a.holding = true;
        let (one, two) = round(&mut a, &mut b);
        assert_eq!((&one["direction"], &two["direction"]), (&json!("sendonly"), &json!("recvonly")));
        b.holding = true;
        let (two, one) = round(&mut b, &mut a);
        assert_eq!((&one["direction"], &two["direction"]), (&json!("inactive"), &json!("inactive")));
        (a.holding, b.holding) = (false, false);
        assert_eq!(round(&mut a, &mut b).0["direction"], "sendrecv");
    }

    #[test]
    fn video_comes_and_goes_and_its_line_stays() {
        let (mut a, mut b) = (session(true), session(false));
        assert_eq!(round(&mut a, &mut b).1["video"], true);
        a.video = false;
        let offer = a.offer();
        assert!(offer.contains("m=video 0 "), "{offer}");
        let description = Description::parse(offer.as_bytes()).unwrap();
        let answer = b.answer(&description, true).unwrap();
        assert!(answer.contains("m=video 0 ") && a.take_answer(&Description::parse(answer.as_bytes()).unwrap()));
        assert_eq!((a.snapshot()["video"].clone(), b.snapshot()["video"].clone()), (json!(false), json!(false)));
    }

    #[test]
    fn what_we_cannot_take_is_not_answered() {
        let offer = "v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\ns=-\r\nc=IN IP4 1.1.1.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 18\r\n";
        assert!(session(false).answer(&Description::parse(offer.as_bytes()).unwrap(), false).is_none());
        for bad in ["", "hello", "v=0\r\nm=audio\r\n", "m=audio 1 RTP/AVP 0\r\n"] {
            assert!(Description::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(Description::parse(&[0xff, 0xfe]).is_none());
    }

    #[test]
    fn an_answer_with_other_streams_is_none() {
        let mut a = session(true);
        a.offer();
        let answer = "v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\ns=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 104\r\na=rtpmap:104 AMR-WB/16000\r\n";
        assert!(!a.take_answer(&Description::parse(answer.as_bytes()).unwrap()));
    }
}
