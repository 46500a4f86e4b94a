//! The same work with rsip and rsipstack: parse, seven typed headers, serialise.

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
                        Header::Via(h) => drop(black_box(h.typed().expect("Via"))),
                        Header::From(h) => drop(black_box(h.typed().expect("From"))),
                        Header::To(h) => drop(black_box(h.typed().expect("To"))),
                        Header::CSeq(h) => drop(black_box(h.typed().expect("CSeq"))),
                        Header::Contact(h) => drop(black_box(h.typed().expect("Contact"))),
                        Header::Route(h) => drop(black_box(h.typed().expect("Route"))),
                        Header::RecordRoute(h) => drop(black_box(h.typed().expect("Record-Route"))),
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
