//! What a caller wants of the callee's devices (RFC 3841), held against the feature tags that these registered with (RFC 3840):
//! Accept-Contact, Reject-Contact, and what a method asks for by itself.

use ims_sip::headers::{Params, split};
use ims_sip::{Message, Name};

/// Header values of a request that are looked at.
const MOST: usize = 16;

/// Tags without a plus sign that are feature tags (RFC 3840 10, RFC 4235, RFC 4569 and the registry).
const BASE_TAGS: [&str; 19] = [
    "audio",
    "automata",
    "class",
    "duplex",
    "data",
    "control",
    "mobility",
    "description",
    "events",
    "priority",
    "methods",
    "extensions",
    "schemes",
    "application",
    "video",
    "language",
    "type",
    "isfocus",
    "actor",
];

/// What is wanted of a device: some feature tags with some of their values.
struct Predicate<'a> {
    params: Params<'a>,
    /// A device that does not fit is out.
    require: bool,
    /// A device fits only if it says so itself.
    explicit: bool,
}

/// What a request wants.
pub(crate) struct Preferences<'a> {
    accept: Vec<Predicate<'a>>,
    reject: Vec<Predicate<'a>>,
    method: &'a str,
    event: Option<&'a str>,
}

impl<'a> Preferences<'a> {
    pub(crate) fn of(request: &'a Message) -> Self {
        let event = request.first::<ims_sip::headers::Event<'_>>().ok().flatten().map(|event| event.package);
        Self {
            accept: predicates(request, Name::AcceptContact),
            reject: predicates(request, Name::RejectContact),
            method: request.method().as_str(),
            event,
        }
    }

    /// How well a device fits, in thousandths (Qa of RFC 3841 7.2.4); None: it shall not have the request.
    fn score(&self, device: &Params<'_>) -> Option<u32> {
        if self.reject.iter().any(|predicate| predicate.rejects(device)) {
            return None;
        }
        let mut sum = 0;
        for predicate in &self.accept {
            sum += predicate.score(device)?;
        }
        Some(sum / (self.accept.len() as u32).max(1))
    }

    /// The devices that may have the request, with how well they fit. `params`: of the Contact that a device registered.
    pub(crate) fn choose<T>(&self, devices: Vec<T>, params: impl Fn(&T) -> &str) -> Vec<(u32, T)> {
        if !self.accept.is_empty() || !self.reject.is_empty() {
            let scored = devices.into_iter().map(|device| (self.score(&Params(params(&device))), device));
            return scored.filter_map(|(score, device)| Some((score?, device))).collect();
        }
        // RFC 3841 7.2.2: the method, and the event package, are wanted without saying; but rather any device than none.
        let can = |device: &T| {
            let device = Params(params(device));
            says(&device, "methods").is_none_or(|methods| overlap(methods, Some(self.method)))
                && self.event.is_none_or(|event| {
                    self.method != "SUBSCRIBE" || says(&device, "events").is_none_or(|e| overlap(e, Some(event)))
                })
        };
        let some = devices.iter().any(&can);
        devices.into_iter().filter(|device| !some || can(device)).map(|device| (0, device)).collect()
    }
}

fn predicates(request: &Message, name: Name) -> Vec<Predicate<'_>> {
    let values = request.raw(name).flat_map(|line| split(line, true)).take(MOST);
    let read = values.filter_map(|value| {
        let value = std::str::from_utf8(value).ok()?.trim();
        let params = Params(value.strip_prefix('*')?.trim_start().trim_start_matches(';'));
        Some(Predicate { params, require: params.has("require"), explicit: params.has("explicit") })
    });
    read.filter(|predicate| predicate.features().next().is_some()).collect()
}

impl Predicate<'_> {
    fn features(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.params.iter().filter(|(name, _)| is_feature(name))
    }

    /// RFC 3841 7.2.3: every tag is one that the device speaks of, and fits.
    fn rejects(&self, device: &Params<'_>) -> bool {
        self.features().all(|(name, wanted)| says(device, name).is_some_and(|has| overlap(has, wanted)))
    }

    /// RFC 3841 7.2.4. None: out.
    fn score(&self, device: &Params<'_>) -> Option<u32> {
        let (mut all, mut said, mut fits) = (0, 0, true);
        for (name, wanted) in self.features() {
            all += 1;
            match says(device, name) {
                Some(has) if overlap(has, wanted) => said += 1,
                Some(_) => fits = false,
                // Who does not speak of it may have it all the same.
                None => {}
            }
        }
        let fits = fits && (!self.explicit || said == all);
        match fits {
            true => Some(1000 * said / all.max(1)),
            false if self.require => None,
            false => Some(0),
        }
    }
}

fn is_feature(name: &str) -> bool {
    name.starts_with('+') || BASE_TAGS.iter().any(|tag| tag.eq_ignore_ascii_case(name))
}

/// What a device says of a tag: `Some(None)` when it only names it.
fn says<'a>(device: &Params<'a>, name: &str) -> Option<Option<&'a str>> {
    device.get(name)
}

/// Whether two lists of values have something in common; without a value a tag is TRUE (RFC 3840 9).
fn overlap(has: Option<&str>, wanted: Option<&str>) -> bool {
    let values = |list: Option<&str>| -> Vec<Value> {
        list.unwrap_or("TRUE").split(',').take(64).map(|value| Value::of(value.trim())).collect()
    };
    let wanted = values(wanted);
    values(has).iter().any(|has| wanted.iter().any(|wanted| has.meets(wanted)))
}

#[derive(PartialEq, Debug)]
enum Value {
    /// In lower case, escapes taken off.
    Token(String),
    Not(String),
    /// `<text>`: as it is.
    Text(String),
    /// From, to.
    Number(f64, f64),
}

impl Value {
    fn of(text: &str) -> Self {
        if let Some(inner) = text.strip_prefix('<').and_then(|t| t.strip_suffix('>')) {
            return Self::Text(inner.into());
        }
        if let Some(number) = text.strip_prefix('#').and_then(Self::number) {
            return number;
        }
        match text.strip_prefix('!') {
            Some(token) => Self::Not(plain(token)),
            None => Self::Token(plain(text)),
        }
    }

    /// `=5`, `<=5`, `>=5`, `1:5` (RFC 3840 9 numeric).
    fn number(text: &str) -> Option<Self> {
        let read = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite());
        if let Some(text) = text.strip_prefix("<=") {
            return Some(Self::Number(f64::MIN, read(text)?));
        }
        if let Some(text) = text.strip_prefix(">=") {
            return Some(Self::Number(read(text)?, f64::MAX));
        }
        match text.strip_prefix('=') {
            Some(text) => read(text).map(|n| Self::Number(n, n)),
            None => {
                let (from, to) = text.split_once(':')?;
                Some(Self::Number(read(from)?, read(to)?))
            }
        }
    }

    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Token(a), Self::Token(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Number(a, b), Self::Number(c, d)) => a <= d && c <= b,
            (Self::Not(a), Self::Token(b)) | (Self::Token(b), Self::Not(a)) => a != b,
            (Self::Not(_), _) | (_, Self::Not(_)) => true,
            _ => false,
        }
    }
}

/// `urn%3Aurn-7%3A..` and `urn:urn-7:..` are one.
fn plain(token: &str) -> String {
    let mut out = String::with_capacity(token.len());
    let mut rest = token;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        match rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(u8::is_ascii_graphic) {
            Some(b) => {
                out.push(char::from(b));
                rest = &rest[at + 3..];
            }
            None => {
                out.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out.make_ascii_lowercase();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const MMTEL: &str = "+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\"";

    fn request(method: &str, headers: &str) -> Message {
        let text = format!(
            "{method} sip:b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\n\
             Call-ID: call\r\nCSeq: 7 {method}\r\n{headers}Content-Length: 0\r\n\r\n"
        );
        Message::parse(Bytes::from(text)).unwrap()
    }

    /// Which of the devices have an INVITE with these headers, the one that fits best first.
    fn chosen(headers: &str, devices: &[&str]) -> Vec<usize> {
        let request = request("INVITE", headers);
        let devices = devices.iter().map(|d| d.to_string()).enumerate().collect();
        let mut chosen = Preferences::of(&request).choose(devices, |(_, params): &(usize, String)| params);
        chosen.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
        chosen.into_iter().map(|(_, (at, _))| at).collect()
    }

    #[test]
    fn who_says_that_it_has_what_is_wanted_comes_first() {
        let devices = [";+sip.instance=\"<urn:x>\"", &format!(";audio;{MMTEL}"), ";+g.3gpp.icsi-ref=\"urn:other\""];
        let accept = format!("Accept-Contact: *;{MMTEL}\r\n");
        assert_eq!(chosen(&accept, &devices), [1, 0, 2]);
        assert_eq!(chosen(&format!("a: *;{MMTEL};require\r\n"), &devices), [1, 0], "who says nothing may have it");
        assert_eq!(chosen(&format!("a: *;{MMTEL};require;explicit\r\n"), &devices), [1]);
        assert_eq!(chosen(&format!("a: *;{MMTEL};explicit\r\n"), &devices), [1, 0, 2]);
        let unescaped =
            "Accept-Contact: *;+g.3gpp.icsi-ref=\"urn:urn-7:3gpp-service.ims.icsi.MMTEL\";require;explicit\r\n";
        assert_eq!(chosen(unescaped, &devices), [1]);
        let several = format!("Accept-Contact: *;{MMTEL}, *;video;require;explicit\r\n");
        assert!(chosen(&several, &devices).is_empty());
    }

    #[test]
    fn a_list_of_services_holds_each_of_them() {
        let device = ";+g.3gpp.icsi-ref=\"urn%3Aa,urn%3Ab\";methods=\"INVITE,BYE\"";
        let accept = |what: &str| format!("Accept-Contact: *;+g.3gpp.icsi-ref=\"{what}\";require;explicit\r\n");
        assert_eq!(chosen(&accept("urn%3Ab"), &[device]).len(), 1);
        assert_eq!(chosen(&accept("urn%3Ac"), &[device]).len(), 0);
        assert_eq!(chosen("Accept-Contact: *;methods=\"MESSAGE,INVITE\";require;explicit\r\n", &[device]).len(), 1);
    }

    #[test]
    fn a_device_is_rejected_for_what_it_says_only() {
        let devices = [";automata", ";automata=\"FALSE\"", "", ";automata;video"];
        assert_eq!(chosen("Reject-Contact: *;automata\r\n", &devices), [1, 2]);
        assert_eq!(chosen("j: *;automata;video\r\n", &devices), [0, 1, 2]);
        assert_eq!(chosen("Reject-Contact: *;class=\"business\"\r\nReject-Contact: *;automata\r\n", &devices), [1, 2]);
        assert_eq!(chosen("Reject-Contact: *\r\nAccept-Contact: nonsense\r\n", &devices), [0, 1, 2, 3]);
    }

    #[test]
    fn a_method_asks_for_itself_and_finds_somebody() {
        let devices = [";methods=\"MESSAGE\"", ";methods=\"invite,BYE\"", ""];
        assert_eq!(chosen("", &devices), [1, 2]);
        assert_eq!(chosen("", &devices[..1]), [0], "rather than nobody");
        let subscribe = request("SUBSCRIBE", "Event: dialog\r\n");
        let kept = Preferences::of(&subscribe).choose(vec![";events=\"presence\"", ";events=\"dialog\""], |d| d);
        assert_eq!(kept, [(0, ";events=\"dialog\"")]);
    }

    #[test]
    fn values_are_compared_by_their_kind() {
        for (has, wanted, is) in [
            ("#5", "#=5", false),
            ("#=5", "#>=4", true),
            ("#1:3", "#>=4", false),
            ("#<=3", "#1:2", true),
            ("<A b>", "<A b>", true),
            ("<a b>", "<A b>", false),
            ("!fixed", "mobile", true),
            ("fixed", "!fixed", false),
            ("TRUE", "true", true),
            ("a%2", "a%2", true),
        ] {
            assert_eq!(overlap(Some(has), Some(wanted)), is, "{has} {wanted}");
        }
        assert!(overlap(None, None) && !overlap(None, Some("FALSE")));
        let instance = "Accept-Contact: *;+sip.instance=\"<urn:gsma:imei:1>\";require;explicit\r\n";
        assert_eq!(
            chosen(instance, &[";+sip.instance=\"<urn:gsma:imei:1>\"", ";+sip.instance=\"<urn:gsma:imei:2>\""]),
            [0]
        );
    }
}
