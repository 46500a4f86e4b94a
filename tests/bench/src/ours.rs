//! What a proxy does with a message, with our parser.

use bytes::Bytes;
use ims_sip::headers::{CSeq, Contact, From, RecordRoute, Route, To, TypedHeader, Via};
use ims_sip::{Message, Name};
use std::hint::black_box;

pub fn parse(bytes: &Bytes) -> Message {
    Message::parse(bytes.clone()).expect("a good message")
}

/// Seven typed headers, all values of all lines.
pub fn read(message: &Message) {
    all::<Via<'_>>(message);
    all::<From<'_>>(message);
    all::<To<'_>>(message);
    all::<CSeq<'_>>(message);
    all::<Contact<'_>>(message);
    all::<Route<'_>>(message);
    all::<RecordRoute<'_>>(message);
}

fn all<'a, H: TypedHeader<'a>>(message: &'a Message) {
    for value in message.each::<H>() {
        let _ = black_box(value.expect("a good header"));
    }
}

/// The seven headers, and out again with one Via more (an untouched message would be no work at all).
pub fn through(bytes: &Bytes) -> Bytes {
    let mut message = parse(bytes);
    read(&message);
    message.push_front(Name::Via, "SIP/2.0/UDP pcscf.example.com:5070;branch=z9hG4bKabcdefgh12345678");
    message.to_bytes()
}
