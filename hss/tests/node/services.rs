//! Public service identities: provisioned by command, found by LIR and SAR, wildcarded ones too.

use crate::world::*;
use hss::service::Service;
use ims_core::{Impu, Node};
use ims_diameter::cx::{ResultCode, Saa, Sar, ServerAssignmentType};
use serde_json::{Value, json};

const ROOMS: &str = "sip:chat-!.*!@ims.mnc001.mcc001.3gppnetwork.org";
const ROOM: &str = "sip:chat-1@ims.mnc001.mcc001.3gppnetwork.org";
const AS: &str = "sip:as.ims.mnc001.mcc001.3gppnetwork.org:5080";

fn rooms(w: &mut World) -> Value {
    w.command("service.create", json!({ "identity": ROOMS, "server": AS })).unwrap()
}

#[test]
fn services_are_created_shown_listed_changed_and_removed() {
    let mut w = World::with_subscriber();
    let made = rooms(&mut w);
    assert_eq!(made["impi"], format!("psi.chat-_.___{D}@{D}"));
    let named = json!({ "identity": ROOMS });
    assert_eq!(w.command("service.show", named.clone()).unwrap(), made);
    let echo = json!({ "identity": format!("sip:echo@{D}"), "criteria": [{ "priority": 1, "server": AS }] });
    w.command("service.create", echo).unwrap();
    let page = w.command("service.list", json!({ "limit": 1 })).unwrap();
    assert_eq!((&page["services"][0]["identity"], &page["next"]), (&json!(ROOMS), &json!(ROOMS)));
    let rest = w.command("service.list", json!({ "after": ROOMS })).unwrap();
    assert_eq!((rest["services"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
    let subscribers = w.command("subscriber.list", json!({ "limit": 1 })).unwrap();
    assert_eq!((subscribers["subscribers"].as_array().unwrap().len(), &subscribers["next"]), (1, &json!(IMSI)));
    let none = w.command("subscriber.list", json!({ "limit": 1, "after": IMSI })).unwrap();
    assert_eq!((none["subscribers"].as_array().unwrap().len(), &none["next"]), (0, &Value::Null));
    let changes = json!({ "identity": ROOMS, "changes": { "active": false, "server": null } });
    let changed = w.command("service.change", changes).unwrap();
    assert_eq!((&changed["active"], &changed["server"]), (&json!(false), &Value::Null));
    assert_eq!(w.lir(ROOM).result, ResultCode::USER_UNKNOWN);
    assert_eq!(w.hss.snapshot()["refusals"]["inactive-service"], 1);
    w.command("service.remove", named.clone()).unwrap();
    for call in ["service.show", "service.remove", "service.change"] {
        let gone = w.command(call, named.clone()).unwrap_err();
        assert!(gone.status == 404 && gone.detail.contains(ROOMS), "{gone:?}");
    }
    assert_eq!(w.lir(ROOM).result, ResultCode::USER_UNKNOWN);
    assert!(w.hss.is_quiet());
}

#[test]
fn a_wildcard_is_found_again_after_a_restart_and_a_distinct_identity_goes_before_it() {
    let mut w = World::new(config());
    rooms(&mut w);
    let mut w = w.restarted(config());
    let lia = w.lir(ROOM);
    assert_eq!((lia.result, lia.server_name.as_deref()), (ResultCode::SUCCESS, Some(AS)));
    assert_eq!((lia.wildcarded.as_deref(), lia.is_direct), (Some(ROOMS), true));
    w.command("service.create", json!({ "identity": ROOM, "server": "sip:other" })).unwrap();
    let lia = w.lir(ROOM);
    assert_eq!((lia.server_name.as_deref(), lia.wildcarded), (Some("sip:other"), None));
    assert_eq!(w.lir(&format!("sip:room-1@{D}")).result, ResultCode::USER_UNKNOWN);
}

#[test]
fn an_s_cscf_serves_a_wildcarded_service() {
    let mut w = World::new(config());
    let criteria = json!([{ "priority": 0, "server": AS }]);
    w.command("service.create", json!({ "identity": ROOMS, "criteria": criteria })).unwrap();
    assert_eq!(w.lir(ROOM).result, ResultCode::UNREGISTERED_SERVICE);
    let sar = Sar {
        impi: None,
        impus: vec![Impu::parse(ROOM).unwrap()],
        server_name: S1.into(),
        kind: ServerAssignmentType::UnregisteredUser,
        data_already_available: false,
        wildcarded: Some(ROOMS.into()),
    };
    let saa = Saa::from_message(&w.ask(sar.to_message())).unwrap();
    assert!(saa.user_data.is_some_and(|data| String::from_utf8_lossy(&data).contains(AS)));
    let lia = w.lir(&ROOM.replace("chat-1", "chat-2"));
    assert_eq!((lia.result, lia.server_name.as_deref()), (ResultCode::SUCCESS, Some(S1)), "and all that fall under it");
    assert_eq!(w.hss.snapshot()["refusals"], json!({}));
}

#[test]
fn each_mistake_names_its_field() {
    let mut w = World::with_subscriber();
    rooms(&mut w);
    for (status, field, args) in [
        (409, "identity", json!({ "identity": ROOMS })),
        (409, "impus", json!({ "identity": "tel:+4915112345678" })),
        (400, "identity", json!({})),
        (400, "identity", json!({ "identity": "sip:a!(!@x" })),
        (400, "identity", json!({ "identity": "urn:service:sos" })),
        (400, "server", json!({ "identity": "sip:a@x", "server": "tel:+1" })),
        (400, "impi", json!({ "identity": "sip:a@x", "impi": "nobody" })),
        (400, "k", json!({ "identity": "sip:a@x", "k": K })),
    ] {
        let problem = w.command("service.create", args).unwrap_err();
        assert_eq!((problem.status, problem.field.as_deref()), (status, Some(field)), "{}", problem.detail);
    }
    let moved = json!({ "identity": ROOMS, "changes": { "identity": ROOM } });
    assert_eq!(w.command("service.change", moved).unwrap_err().field.as_deref(), Some("identity"));
    let service: Service = serde_json::from_value(json!({ "identity": ROOMS, "impi": "a@b", "active": true })).unwrap();
    assert!(service.is_wildcarded());
}
