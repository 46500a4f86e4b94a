//! Diameter: what came in goes out, every refusal has its answer, and nothing panics.

use bytes::Bytes;
use ims_diameter::cx::{Lia, Maa, Ppa, Request, Rta, Saa, Uaa};
use ims_diameter::stream::{MAX_MESSAGE, frame_length};
use ims_diameter::{DiameterError, Message};

pub(crate) fn message(data: &[u8]) {
    if let Ok(Some(length)) = frame_length(data) {
        assert!(length <= data.len() && length <= MAX_MESSAGE);
    }
    let bytes = Bytes::copy_from_slice(data);
    let message = match Message::parse(bytes.clone()) {
        Ok(message) => message,
        Err(error) => {
            if let Some(rest) = Message::salvage(&bytes) {
                assert!(Message::parse(rest.to_bytes()).is_ok(), "what was salvaged is not well-formed");
                refuse(&rest, &error);
            }
            return;
        }
    };
    assert_eq!(message.to_bytes(), bytes, "a message changed");
    let printed = format!("{message:?}");
    assert!(printed.len() <= 200 + data.len() * 64);
    if let Some(avp) = message.avps().unsupported() {
        refuse(&message, &DiameterError::Unsupported(avp));
    }
    match Request::from_message(&message) {
        Ok(request) => assert_eq!(Request::from_message(&again(&request)), Ok(request)),
        Err(error) => refuse(&message, &error),
    }
    answers(&message);
}

/// What we understood, written anew.
fn again(request: &Request) -> Message {
    match request {
        Request::Uar(r) => r.to_message(),
        Request::Mar(r) => r.to_message(),
        Request::Sar(r) => r.to_message(),
        Request::Lir(r) => r.to_message(),
        Request::Rtr(r) => r.to_message(),
        Request::Ppr(r) => r.to_message(),
    }
}

/// Any message can be refused, and the refusal is well-formed and says why.
fn refuse(message: &Message, error: &DiameterError) {
    assert!((3000..6000).contains(&error.result_code()) && !error.to_string().is_empty());
    let answer = Message::parse(message.error_answer(error).to_bytes()).expect("our own answer");
    assert!(!answer.is_request() && answer.hop_by_hop == message.hop_by_hop);
    assert_eq!(answer.is_error(), error.result_code() < 4000);
}

fn answers(m: &Message) {
    if let Ok(read) = Uaa::from_message(m) {
        assert_eq!(Uaa::from_message(&read.to_message(m)), Ok(read));
    }
    if let Ok(read) = Lia::from_message(m) {
        assert_eq!(Lia::from_message(&read.to_message(m)), Ok(read));
    }
    if let Ok(read) = Saa::from_message(m) {
        assert_eq!(Saa::from_message(&read.to_message(m)), Ok(read));
    }
    if let Ok(read) = Maa::from_message(m) {
        let written = Maa::from_message(&read.to_message(m)).expect("our own answer");
        assert_eq!(written.items.len(), read.items.len());
    }
    let _ = (Rta::from_message(m), Ppa::from_message(m));
}
