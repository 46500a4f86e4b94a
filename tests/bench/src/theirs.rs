//! The same work with rsip and rsipstack: parse, seven typed headers, serialise. What they cannot read (rsip: a Contact
//! with `+sip.instance`) costs them nothing more.

macro_rules! foreign {
    ($name:ident, $($root:ident)::+) => {
        pub mod $name {
            use $($root)::+::prelude::*;
            use $($root)::+::{Header, SipMessage};
            use std::hint::black_box;

            pub fn parse(bytes: &[u8]) -> SipMessage {
                SipMessage::try_from(bytes).expect("a good message")
            }

            pub fn read(message: &SipMessage) {
                for header in message.headers().iter() {
                    match header {
                        Header::Via(h) => drop(black_box(h.typed())),
                        Header::From(h) => drop(black_box(h.typed())),
                        Header::To(h) => drop(black_box(h.typed())),
                        Header::CSeq(h) => drop(black_box(h.typed())),
                        Header::Contact(h) => drop(black_box(h.typed())),
                        Header::Route(h) => drop(black_box(h.typed())),
                        Header::RecordRoute(h) => drop(black_box(h.typed())),
                        _ => {}
                    }
                }
            }

            pub fn through(bytes: &[u8]) -> Vec<u8> {
                let message = parse(bytes);
                read(&message);
                message.to_string().into_bytes()
            }
        }
    };
}

foreign!(of_rsip, rsip);
foreign!(of_rsipstack, rsipstack::sip);
