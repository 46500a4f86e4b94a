use super::*;
use bytes::Bytes;

fn parse(text: &str) -> Message {
    let text = text.replace("\n            ", "\n").replace('\n', "\r\n");
    Message::parse(Bytes::from(text + "\r\n\r\n")).unwrap()
}

fn invite() -> Message {
    parse(
        "INVITE sip:bob@x SIP/2.0
            Via: SIP/2.0/UDP a;branch=z9hG4bK1
            Record-Route: <sip:p2.x;lr>;note=\"a, b\"
            Record-Route: \"near\" <sip:p1.x;lr>
            From: \"Alice\" <sip:alice@x>;tag=a1
            To: <sip:bob@x>
            Call-ID: call@a
            CSeq: 7 INVITE
            Contact: <sip:alice@192.0.2.1:5060;transport=udp>;+g.3gpp.icsi-ref=\"x\"
            Content-Length: 0",
    )
}

fn answer(status: u16, tag: &str, more: &str) -> Message {
    let mut answer = Message::response(&invite(), status, Some(tag));
    for line in more.split('\n').filter(|l| !l.trim().is_empty()) {
        let (name, value) = line.trim().split_once(": ").unwrap();
        answer.push_named(name, value);
    }
    answer
}

fn raw(message: &Message, name: Name) -> Vec<String> {
    message.raw(name).map(|v| String::from_utf8_lossy(v).trim().to_owned()).collect()
}

const ANSWERED: &str = "Contact: <sip:bob@192.0.2.2>
    Record-Route: <sip:p1.x;lr>, <sip:p2.x;lr>";

/// RFC 3261 12.1.1.
#[test]
fn as_the_callee_the_routes_are_in_the_order_of_the_request() {
    let mut dialog = Dialog::as_uas(&invite(), "b1").unwrap();
    assert!(dialog.is_confirmed());
    let (bye, next) = dialog.request("BYE");
    assert_eq!((bye.uri(), next.as_str()), ("sip:alice@192.0.2.1:5060;transport=udp", "sip:p2.x;lr"));
    assert_eq!(raw(&bye, Name::Route), ["<sip:p2.x;lr>;note=\"a, b\"", "<sip:p1.x;lr>"]);
    assert_eq!(raw(&bye, Name::From), ["<sip:bob@x>;tag=b1"]);
    assert_eq!(raw(&bye, Name::To), ["<sip:alice@x>;tag=a1"]);
    assert_eq!((raw(&bye, Name::CallId), raw(&bye, Name::CSeq)), (vec!["call@a".into()], vec!["1 BYE".into()]));
    assert_eq!(raw(&bye, Name::MaxForwards), ["70"]);
    let (info, _) = dialog.request("INFO");
    assert_eq!(raw(&info, Name::CSeq), ["2 INFO"]);
}

/// RFC 3261 12.1.2.
#[test]
fn as_the_caller_the_routes_are_the_other_way_round_and_cseq_goes_on() {
    let mut dialog = Dialog::as_uac(&invite(), &answer(200, "b1", ANSWERED)).unwrap();
    let (ack, next) = dialog.ack(7);
    assert_eq!((ack.uri(), next.as_str()), ("sip:bob@192.0.2.2", "sip:p2.x;lr"));
    assert_eq!(raw(&ack, Name::CSeq), ["7 ACK"]);
    assert_eq!(raw(&ack, Name::Route), ["<sip:p2.x;lr>", "<sip:p1.x;lr>"]);
    assert_eq!(raw(&ack, Name::From), ["<sip:alice@x>;tag=a1"]);
    assert_eq!(raw(&ack, Name::To), ["<sip:bob@x>;tag=b1"]);
    assert_eq!(raw(&dialog.request("BYE").0, Name::CSeq), ["8 BYE"]);
}

#[test]
fn both_ends_know_the_same_dialog() {
    let (uas, mut uac) =
        (Dialog::as_uas(&invite(), "b1").unwrap(), Dialog::as_uac(&invite(), &answer(200, "b1", ANSWERED)).unwrap());
    let (bye, _) = uac.request("BYE");
    assert!(uas.has(&bye) && !uac.has(&bye) && !uas.has(&invite()));
    assert_eq!(DialogId::of_response(&answer(200, "b1", "")), Some(uac.id()));
    assert_eq!(DialogId::of_request(&invite()), None, "no To tag: in no dialog yet");
    let other = Dialog::as_uas(&invite(), "b2").unwrap();
    assert!(!other.has(&bye));
}

#[test]
fn a_strict_router_is_served_as_it_wants() {
    let ok = answer(200, "b1", "Contact: <sip:bob@192.0.2.2>\nRecord-Route: <sip:p1.x;lr>, <sip:old.x>");
    let mut dialog = Dialog::as_uac(&invite(), &ok).unwrap();
    let (bye, next) = dialog.request("BYE");
    assert_eq!((bye.uri(), next.as_str()), ("sip:old.x", "sip:old.x"));
    assert_eq!(raw(&bye, Name::Route), ["<sip:p1.x;lr>", "<sip:bob@192.0.2.2>"]);
}

#[test]
fn without_routes_the_peer_is_asked_at_its_contact() {
    let ok = answer(200, "b1", "Contact: <sip:bob@192.0.2.2>");
    let (bye, next) = Dialog::as_uac(&invite(), &ok).unwrap().request("BYE");
    assert_eq!((bye.uri(), next.as_str(), bye.has(Name::Route)), ("sip:bob@192.0.2.2", "sip:bob@192.0.2.2", false));
}

/// RFC 3261 12.2.2.
#[test]
fn a_target_refresh_moves_the_peer_and_nothing_else_does() {
    let mut dialog = Dialog::as_uas(&invite(), "b1").unwrap();
    let in_dialog = |method: &str, cseq: u32, contact: &str| {
        let mut m = Message::request(method, "sip:bob@192.0.2.2");
        m.set(Name::CSeq, format_args!("{cseq} {method}"));
        m.set(Name::Contact, contact);
        m
    };
    for (cseq, method) in ["UPDATE", "INVITE", "SUBSCRIBE", "NOTIFY", "REFER"].iter().enumerate() {
        let cseq = 8 + cseq as u32;
        dialog.on_request(&in_dialog(method, cseq, &format!("<sip:alice@192.0.2.{cseq}>"))).unwrap();
        assert_eq!(dialog.target(), format!("sip:alice@192.0.2.{cseq}"), "{method}");
    }
    let before = dialog.clone();
    dialog.on_request(&in_dialog("INFO", 20, "<sip:alice@192.0.2.99>")).unwrap();
    assert_eq!((dialog.target(), dialog.routes().count()), (before.target(), 2));
    // In an answer to our own.
    let mut ok = Message::response(&in_dialog("UPDATE", 1, "<sip:b@x>"), 200, None);
    ok.set(Name::Contact, "<sip:alice@192.0.2.77>");
    dialog.on_response(&ok).unwrap();
    assert_eq!(dialog.target(), "sip:alice@192.0.2.77");
}

/// RFC 3261 12.2.2.
#[test]
fn an_older_request_is_out_of_order_and_an_ack_never_is() {
    let mut dialog = Dialog::as_uas(&invite(), "b1").unwrap();
    let request = |method: &str, cseq: u32| {
        let mut m = Message::request(method, "sip:b@x");
        m.set(Name::CSeq, format_args!("{cseq} {method}"));
        m
    };
    assert_eq!(dialog.on_request(&request("BYE", 6)), Err(DialogError::OutOfOrder));
    assert_eq!(DialogError::OutOfOrder.status(), 500);
    dialog.on_request(&request("INFO", 9)).unwrap();
    dialog.on_request(&request("ACK", 7)).unwrap();
    assert_eq!(dialog.on_request(&request("INFO", 8)), Err(DialogError::OutOfOrder));
    // The peer's first request in a dialog of ours sets the count.
    let mut dialog = Dialog::as_uac(&invite(), &answer(200, "b1", ANSWERED)).unwrap();
    dialog.on_request(&request("BYE", 1)).unwrap();
}

#[test]
fn an_early_dialog_takes_routes_and_target_of_its_2xx() {
    let mut dialog = Dialog::as_uac(&invite(), &answer(183, "b1", "Record-Route: <sip:early.x;lr>")).unwrap();
    assert!(!dialog.is_confirmed());
    assert_eq!(dialog.target(), "sip:bob@x", "no Contact in it: the address that was called");
    dialog.on_response(&answer(183, "b1", "Contact: <sip:bob@192.0.2.9>\nRecord-Route: <sip:p9.x;lr>")).unwrap();
    assert_eq!(dialog.request("PRACK").1, "sip:p9.x;lr", "a later provisional answer may say more");
    assert!(!dialog.is_confirmed());
    dialog.on_response(&answer(200, "b1", ANSWERED)).unwrap();
    assert!(dialog.is_confirmed());
    assert_eq!((dialog.target(), dialog.routes().count(), dialog.local_seq()), ("sip:bob@192.0.2.2", 2, 8));
    // A repeated 2xx changes no route any more.
    dialog.on_response(&answer(200, "b1", "Contact: <sip:bob@192.0.2.3>")).unwrap();
    assert_eq!((dialog.target(), dialog.routes().count()), ("sip:bob@192.0.2.3", 2));
}

/// RFC 3261 13.2.2.4.
#[test]
fn forking_makes_a_dialog_for_each_tag() {
    let mut forked = Forked::new(invite());
    assert!(forked.on_response(&answer(100, "x", "")).unwrap().is_none());
    assert_eq!(forked.on_response(&answer(180, "b1", ANSWERED)).unwrap().unwrap().remote_tag(), "b1");
    assert_eq!(forked.on_response(&answer(183, "b2", "")).unwrap().unwrap().remote_tag(), "b2");
    assert_eq!(forked.on_response(&answer(183, "b1", "")).unwrap().unwrap().remote_tag(), "b1");
    assert!(forked.on_response(&answer(486, "b1", "")).unwrap().is_none());
    assert_eq!(forked.dialogs().len(), 2);
    assert!(forked.on_response(&answer(200, "b2", ANSWERED)).unwrap().unwrap().is_confirmed());
    assert!(forked.on_response(&answer(200, "b3", ANSWERED)).unwrap().unwrap().is_confirmed());
    let confirmed = forked.confirmed();
    assert_eq!(confirmed.iter().map(Dialog::remote_tag).collect::<Vec<_>>(), ["b2", "b3"]);
    let mut forked = Forked::new(invite());
    for n in 0..MAX_FORKED {
        forked.on_response(&answer(180, &format!("t{n}"), "")).unwrap();
    }
    assert_eq!(forked.on_response(&answer(180, "more", "")).err(), Some(DialogError::TooLong));
}

/// RFC 6665 4.4.1.
#[test]
fn a_notify_may_make_the_dialog_of_a_subscribe() {
    let mut subscribe = Message::request("SUBSCRIBE", "sip:alice@x");
    for (name, value) in [
        (Name::From, "<sip:alice@x>;tag=s1"),
        (Name::To, "<sip:alice@x>"),
        (Name::CallId, "sub"),
        (Name::CSeq, "5 SUBSCRIBE"),
        (Name::Contact, "<sip:alice@192.0.2.1>"),
    ] {
        subscribe.set(name, value);
    }
    let mut notifier = Dialog::as_uas(&subscribe, "n1").unwrap();
    let (mut notify, _) = notifier.request("NOTIFY");
    notify.set(Name::Contact, "<sip:scscf.x>");
    notify.set(Name::RecordRoute, "<sip:p1.x;lr>");
    let mut dialog = Dialog::from_notify(&subscribe, &notify).unwrap();
    assert_eq!(dialog.on_request(&notify), Ok(()));
    let (refresh, next) = dialog.request("SUBSCRIBE");
    assert_eq!((refresh.uri(), next.as_str()), ("sip:scscf.x", "sip:p1.x;lr"));
    assert_eq!(raw(&refresh, Name::CSeq), ["6 SUBSCRIBE"]);
    assert!(notifier.has(&refresh));
    // The answer, when it comes at last, is of the same dialog.
    assert_eq!(DialogId::of_response(&accept(&subscribe, 200, "n1", "<sip:scscf.x>")), Some(dialog.id()));
    notify.set(Name::CallId, "other");
    assert_eq!(Dialog::from_notify(&subscribe, &notify), Err(DialogError::NoDialog));
}

#[test]
fn our_answer_gives_routes_and_contact_back() {
    let ok = accept(&invite(), 200, "b1", "<sip:bob@192.0.2.2>");
    assert_eq!(raw(&ok, Name::RecordRoute), raw(&invite(), Name::RecordRoute));
    assert_eq!(raw(&ok, Name::Contact), ["<sip:bob@192.0.2.2>"]);
    let dialog = Dialog::as_uac(&invite(), &ok).unwrap();
    assert_eq!(dialog.routes().collect::<Vec<_>>(), ["<sip:p1.x;lr>", "<sip:p2.x;lr>;note=\"a, b\""]);
}

#[test]
fn what_makes_no_dialog_is_named_and_bounded() {
    let without = |name: Name| {
        let mut m = invite();
        m.remove(name);
        Dialog::as_uas(&m, "t").unwrap_err()
    };
    assert_eq!(without(Name::Contact), DialogError::NoContact);
    assert!(matches!(without(Name::CallId), DialogError::Header(_)));
    let with = |name: Name, value: &str| {
        let mut m = invite();
        m.set(name, value);
        Dialog::as_uas(&m, "t")
    };
    assert_eq!(with(Name::Contact, "*"), Err(DialogError::NoContact));
    assert_eq!(with(Name::Contact, "<sip:a@b?Route=x>"), Err(DialogError::NoContact));
    let long = format!("<sip:{}@x>", "a".repeat(MAX_TEXT));
    assert_eq!(with(Name::Contact, &long), Err(DialogError::TooLong));
    let many = vec!["<sip:p;lr>"; MAX_ROUTES + 1].join(",");
    assert_eq!(with(Name::RecordRoute, &many), Err(DialogError::TooLong));
    assert_eq!(Dialog::as_uac(&invite(), &answer(486, "b", "")), Err(DialogError::NoDialog));
    assert_eq!(Dialog::as_uac(&invite(), &answer(200, "b", "")), Err(DialogError::NoContact));
    assert_eq!([DialogError::NoContact.status(), DialogError::NoDialog.status()], [400, 481]);
    assert!(Dialog::is_ended_by(481) && Dialog::is_ended_by(408) && !Dialog::is_ended_by(500));
}

#[test]
fn a_peer_without_tag_is_still_known() {
    let mut old = invite();
    old.set(Name::From, "<sip:alice@x>");
    let mut dialog = Dialog::as_uas(&old, "b1").unwrap();
    assert_eq!(raw(&dialog.request("BYE").0, Name::To), ["<sip:alice@x>"]);
    let mut bye =
        parse("BYE sip:b@x SIP/2.0\nFrom: <sip:alice@x>\nTo: <sip:bob@x>;tag=b1\nCall-ID: call@a\nCSeq: 8 BYE");
    assert!(dialog.has(&bye));
    bye.set(Name::From, "<sip:alice@x>;tag=z");
    assert!(!dialog.has(&bye));
}

#[test]
fn a_dialog_is_kept_and_comes_back() {
    let dialog = Dialog::as_uas(&invite(), "b1").unwrap();
    let json = serde_json::to_string(&dialog).unwrap();
    let mut again = serde_json::from_str::<Dialog>(&json).unwrap();
    assert_eq!(again, dialog);
    again.skip_to(40);
    again.skip_to(7);
    assert_eq!(raw(&again.request("NOTIFY").0, Name::CSeq), ["41 NOTIFY"]);
    assert!(size_of::<Dialog>() <= 32, "{}", size_of::<Dialog>());
}
