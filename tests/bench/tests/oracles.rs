//! rsip and rsipstack as oracles, on messages they read right (docs/dependencies.md tells which they do not).

use bytes::Bytes;
use ims_sip::headers::{CSeq, Contact, From, To};
use ims_sip::{Message, Name};
use std::path::Path;

const BOTH: &[&str] =
    &["lwsdisp", "transports", "dblreq", "bext01", "zeromf", "cparam01", "cparam02", "ims-user-phone"];

fn messages() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../common/sip/tests/torture");
    let mut all: Vec<_> = BOTH
        .iter()
        .map(|name| ((*name).to_owned(), std::fs::read(folder.join(format!("{name}.sip"))).unwrap()))
        .collect();
    all.push(("REGISTER".into(), ims_bench::REGISTER.into()));
    all.push(("INVITE".into(), ims_bench::INVITE.into()));
    all
}

/// What both sides must agree on.
#[derive(PartialEq, Eq, Debug, Default)]
struct Read {
    from: (String, Option<String>),
    to: (String, Option<String>),
    cseq: u32,
    contacts: Vec<String>,
    vias: usize,
    call_id: String,
}

fn ours(bytes: &[u8]) -> Read {
    let message = Message::parse(Bytes::copy_from_slice(bytes)).unwrap();
    message.check().unwrap();
    let (from, to) = (message.require::<From<'_>>().unwrap(), message.require::<To<'_>>().unwrap());
    Read {
        from: (from.uri.to_owned(), from.tag().map(str::to_owned)),
        to: (to.uri.to_owned(), to.tag().map(str::to_owned)),
        cseq: message.require::<CSeq<'_>>().unwrap().number,
        contacts: message
            .all::<Contact<'_>>()
            .unwrap()
            .iter()
            .filter_map(|c| c.addr().map(|a| a.uri.to_owned()))
            .collect(),
        vias: message.raw(Name::Via).count(),
        call_id: message.text(Name::CallId).unwrap().to_owned(),
    }
}

macro_rules! theirs {
    ($test:ident, $module:ident, $skip:expr, $($root:ident)::+) => {
        #[test]
        fn $test() {
            use $($root)::+::Header;
            use $($root)::+::prelude::*;
            for (name, bytes) in messages().into_iter().filter(|(name, _)| !$skip.contains(&name.as_str())) {
                let message = ims_bench::theirs::$module::parse(&bytes);
                let mut read = Read::default();
                for header in message.headers().iter() {
                    match header {
                        Header::From(h) => {
                            let h = h.typed().unwrap();
                            read.from = (h.uri.to_string(), h.tag().map(|t| t.to_string()));
                        }
                        Header::To(h) => {
                            let h = h.typed().unwrap();
                            read.to = (h.uri.to_string(), h.tag().map(|t| t.to_string()));
                        }
                        Header::CSeq(h) => read.cseq = h.typed().unwrap().seq,
                        Header::Contact(h) => read.contacts.extend(h.typed().map(|c| c.uri.to_string())),
                        Header::CallId(h) => read.call_id = h.value().to_owned(),
                        Header::Via(_) => read.vias += 1,
                        _ => {}
                    }
                }
                let mut ours = ours(&bytes);
                // They keep `;name` behind a bare address in the URI's place or not at all: compare the address only.
                ours.contacts.truncate(read.contacts.len());
                let bare = |c: &String| c.split(';').next().unwrap_or_default().to_owned();
                let (a, b): (Vec<_>, Vec<_>) = (ours.contacts.iter().map(bare).collect(), read.contacts.iter().map(bare).collect());
                assert_eq!(a, b, "{name}");
                ours.contacts.clear();
                read.contacts.clear();
                assert_eq!(ours, read, "{name}");
            }
        }
    };
}

// rsip knows no compact Call-ID.
theirs!(rsip_reads_the_same, of_rsip, ["dblreq"], rsip);
theirs!(rsipstack_reads_the_same, of_rsipstack, [""], rsipstack::sip);
