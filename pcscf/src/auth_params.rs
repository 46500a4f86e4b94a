//! The parameters of Authorization and WWW-Authenticate that only the network may see or set: `integrity-protected`
//! towards the S-CSCF, `ck` and `ik` towards us (TS 24.229 7.2A.1, 7.2A.2). Everything else stays as it was written.

use ims_core::Secret;
use ims_core::sa::SaKeys;
use ims_sip::headers::pieces;
use ims_sip::{Message, Name};
use std::borrow::Cow;
use zeroize::Zeroizing;

/// What `integrity-protected` says of a REGISTER (TS 24.229 7.2A.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protection {
    /// IMS AKA, over its SA.
    Yes,
    /// IMS AKA, in clear.
    No,
    /// No sec-agree, and so perhaps SIP Digest (5.2.2.3): from where this user is registered already.
    IpAssociated,
    /// No sec-agree: "ip-assoc-pending" for the answer to a challenge, nothing for what is none.
    Open,
}

/// Says in every Authorization how the request came; what the UE said about it is gone.
pub(crate) fn set_integrity_protected(message: &mut Message, protection: Protection) {
    let values: Vec<String> = texts(message, Name::Authorization).map(Cow::into_owned).collect();
    if values.is_empty() {
        return;
    }
    message.remove(Name::Authorization);
    for value in values {
        let kept = without(&value, &["integrity-protected"]);
        // A scheme without parameters, or one that is no Digest, has nothing to be added to.
        let has_parameters = pieces(&kept).next().is_some_and(|p| p.contains('='));
        let said = match protection {
            Protection::Yes => Some("yes"),
            Protection::No => Some("no"),
            Protection::IpAssociated => Some("ip-assoc-yes"),
            Protection::Open => {
                let answers = value_of(&value, "response").is_some_and(|r| !r.is_empty());
                answers.then_some("ip-assoc-pending")
            }
        };
        match said.filter(|_| has_parameters) {
            Some(said) => message.push_back(Name::Authorization, format_args!("{kept},integrity-protected=\"{said}\"")),
            None => message.push_back(Name::Authorization, kept),
        }
    }
}

/// Takes every `ck` and `ik` out of a response, and gives the first complete pair. A header that cannot be read goes
/// altogether: better no challenge than a key in the open.
pub(crate) fn take_keys(response: &mut Message) -> Option<SaKeys> {
    let mut keys = None;
    for name in [Name::WwwAuthenticate, Name::ProxyAuthenticate] {
        if !response.has(name) {
            continue;
        }
        let values: Vec<Zeroizing<String>> = texts(response, name).map(|t| Zeroizing::new(t.into_owned())).collect();
        response.remove(name);
        for value in values {
            let key = |wanted| value_of(&value, wanted).and_then(|hex| Secret::<16>::from_hex(&hex));
            if let (None, Some(ck), Some(ik)) = (&keys, key("ck"), key("ik")) {
                keys = Some(SaKeys { ck, ik });
            }
            response.push_back(name, without(&value, &["ck", "ik"]));
        }
    }
    keys
}

/// The nonce of the first challenge.
pub(crate) fn nonce(response: &Message) -> Option<Cow<'_, str>> {
    texts(response, Name::WwwAuthenticate).find_map(|text| value_in(text, "nonce"))
}

/// A parameter of the first Authorization.
pub(crate) fn credential<'m>(request: &'m Message, name: &str) -> Option<Cow<'m, str>> {
    texts(request, Name::Authorization).next().and_then(|text| value_in(text, name))
}

fn texts(message: &Message, name: Name) -> impl Iterator<Item = Cow<'_, str>> {
    message.raw(name).filter_map(|raw| std::str::from_utf8(raw).ok()).map(|text| match text.contains("\r\n") {
        true => Cow::Owned(text.replace("\r\n", "")),
        false => Cow::Borrowed(text),
    })
}

/// The parameter that a piece holds, and the scheme that may stand before it.
fn split_piece(piece: &str) -> (Option<&str>, &str) {
    let end = piece.bytes().position(|b| b == b'=').unwrap_or(piece.len());
    let head = piece[..end].trim_ascii_end();
    match head.bytes().rposition(|b| b.is_ascii_whitespace()) {
        Some(at) => (Some(head[..at].trim_ascii_end()), piece[at..].trim_ascii_start()),
        None => (None, piece),
    }
}

/// The name of a parameter, and what stands behind its `=`.
fn name_and_value(parameter: &str) -> (&str, Option<&str>) {
    match parameter.bytes().position(|b| b == b'=') {
        Some(at) => (parameter[..at].trim_ascii_end(), Some(parameter[at + 1..].trim_ascii())),
        None => (parameter, None),
    }
}

fn value_of<'v>(value: &'v str, wanted: &str) -> Option<Cow<'v, str>> {
    pieces(value).find_map(|piece| {
        let (name, text) = name_and_value(split_piece(piece).1);
        let text = text.filter(|_| name.eq_ignore_ascii_case(wanted))?;
        let text = text.strip_prefix('"').map_or(text, |t| t.strip_suffix('"').unwrap_or(t));
        Some(if text.contains('\\') { text.replace('\\', "").into() } else { text.into() })
    })
}

fn value_in<'v>(text: Cow<'v, str>, wanted: &str) -> Option<Cow<'v, str>> {
    match text {
        Cow::Borrowed(text) => value_of(text, wanted),
        Cow::Owned(text) => value_of(&text, wanted).map(|value| Cow::Owned(value.into_owned())),
    }
}

fn without(value: &str, unwanted: &[&str]) -> String {
    let mut out = String::with_capacity(value.len());
    let mut fresh = true;
    for piece in pieces(value) {
        let (scheme, parameter) = split_piece(piece);
        if let Some(scheme) = scheme {
            out.push_str(if out.is_empty() { "" } else { "," });
            out.push_str(scheme);
            out.push(' ');
            fresh = true;
        }
        let (name, _) = name_and_value(parameter);
        if parameter.is_empty() || unwanted.iter().any(|u| u.eq_ignore_ascii_case(name)) {
            continue;
        }
        out.push_str(if fresh { "" } else { "," });
        out.push_str(parameter);
        fresh = false;
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn parameters_go_wherever_they_stand() {
        let gone = |v| without(v, &["ck", "ik"]);
        assert_eq!(
            gone("Digest ck=\"00\",realm=\"a,b\", ik=\"11\" , nonce=\"n==\""),
            "Digest realm=\"a,b\",nonce=\"n==\""
        );
        assert_eq!(gone("Digest realm=\"x\",CK=00,IK = \"11\""), "Digest realm=\"x\"");
        assert_eq!(
            gone(
                "Digest realm=\"D\",nonce=\"bm9uY2U=\", algorithm=AKAv1-MD5,qop=\"auth,auth-int\",ck=\"00\",IK=\"11\""
            ),
            "Digest realm=\"D\",nonce=\"bm9uY2U=\",algorithm=AKAv1-MD5,qop=\"auth,auth-int\""
        );
        assert_eq!(gone("Digest ck=\"1\",ik=\"2\", Digest realm=\"b\",ck=\"3\""), "Digest ,Digest realm=\"b\"");
        assert_eq!(gone("Digest realm=\"a\\\"ck=1,\", ck=\"2\""), "Digest realm=\"a\\\"ck=1,\"");
        assert_eq!(gone("Bearer"), "Bearer");
        assert_eq!(gone(""), "");
    }

    fn response(lines: &str) -> Message {
        let text = format!(
            "SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bKa\r\nFrom: <sip:a@ims.example>;tag=1\r\n\
             To: <sip:a@ims.example>;tag=2\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\n{lines}Content-Length: 0\r\n\r\n"
        );
        Message::parse(Bytes::from(text)).unwrap()
    }

    #[test]
    fn keys_are_taken_from_all_challenges() {
        let mut r = response(
            "WWW-Authenticate: Digest realm=\"i\",nonce=\"bm9uY2U=\",algorithm=AKAv1-MD5,qop=\"auth\",\
             ck=\"00112233445566778899aabbccddeeff\",ik=\"ffeeddccbbaa99887766554433221100\"\r\n\
             WWW-Authenticate: Digest realm=\"j\",CK=\"01\",ik=\"02\"\r\nProxy-Authenticate: Digest ck=\"03\"\r\n",
        );
        assert_eq!(nonce(&r).as_deref(), Some("bm9uY2U="));
        let keys = take_keys(&mut r).unwrap();
        assert_eq!(keys.ck.expose()[1], 0x11);
        assert_eq!(keys.ik.expose()[0], 0xff);
        let text = String::from_utf8(r.to_bytes().to_vec()).unwrap().to_ascii_lowercase();
        assert!(!text.contains("ck=") && !text.contains("ik="), "{text}");
        assert!(text.contains("nonce=\"bm9uy2u=\"") && text.contains("qop=\"auth\""));
        assert!(take_keys(&mut response("")).is_none());
        assert!(take_keys(&mut response("WWW-Authenticate: Digest ck=\"xy\",ik=\"z\"\r\n")).is_none());
    }

    #[test]
    fn integrity_protected_is_ours_to_say() {
        let request = |value: &str| {
            Message::parse(Bytes::from(format!(
                "REGISTER sip:i SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nFrom: <sip:a@i>;tag=1\r\nTo: <sip:a@i>\r\nCall-ID: c\r\n\
                 CSeq: 1 REGISTER\r\nMax-Forwards: 70\r\n{value}Content-Length: 0\r\n\r\n"
            )))
            .unwrap()
        };
        let mut m =
            request("Authorization: Digest integrity-protected=\"yes\",username=\"u@i\",nonce=\"\",response=\"\"\r\n");
        let bare = "Digest username=\"u@i\",nonce=\"\",response=\"\"";
        for (protection, said) in [
            (Protection::No, ",integrity-protected=\"no\""),
            (Protection::IpAssociated, ",integrity-protected=\"ip-assoc-yes\""),
            (Protection::Yes, ",integrity-protected=\"yes\""),
            (Protection::Open, ""),
        ] {
            set_integrity_protected(&mut m, protection);
            assert_eq!(m.text(Name::Authorization), Some(&*format!("{bare}{said}")));
        }
        let mut answer = request("Authorization: Digest username=\"u@i\",nonce=\"n\",response=\"ab\"\r\n");
        set_integrity_protected(&mut answer, Protection::Open);
        assert!(
            answer.text(Name::Authorization).is_some_and(|a| a.ends_with(",integrity-protected=\"ip-assoc-pending\""))
        );
        assert_eq!(credential(&m, "USERNAME").as_deref(), Some("u@i"));
        let mut none = request("");
        set_integrity_protected(&mut none, Protection::Yes);
        assert!(!none.has(Name::Authorization));
    }
}
