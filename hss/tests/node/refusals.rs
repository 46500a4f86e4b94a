//! What the HSS refuses: the result for the peer, and the counter for the operator.

use crate::world::*;
use ims_core::store::{StoreReply, StoreRequest};
use ims_diameter::Message;
use ims_diameter::cx::{Mar, ResultCode, Sar, ServerAssignmentType as Kind, Uar, UserAuthorizationType};
use serde_json::json;

const S2: &str = "sip:scscf2.ims.mnc001.mcc001.3gppnetwork.org:6060";
const OTHER: &str = "001010000000002";
const NOBODY: &str = "001019999999999";

fn uar(imsi: &str, of: &str, visited: Option<&str>, kind: UserAuthorizationType) -> Message {
    let visited_network = visited.map(|v| v.as_bytes().to_vec());
    Uar { impi: impi(imsi), impu: temporary(of), visited_network, kind, emergency: false }.to_message()
}

fn mar_at(server: &str, scheme: &str, authorization: Option<Vec<u8>>) -> Message {
    let (scheme, server_name) = (scheme.into(), server.into());
    Mar { impi: impi(IMSI), impu: temporary(IMSI), server_name, items: 1, scheme, authorization }.to_message()
}

fn sar_of(server: &str, kind: Kind) -> Message {
    Sar { server_name: server.into(), ..sar(kind) }.to_message()
}

#[test]
fn each_refusal_has_its_result_and_its_counter() {
    const AKA: &str = "Digest-AKAv1-MD5";
    let register = UserAuthorizationType::Registration;
    let two = || Sar { impus: vec![temporary(IMSI), temporary(IMSI)], ..sar(Kind::Registration) }.to_message();
    let cases: [(&str, Message, ResultCode); 13] = [
        ("unknown-private-identity", uar(NOBODY, IMSI, None, register), ResultCode::USER_UNKNOWN),
        ("unknown-public-identity", uar(IMSI, NOBODY, None, register), ResultCode::USER_UNKNOWN),
        ("identities-dont-match", uar(IMSI, OTHER, None, register), ResultCode::IDENTITIES_DONT_MATCH),
        (
            "not-registered",
            uar(OTHER, OTHER, None, UserAuthorizationType::DeRegistration),
            ResultCode::IDENTITY_NOT_REGISTERED,
        ),
        ("roaming-not-allowed", uar(OTHER, OTHER, Some("\"far.example\""), register), ResultCode::ROAMING_NOT_ALLOWED),
        ("unsupported-scheme", mar_at(S1, "Digest-Mystery", None), ResultCode::AUTH_SCHEME_NOT_SUPPORTED),
        ("has-sim", mar_at(S1, "SIP Digest", None), ResultCode::AUTH_SCHEME_NOT_SUPPORTED),
        ("resynchronisation", mar_at(S1, AKA, Some(vec![7; 30])), ResultCode::UNABLE_TO_COMPLY),
        ("not-assigned", mar_at(S2, AKA, Some(vec![7; 30])), ResultCode::UNABLE_TO_COMPLY),
        ("not-assigned", sar_of(S2, Kind::UserDeregistration), ResultCode::UNABLE_TO_COMPLY),
        ("other-server-assigned", sar_of(S2, Kind::Registration), ResultCode::IDENTITY_ALREADY_REGISTERED),
        ("assignment-type", sar_of(S1, Kind::PgwUpdate), ResultCode::IN_ASSIGNMENT_TYPE),
        ("too-many-identities", two(), ResultCode::Base(5009)),
    ];
    for (name, request, result) in cases {
        let mut w = World::with_subscriber();
        w.create(OTHER, json!({ "visited_networks": ["near.example"] })).unwrap();
        w.register();
        let answer = w.ask(request);
        assert_eq!((ResultCode::from_message(&answer), w.refusals(name)), (Ok(result), 1), "{name}");
        assert!(w.hss.is_quiet(), "{name}");
        assert_eq!(w.lir(&format!("sip:{IMSI}@{D}")).server_name.as_deref(), Some(S1), "{name}: nothing changed");
    }
}

/// TS 29.228 6.1.1.1: everything that would be registered is barred.
#[test]
fn a_barred_subscriber_is_not_authorised() {
    let mut w = World::with_subscriber();
    w.command("subscriber.change", json!({ "imsi": IMSI, "changes": { "barred": true } })).unwrap();
    let answer = w.uar(impi(IMSI), temporary(IMSI));
    assert_eq!((answer.result, w.refusals("authorization-rejected")), (ResultCode::Base(5003), 1));
}

#[test]
fn a_record_that_cannot_be_read_is_named() {
    let mut w = World::with_subscriber();
    let load = StoreRequest::Load { key: format!("imsi:{IMSI}") };
    let Ok(StoreReply::Loaded(Some(record))) = w.store.perform(load) else { panic!() };
    w.store.perform(StoreRequest::Commit { id: record.id, version: record.version, state: b"{".to_vec() }).unwrap();
    let mut w = w.restarted(config());
    assert_eq!((w.mar().result, w.refusals("corrupt-record")), (ResultCode::UNABLE_TO_COMPLY, 1));
    assert!(w.hss.is_quiet());
}
