//! SIP: what came in goes out, what we write we can read, and nothing panics.

use bytes::{Bytes, BytesMut};
use ims_sip::headers::*;
use ims_sip::message::MAX_MESSAGE;
use ims_sip::stream::{Frame, Framer};
use ims_sip::{Message, Name};
use std::fmt::Display;

pub(crate) fn message(data: &[u8]) {
    let Ok(message) = Message::parse(Bytes::copy_from_slice(data)) else { return };
    let out = message.to_bytes();
    let lead = data.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(0);
    assert_eq!(data.get(lead..lead + out.len()), Some(&out[..]), "an untouched message changed");
    if data.len() <= MAX_MESSAGE {
        assert_same(&message, &Message::parse(out).expect("what we wrote"));
    }
    if let Err(error) = message.check() {
        assert!((400..600).contains(&error.status()) && !error.to_string().is_empty());
    }
    read_headers(&message);
    answer(&message);
    forward(message);
}

fn assert_same(a: &Message, b: &Message) {
    assert_eq!(a.fault(), b.fault());
    assert_eq!((a.method(), a.uri(), a.status(), a.reason()), (b.method(), b.uri(), b.status(), b.reason()));
    assert!(a.lines().eq(b.lines()) && a.body() == b.body());
}

/// A response can be made of anything that was a request, and it is well-formed.
fn answer(message: &Message) {
    let response = Message::response(message, 400, Some("tag"));
    let again = Message::parse(response.to_bytes()).expect("our response");
    assert_eq!((again.fault(), again.status()), (None, 400));
    assert_eq!(again.raw(Name::Via).count(), message.raw(Name::Via).count());
}

/// What a proxy does leaves a good message good.
fn forward(mut message: Message) {
    let good = message.check().is_ok();
    let body = message.body_bytes();
    message.push_front(Name::Via, "SIP/2.0/UDP us.example.com;branch=z9hG4bKus");
    message.set(Name::MaxForwards, 69);
    message.remove_token(Name::Require, "sec-agree");
    message.replace_first(Name::Route, "<sip:next.example.com;lr>");
    let again = Message::parse(message.to_bytes()).expect("what we forward");
    if good {
        assert_eq!(again.check(), Ok(()));
        assert_eq!((again.body(), again.method(), again.uri()), (&body[..], message.method(), message.uri()));
        let via = again.require::<Via<'_>>().expect("our own Via");
        assert_eq!(via.branch(), Some("z9hG4bKus"));
        assert!(again.lines().eq(message.lines().chain(again.lines().skip(message.lines().count()))));
    }
    let values = message.each::<Via<'_>>().count();
    assert!(message.pop_first(Name::Via));
    assert_eq!(message.each::<Via<'_>>().count(), values - 1);
    message.set_body("text/plain", b"body");
    let again = Message::parse(message.to_bytes()).expect("with a body");
    assert_eq!(again.body(), b"body");
}

fn read_headers(message: &Message) {
    message.tokens(Name::Supported);
    macro_rules! read {
        ($($header:ty),* $(,)?) => {$(
            for value in message.each::<$header>().flatten() {
                let text = value.to_string();
                assert_eq!(printed_again::<$header>(&text).as_deref(), Some(text.as_str()), "{}", stringify!($header));
            }
        )*};
    }
    read!(
        Via<'_>,
        From<'_>,
        To<'_>,
        CSeq<'_>,
        CallId<'_>,
        Contact<'_>,
        Route<'_>,
        RecordRoute<'_>,
        Path<'_>,
        ServiceRoute<'_>
    );
    read!(
        Authorization<'_>,
        WwwAuthenticate<'_>,
        ProxyAuthorization<'_>,
        ProxyAuthenticate<'_>,
        AuthenticationInfo<'_>
    );
    read!(
        SecurityClient,
        SecurityServer,
        SecurityVerify,
        MaxForwards,
        Expires,
        MinExpires,
        ContentLength,
        RSeq,
        RAck<'_>
    );
    read!(
        PAssociatedUri<'_>,
        PAssertedIdentity<'_>,
        PPreferredIdentity<'_>,
        PCalledPartyId<'_>,
        PServedUser<'_>,
        ReferTo<'_>
    );
    read!(
        PVisitedNetworkId<'_>,
        PAccessNetworkInfo<'_>,
        PChargingVector<'_>,
        PChargingFunctionAddresses<'_>,
        Privacy<'_>
    );
    read!(
        Event<'_>,
        SubscriptionState<'_>,
        SessionExpires<'_>,
        MinSe<'_>,
        Reason<'_>,
        RetryAfter<'_>,
        ContentType<'_>,
        Warning<'_>
    );
    read!(HistoryInfo<'_>, ReferredBy<'_>, ReplyTo<'_>);
}

fn printed_again<'a, H: TypedHeader<'a> + Display>(text: &'a str) -> Option<String> {
    H::parse_value(text).ok().map(|value| value.to_string())
}

/// The same messages come out however the bytes arrive.
pub(crate) fn stream(data: &[u8]) {
    let whole = frames(data, data.len().max(1));
    let step = 1 + data.first().map_or(0, |b| usize::from(*b) % 97);
    let pieces = frames(data, step);
    assert_eq!(whole, pieces, "in pieces of {step}");
    let taken: usize = whole.0.iter().map(|f| if let Frame::Message(m) = f { m.len() } else { 4 }).sum();
    assert!(taken <= data.len());
}

fn frames(data: &[u8], step: usize) -> (Vec<Frame>, bool) {
    let (mut framer, mut buffer, mut frames) = (Framer::new(65_536), BytesMut::new(), Vec::new());
    for piece in data.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match framer.next(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}
