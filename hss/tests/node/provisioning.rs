//! The commands of the REST API.

use crate::world::*;
use hss::{Config, Hss, provision};
use ims_core::{Node, Secret};
use ims_diameter::cx::ResultCode;
use serde_json::{Value, json};

#[test]
fn subscribers_are_created_shown_listed_changed_and_removed() {
    let mut w = World::new(config());
    let created = w.create(IMSI, json!({ "msisdn": "+4915112345678", "sqn": "0000000003e0" })).unwrap();
    assert_eq!(w.show(), created);
    assert_eq!((&created["impi"], &created["msisdn"]), (&json!(format!("{IMSI}@{D}")), &json!("4915112345678")));
    let key = json!({ "impi": format!("{IMSI}@{D}"), "algorithm": "milenage", "amf": "8000", "sqn": "0000000003e0",
        "key_set": true });
    assert_eq!(created["private_identities"], json!([key]));
    assert!(!created.to_string().contains(&K[..8]) && !created.to_string().contains(&OPC[..8]));
    let again = w.create(IMSI, json!({})).unwrap_err();
    assert_eq!((again.status, again.field.as_deref()), (409, Some("imsi")));
    assert!(again.detail.contains(IMSI), "{}", again.detail);
    let taken = w.create("001010000000002", json!({ "msisdn": "4915112345678" })).unwrap_err();
    assert_eq!((taken.status, taken.field.as_deref()), (409, Some("msisdn")));
    let changes = json!({ "imsi": IMSI, "changes": { "barred": true, "amf": "b9b9" } });
    let changed = w.command("subscriber.change", changes).unwrap();
    assert_eq!((&changed["barred"], &changed["private_identities"][0]["amf"]), (&json!(true), &json!("b9b9")));
    assert_eq!(w.mar().result, ResultCode::SUCCESS, "the key is still there");
    w.command("subscriber.remove", json!({ "imsi": IMSI })).unwrap();
    for call in ["subscriber.show", "subscriber.remove", "subscriber.change"] {
        let gone = w.command(call, json!({ "imsi": IMSI, "changes": {} })).unwrap_err();
        assert!(gone.status == 404 && gone.detail.contains(IMSI), "{gone:?}");
    }
    assert!(w.hss.is_quiet());
}

#[test]
fn a_listing_goes_on_where_the_page_before_ended() {
    let mut w = World::new(config());
    for n in 1..=5 {
        w.create(&format!("00101000000000{n}"), json!({})).unwrap();
    }
    let page = w.command("subscriber.list", json!({ "limit": 2 })).unwrap();
    assert_eq!((page["subscribers"].as_array().unwrap().len(), &page["next"]), (2, &json!("001010000000002")));
    let rest = w.command("subscriber.list", json!({ "limit": "9", "after": "001010000000002" })).unwrap();
    assert_eq!((rest["subscribers"].as_array().unwrap().len(), &rest["next"]), (3, &Value::Null));
    for limit in [json!(0), json!(1001), json!("x"), json!(-1)] {
        let problem = w.command("subscriber.list", json!({ "limit": limit })).unwrap_err();
        assert_eq!(problem.field.as_deref(), Some("limit"));
    }
}

#[test]
fn each_mistake_names_its_field_and_repeats_no_key() {
    let mut w = World::new(config());
    let half = &K[..31];
    for (field, args) in [
        ("imsi", json!({ "imsi": "12" })),
        ("imsi", json!({ "imsi": 1010 })),
        ("imsi", json!({ "k": K })),
        ("k", json!({ "imsi": IMSI })),
        ("k", json!({ "imsi": IMSI, "k": half, "opc": OPC })),
        ("k", json!({ "imsi": IMSI, "k": format!("{half}g"), "opc": OPC })),
        ("opc", json!({ "imsi": IMSI, "k": K })),
        ("op", json!({ "imsi": IMSI, "k": K, "opc": OPC, "op": OPC })),
        ("amf", json!({ "imsi": IMSI, "k": K, "opc": OPC, "amf": "80" })),
        ("sqn", json!({ "imsi": IMSI, "k": K, "opc": OPC, "sqn": "+1" })),
        ("algorithm", json!({ "imsi": IMSI, "k": K, "opc": OPC, "algorithm": "comp128" })),
        ("topc", json!({ "imsi": IMSI, "k": K, "algorithm": "tuak" })),
        ("iterations", json!({ "imsi": IMSI, "k": K, "algorithm": "tuak", "topc": OPC.repeat(2), "iterations": 0 })),
        ("msisdn", json!({ "imsi": IMSI, "k": K, "opc": OPC, "msisdn": "abc" })),
        ("impi", json!({ "imsi": IMSI, "k": K, "opc": OPC, "impi": "nobody" })),
        ("impus", json!({ "imsi": IMSI, "k": K, "opc": OPC, "impus": [] })),
        ("impus[0]", json!({ "imsi": IMSI, "k": K, "opc": OPC, "impus": ["urn:service:sos"] })),
        ("impus[1]", json!({ "imsi": IMSI, "k": K, "opc": OPC, "impus": ["sip:a@b.c", "sip:a@B.C;user=phone"] })),
        (
            "impus[0].bared",
            json!({ "imsi": IMSI, "k": K, "opc": OPC, "impus": [{ "impu": "sip:a@b.c", "bared": true }] }),
        ),
        ("private_identities[0].k", json!({ "imsi": IMSI, "private_identities": [{ "impi": "a@b.c" }] })),
        ("password", json!({ "imsi": IMSI, "k": K, "opc": OPC, "password": half })),
        ("password", json!({ "imsi": IMSI, "password": "" })),
        ("password", json!({ "imsi": IMSI, "realm": "ims.example" })),
        ("password", json!({ "imsi": IMSI, "password": "x", "sqn": "1" })),
        ("realm", json!({ "imsi": IMSI, "password": "x", "realm": "a\"b" })),
        ("ha1", json!({ "imsi": IMSI, "password": "x", "ha1": { "MD5": K } })),
        ("ha1", json!({ "imsi": IMSI, "ha1": { "MD5": half } })),
        ("ha1", json!({ "imsi": IMSI, "ha1": { "SHA-256": K } })),
        ("ha1", json!({ "imsi": IMSI, "ha1": {} })),
        ("digest_algorithms", json!({ "imsi": IMSI, "password": "x", "digest_algorithms": ["AKAv1-MD5"] })),
        ("digest_algorithms", json!({ "imsi": IMSI, "password": "x", "digest_algorithms": ["MD5", "md5"] })),
        ("digest_algorithms", json!({ "imsi": IMSI, "ha1": { "MD5": K }, "digest_algorithms": ["MD5"] })),
        ("visited_networks", json!({ "imsi": IMSI, "k": K, "opc": OPC, "visited_networks": "all" })),
        ("criteria[0]", json!({ "imsi": IMSI, "k": K, "opc": OPC, "criteria": [{ "priority": 1 }] })),
        ("criteria", json!({ "imsi": IMSI, "k": K, "opc": OPC, "criteria": "<InitialFilterCriteria/>" })),
        ("criteria", json!({ "imsi": IMSI, "k": K, "opc": OPC, "criteria": 7 })),
        ("criteria", with_criteria(json!([{ "priority": 1, "server": "as" }]))),
        ("criteria", with_criteria(json!([{ "priority": 1, "server": "sip:as@b", "when": { "request_uri": "*" } }]))),
        (
            "criteria",
            with_criteria(json!([{ "priority": 1, "server": "sip:a@b" }, { "priority": 1, "server": "sip:b@b" }])),
        ),
        (
            "criteria[1]",
            with_criteria(
                json!([{ "priority": 1, "server": "sip:a@b" }, { "priority": 2, "server": "sip:b@b", "when": { "case": 9 } }]),
            ),
        ),
        ("service_profile", json!({ "imsi": IMSI, "k": K, "opc": OPC, "service_profile": "volte" })),
        ("key", json!({ "imsi": IMSI, "k": K, "opc": OPC, "key": 1 })),
        ("", json!("text")),
    ] {
        let problem = w.command("subscriber.create", args.clone()).unwrap_err();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some(field)), "{args}: {problem:?}");
        assert!(!problem.detail.contains(&half[..8]), "{problem:?}");
    }
    assert_eq!(w.store.len(), 1, "the number of the run");
}

#[test]
fn identities_are_derived_or_given() {
    let mut w = World::new(config());
    let listed = |shown: &Value| {
        let one = |p: &Value| {
            format!("{} {}", p["impu"].as_str().unwrap(), if p["barred"] == true { "barred" } else { "open" })
        };
        shown["impus"].as_array().unwrap().iter().map(one).collect::<Vec<_>>()
    };
    let alone = w.create("001010000000001", json!({})).unwrap();
    assert_eq!(listed(&alone), [format!("sip:001010000000001@{D} open")]);
    let numbered = w.create("001010000000002", json!({ "msisdn": "4915112345678" })).unwrap();
    let expected = [
        format!("sip:+4915112345678@{D} open"),
        "tel:+4915112345678 open".into(),
        format!("sip:001010000000002@{D} barred"),
    ];
    assert_eq!(listed(&numbered), expected);
    let given = w.create("001010000000003", json!({ "impus": ["sip:alice@ims.example"] })).unwrap();
    let expected = ["sip:alice@ims.example open".into(), format!("sip:001010000000003@{D} barred")];
    assert_eq!(listed(&given), expected, "a USIM registers with the temporary identity");
    let isim = json!({ "impi": "bob@ims.example", "impus": [{ "impu": "sip:bob@ims.example", "display_name": "Bob" },
        { "impu": "sip:boss@ims.example", "irs": 7, "barred": true }] });
    let isim = w.create("001010000000004", isim).unwrap();
    assert_eq!(listed(&isim), ["sip:bob@ims.example open", "sip:boss@ims.example barred"]);
    assert_eq!((&isim["impus"][1]["irs"], &isim["impus"][0]["display_name"]), (&json!(1), &json!("Bob")));
    let changes = json!({ "imsi": "001010000000003", "changes": { "impus": null, "msisdn": "49151" } });
    let changed = w.command("subscriber.change", changes).unwrap();
    assert_eq!(listed(&changed).len(), 3, "derived again");
}

#[test]
fn op_gives_opc_and_every_algorithm_can_be_provisioned() {
    let mut w = World::new(config());
    // OP, K and OPc of test set 1 of TS 35.208.
    let args = json!({ "imsi": IMSI, "k": K, "op": "cdc202d5123e20f62b6d676ac72cb318" });
    w.command("subscriber.create", args).unwrap();
    assert_eq!(seq(&w.mar()), 1);
    for (n, more) in [
        (2, json!({ "algorithm": "tuak", "top": "55".repeat(32) })),
        (3, json!({ "algorithm": "TUAK", "topc": "55".repeat(32), "k": K.repeat(2), "iterations": 2 })),
        (4, json!({ "algorithm": "xor" })),
    ] {
        let imsi = format!("00101000000000{n}");
        let mut args = json!({ "imsi": imsi, "k": K });
        more.as_object().unwrap().iter().for_each(|(name, value)| args[name] = value.clone());
        w.command("subscriber.create", args).unwrap();
        let answer = ims_diameter::cx::Maa::from_message(&w.ask(mar(&imsi))).unwrap();
        assert_eq!((answer.result, answer.items.len()), (ResultCode::SUCCESS, 1), "{more}");
    }
}

/// TS 33.203 Annex N: a user without SIM, or a softphone beside the SIM under the same public identities.
#[test]
fn a_password_stands_in_for_a_sim_and_is_never_shown() {
    let mut w = World::new(config());
    let softphone = json!({ "imsi": IMSI, "impi": "alice@ims.example", "password": "Circle Of Life" });
    let created = w.command("subscriber.create", softphone).unwrap();
    let shown = json!({ "impi": "alice@ims.example", "realm": D, "digest_algorithms": ["MD5", "SHA-256"], "password_set": true });
    assert_eq!(created["private_identities"], json!([shown]));
    let change = |changes: Value| json!({ "imsi": IMSI, "changes": changes });
    let ha1 = json!({ "SHA-256": K.repeat(2) });
    let changed = w.command("subscriber.change", change(json!({ "ha1": ha1, "realm": "pbx.example" }))).unwrap();
    let identity = &changed["private_identities"][0];
    assert_eq!((&identity["realm"], &identity["digest_algorithms"]), (&json!("pbx.example"), &json!(["SHA-256"])));
    let changed = w.command("subscriber.change", change(json!({ "password": "x" }))).unwrap();
    assert_eq!(changed["private_identities"][0]["realm"], "pbx.example", "what is not named stays");
    let barred = w.command("subscriber.change", change(json!({ "barred": true }))).unwrap();
    assert_eq!(barred["private_identities"], changed["private_identities"]);
    let sim = json!({ "impi": "sim@ims.example", "k": K, "opc": OPC });
    let both = w.command("subscriber.change", change(json!({ "private_identities": [sim] }))).unwrap();
    assert_eq!(both["private_identities"][1]["key_set"], true);
    let whole = format!("{created}{both}");
    assert!(!whole.contains("Circle") && !whole.contains(&K[..8]), "{whole}");
}

#[test]
fn private_identities_are_added_kept_and_taken_away_by_a_change() {
    let mut w = World::with_subscriber();
    let tablet = "tablet@ims.example";
    let change = |changes: Value| json!({ "imsi": IMSI, "changes": changes });
    let keyed = json!({ "impi": tablet, "k": K, "opc": OPC });
    let impis = |shown: &Value| shown["private_identities"].as_array().unwrap().len();
    let shown = w.command("subscriber.change", change(json!({ "private_identities": [keyed] }))).unwrap();
    assert_eq!(impis(&shown), 2);
    let kept = json!({ "impi": tablet, "amf": "0001" });
    let shown = w.command("subscriber.change", change(json!({ "private_identities": [kept] }))).unwrap();
    assert_eq!(shown["private_identities"][1]["amf"], "0001");
    let problem =
        w.command("subscriber.change", change(json!({ "private_identities": [{ "impi": "x@y" }] }))).unwrap_err();
    assert_eq!(problem.field.as_deref(), Some("private_identities[0].k"));
    let shown = w.command("subscriber.change", change(json!({ "private_identities": [] }))).unwrap();
    assert_eq!(impis(&shown), 1);
    for (field, changes) in [("imsi", json!({ "imsi": "001010000000009" })), ("impi", json!({ "impi": "x@y" }))] {
        assert_eq!(w.command("subscriber.change", change(changes)).unwrap_err().field.as_deref(), Some(field));
    }
}

#[test]
fn changed_keys_replace_the_old_ones_whole() {
    let mut w = World::with_subscriber();
    let change = |changes: Value| json!({ "imsi": IMSI, "changes": changes });
    let half = w.command("subscriber.change", change(json!({ "opc": OPC }))).unwrap_err();
    assert_eq!(half.field.as_deref(), Some("k"));
    w.command("subscriber.change", change(json!({ "k": "00".repeat(16), "opc": OPC }))).unwrap();
    let answer = w.mar();
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| seq(&answer)));
    assert!(refused.is_err(), "the SIM with the old key does not accept this");
    w.command("subscriber.change", change(json!({ "k": K, "opc": OPC }))).unwrap();
    assert_eq!(seq(&w.mar()), 2);
}

#[test]
fn two_nodes_make_the_same_of_the_same_arguments() {
    let node = |seed| {
        let ring = hss::seal::KeyRing::new(&Secret::new([7; 32]), &[]);
        let args = json!({ "imsi": IMSI, "k": K, "opc": OPC });
        provision::create(&args, &config(), &ring, &mut ims_core::Rng::from_u64(seed)).unwrap()
    };
    assert_eq!(node(3), node(3));
    assert!(Hss::new(config()).unwrap().snapshot()["refusals"].as_object().unwrap().is_empty());
}

fn with_criteria(criteria: Value) -> Value {
    json!({ "imsi": IMSI, "k": K, "opc": OPC, "criteria": criteria })
}

#[test]
fn criteria_are_given_as_json_as_xml_and_by_the_name_of_a_profile() {
    let named = hss::config::NamedProfile {
        criteria: serde_json::from_value(json!([{ "priority": 7, "server": "sip:common@as" }])).unwrap(),
        shared_ifc_sets: vec![5, 6],
    };
    let mut w = World::new(Config { service_profiles: [("volte".to_owned(), named)].into(), ..config() });
    let xml = "<InitialFilterCriteria><Priority>9</Priority><ApplicationServer><ServerName>sip:x@as</ServerName></ApplicationServer>\
               </InitialFilterCriteria>";
    let more = json!({ "impus": ["sip:alice@ims.example"], "criteria": xml, "service_profile": "volte", "shared_ifc_sets": [6] });
    let made = w.create("001010000000009", more).unwrap();
    assert_eq!((&made["criteria"], &made["service_profile"]), (&json!(1), &json!("volte")));
    let mut profile = |impu: &str| w.command("subscriber.profile", json!({ "impu": impu }));
    let shown = profile("sip:alice@IMS.example").unwrap();
    let read = xml_ifc::parse(shown["user_data"].as_str().unwrap().as_bytes()).unwrap();
    let service = &read.service_profiles[0];
    assert_eq!(service.criteria.iter().map(|c| c.priority).collect::<Vec<_>>(), [7, 9]);
    assert_eq!(service.shared_ifc_sets, [5, 6]);
    assert_eq!(service.public_identities[0].identity, "sip:alice@ims.example");
    assert_eq!(profile("sip:nobody@ims.example").unwrap_err().status, 404);
    assert_eq!(profile("nobody").unwrap_err().field.as_deref(), Some("impu"));
    let warned = json!({ "criteria": [{ "priority": 1, "server": "sip:a@b", "when": { "method": "Invite" } }] });
    let changed = w.command("subscriber.change", json!({ "imsi": "001010000000009", "changes": warned })).unwrap();
    assert!(changed["warnings"][0].as_str().unwrap().contains("write INVITE"), "{changed}");
}
