//! Criteria and requests: what matches, in what order, and why not (TS 29.228 Annex B, C and F).

use bytes::Bytes;
use ims_sip::Message;
use xml_ifc::trigger::*;
use xml_ifc::*;

fn request(method: &str, uri: &str, headers: &str, body: &str) -> Message {
    let text = format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1\r\nMax-Forwards: 70\r\nf: <sip:alice@ims.example>;tag=1\r\n\
         t: <sip:bob@ims.example>\r\ni: call-1@10.0.0.1\r\nCSeq: 1 {method}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Message::parse(Bytes::from(text)).unwrap()
}

fn invite(headers: &str) -> Message {
    request("INVITE", "sip:bob@ims.example:5060;user=phone", headers, "")
}

/// A service profile with these elements.
fn profile(criteria: &str) -> ServiceProfile {
    let xml = format!(
        "<IMSSubscription><PrivateID>a@b</PrivateID><ServiceProfile><PublicIdentity><Identity>sip:a@b</Identity></PublicIdentity>{criteria}\
         </ServiceProfile></IMSSubscription>"
    );
    parse(xml.as_bytes()).unwrap().service_profiles.remove(0)
}

fn ifc(priority: u32, server: &str, inside: &str) -> String {
    format!(
        "<InitialFilterCriteria><Priority>{priority}</Priority>{inside}<ApplicationServer><ServerName>sip:{server}@as</ServerName>\
         </ApplicationServer></InitialFilterCriteria>"
    )
}

fn trigger(cnf: u8, spts: &str) -> String {
    format!("<TriggerPoint><ConditionTypeCNF>{cnf}</ConditionTypeCNF>{spts}</TriggerPoint>")
}

/// `!` in front negates.
fn spt(groups: &[u32], inside: &str) -> String {
    let (negated, inside) = inside.strip_prefix('!').map_or((0, inside), |rest| (1, rest));
    let groups: String = groups.iter().map(|g| format!("<Group>{g}</Group>")).collect();
    format!("<SPT><ConditionNegated>{negated}</ConditionNegated>{groups}{inside}</SPT>")
}

fn compiled(criteria: &str) -> CompiledCriteria {
    CompiledCriteria::new(&profile(criteria), &SharedSets::default())
}

/// Whether one condition by itself holds.
fn holds(inside: &str, view: &RequestView<'_>) -> bool {
    let criteria = compiled(&ifc(0, "x", &trigger(1, &spt(&[0], inside))));
    let found = criteria.next_match(0, view).is_some();
    let explained = explain(&criteria, view);
    assert_eq!(explained.criteria[0].matches, found, "{explained}");
    assert_eq!(explained.criteria[0].groups[0].conditions[0].holds, found, "{explained}");
    found
}

fn holds_in(inside: &str, message: &Message) -> bool {
    holds(inside, &RequestView::new(message, SessionCase::Originating))
}

fn header(name: &str, content: Option<&str>) -> String {
    let content = content.map_or(String::new(), |c| format!("<Content><![CDATA[{c}]]></Content>"));
    format!("<SIPHeader><Header>{name}</Header>{content}</SIPHeader>")
}

fn servers(criteria: &CompiledCriteria, view: &RequestView<'_>) -> Vec<String> {
    let name = |ifc: &Ifc| ifc.server.server_name.trim_start_matches("sip:").trim_end_matches("@as").to_owned();
    criteria.matches(view).map(|(_, ifc)| name(ifc)).collect()
}

/// TS 29.228 B.2.3: the method of a request.
#[test]
fn a_method_is_compared_with_its_case() {
    let m = invite("");
    assert!(holds_in("<Method>INVITE</Method>", &m));
    assert!(!holds_in("<Method>invite</Method>", &m) && !holds_in("<Method>MESSAGE</Method>", &m));
    assert!(holds_in("!<Method>MESSAGE</Method>", &m) && !holds_in("!<Method>INVITE</Method>", &m));
    assert!(holds_in("<Method>FROB</Method>", &request("FROB", "sip:b@x", "", "")));
}

/// TS 29.228 B.2.3: RegistrationType of the method REGISTER.
#[test]
fn a_registration_type_narrows_register_alone() {
    let m = request("REGISTER", "sip:ims.example", "", "");
    let with = |types: &[u8]| {
        let types: String = types.iter().map(|t| format!("<RegistrationType>{t}</RegistrationType>")).collect();
        format!("<Method>REGISTER</Method><Extension>{types}</Extension>")
    };
    let kinds = [RegistrationType::Initial, RegistrationType::Reregistration, RegistrationType::Deregistration];
    for (types, wanted) in [
        (vec![], [true; 3]),
        (vec![0], [true, false, false]),
        (vec![2, 1], [false, true, true]),
        (vec![1, 0, 1], [true, true, false]),
    ] {
        let found = kinds.map(|kind| holds(&with(&types), &RequestView::register(&m, kind)));
        assert_eq!(found, wanted, "{types:?}");
    }
    assert!(holds_in(&with(&[1]), &m), "whoever asks without a type gets all");
    let invite = "<Method>INVITE</Method><Extension><RegistrationType>1</RegistrationType></Extension>";
    assert!(holds(
        invite,
        &RequestView { registration: Some(RegistrationType::Initial), ..view_of(&self::invite("")) }
    ));
}

fn view_of(message: &Message) -> RequestView<'_> {
    RequestView::new(message, SessionCase::Originating)
}

/// TS 29.228 F: Table F.1, RequestURI.
#[test]
fn a_request_uri_is_compared_by_host_and_port_or_number() {
    let m = invite("");
    let uri = |pattern: &str| format!("<RequestURI>{pattern}</RequestURI>");
    for (pattern, wanted) in [
        ("ims.example", true),
        ("^ims\\.example:5060$", true),
        ("^IMS", false),
        ("bob", false),
        ("user=phone", false),
        ("^sip:bob@", true),
        ("bob@ims", true),
        ("^sips?:[a-z]+@ims\\.example:5060;user=phone$", true),
        ("tel:", false),
    ] {
        assert_eq!(holds_in(&uri(pattern), &m), wanted, "{pattern}");
    }
    let spelled = request("INVITE", "SIP:Bob@IMS.Example;x=Y", "", "");
    assert!(holds_in(&uri("^ims.example$"), &spelled) && holds_in(&uri("^IMS.Example$"), &spelled));
    assert!(holds_in(&uri("^sip:Bob@ims.example;x=Y$"), &spelled) && !holds_in(&uri("bob@"), &spelled));
    let tel = request("INVITE", "tel:+49-(30)-123;npdi", "", "");
    assert!(holds_in(&uri("^\\+4930123$"), &tel) && holds_in(&uri("^\\+49-"), &tel) && holds_in(&uri("npdi"), &tel));
    assert!(holds_in(&uri("^tel:\\+4930123$"), &tel) && !holds_in(&uri("^4930"), &tel));
    let urn = request("INVITE", "urn:service:sos.fire", "", "");
    assert!(holds_in(&uri("^service:sos"), &urn) && holds_in(&uri("^urn:service:sos"), &urn));
    let v6 = request("INVITE", "sip:bob:pw@[2001:db8::1]:5061;lr?Subject=a", "", "");
    assert!(holds_in(&uri("^\\[2001:db8::1\\]:5061$"), &v6));
    let none = request("INVITE", "sip:ims.example", "", "");
    assert!(holds_in(&uri("^ims.example$"), &none));
}

/// TS 29.228 F: Table F.1, Header and Content; long forms, and each value of a list.
#[test]
fn a_header_is_there_or_has_content() {
    let m = invite(
        "Event: reg\r\nAccept: baz\r\nAccept: quux, foo\r\nX-Own: a,b\r\nCall-Info: foo,\r\n   bar\r\nm: <sip:a@1.2.3.4>\r\nSubject: one, two\r\n",
    );
    for (name, content, wanted) in [
        ("Event", None, true),
        ("event", None, true),
        ("Allow-Events", None, false),
        ("Vent", None, false),
        ("From", None, true),
        ("Call-ID", Some("^call-1@10\\.0\\.0\\.1$"), true),
        ("f", Some("alice"), true),
        ("Contact", Some("1.2.3.4"), true),
        ("m", Some("1.2.3.4"), true),
        ("Accept", Some("baz"), true),
        ("Accept", Some("qu"), true),
        ("Accept", Some("\\bqu\\b"), false),
        ("Accept", Some("^foo$"), true),
        ("Accept", Some("^quux, foo$"), true),
        ("Accept", Some("null"), false),
        ("X-Own", Some("^b$"), true),
        ("x-own", None, true),
        ("X-Other", None, false),
        ("Call-Info", Some("foo, bar"), true),
        ("Subject", Some("^two$"), false),
        ("Event", Some("^REG$"), false),
        ("Max-Forwards", Some("^[0-9]+$"), true),
        (".*", Some("^reg$"), true),
        ("^X-", None, true),
        ("^(Subject|Event)$", Some("one"), true),
        ("^call-id$", Some("call"), true),
        ("^i$", None, false),
    ] {
        assert_eq!(holds_in(&header(name, content), &m), wanted, "{name} {content:?}");
    }
    assert!(holds_in(&format!("!{}", header("X-Other", None)), &m), "absence, by negation");
}

#[test]
fn a_header_that_is_no_text_is_compared_as_bytes() {
    let mut bytes = invite("").to_bytes().to_vec();
    let at = bytes.windows(4).position(|w| w == b"CSeq").unwrap();
    bytes.splice(at..at, b"X-Raw: a\xff\xfeb\r\n".iter().copied());
    let m = Message::parse(bytes.into()).unwrap();
    assert!(holds_in(&header("X-Raw", Some("^a..b$")), &m));
    let text =
        explain(&compiled(&ifc(0, "x", &trigger(1, &spt(&[0], &header("X-Raw", None))))), &view_of(&m)).to_string();
    assert!(text.contains("X-Raw: a"), "{text}");
}

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 96 0\r\na=rtpmap:96 AMR-WB/16000\r\n\
                   einvalid\r\nm=video 4002 RTP/AVP 97\n";

/// TS 29.228 F: Table F.1, Line and Content; in a part of a multipart body too.
#[test]
fn a_session_description_is_looked_at_line_by_line() {
    let line = |line: &str, content: &str| {
        let content = if content.is_empty() { String::new() } else { format!("<Content>{content}</Content>") };
        format!("<SessionDescription><Line>{line}</Line>{content}</SessionDescription>")
    };
    let with = |kind: &str, body: &str| request("INVITE", "sip:b@x", &format!("c: {kind}\r\n"), body);
    let m = with("Application/SDP;charset=x", SDP);
    for (letter, content, wanted) in [
        ("m", "", true),
        ("m", "audio", true),
        ("m", "^video 4002", true),
        ("m", "97$", true),
        ("m", "text", false),
        ("a", "AMR", true),
        ("[am]", "AMR", true),
        ("k", "", false),
        ("e", "", false),
        ("v", "^0$", true),
    ] {
        assert_eq!(holds_in(&line(letter, content), &m), wanted, "{letter} {content}");
    }
    let part = |kind: &str, body: &str| format!("--b o\r\nX: 1\r\ncontent-type:\r\n {kind}\r\n\r\n{body}\r\n");
    let mixed = format!(
        "preamble m=no\r\n{}{}--b o--\r\nm=epilogue\r\n",
        part("text/plain", "m=audio"),
        part("application/sdp", "v=0\r\nm=message 1")
    );
    let m = with("multipart/mixed; boundary=\"b o\"", &mixed);
    assert!(holds_in(&line("m", "^message 1$"), &m) && !holds_in(&line("m", "audio|no|epilogue"), &m));
    let nested =
        format!("--x\r\n\r\nno type\r\n--x\r\nContent-Type: multipart/mixed;boundary=\"b o\"\r\n\r\n{mixed}\r\n--x--");
    assert!(holds_in(&line("m", "message"), &with("multipart/related;boundary=x", &nested)));
    for (kind, body) in
        [("text/plain", SDP), ("multipart/mixed", &mixed), ("multipart/mixed;boundary=none", &mixed), ("nonsense", SDP)]
    {
        assert!(!holds_in(&line("m", ""), &with(kind, body)), "{kind}");
    }
    let packed = request("INVITE", "sip:b@x", "Content-Type: application/sdp\r\nContent-Encoding: gzip\r\n", SDP);
    assert!(!holds_in(&line("m", ""), &packed), "what cannot be read is not there");
    assert!(!holds_in(&line("m", ""), &invite("")));
}

/// TS 29.228 B.2.2: ProfilePartIndicator and SessionCase.
#[test]
fn session_cases_and_profile_parts() {
    let m = invite("");
    let cases = [
        SessionCase::Originating,
        SessionCase::Terminating,
        SessionCase::TerminatingUnregistered,
        SessionCase::OriginatingUnregistered,
        SessionCase::OriginatingCdiv { is_registered: true },
        SessionCase::OriginatingCdiv { is_registered: false },
    ];
    for wanted in 0..=4 {
        for case in cases {
            let spt = format!("<SessionCase>{wanted}</SessionCase>");
            assert_eq!(holds(&spt, &RequestView::new(&m, case)), case.number() == wanted, "{case:?}");
        }
    }
    let part =
        |n: u8| ifc(0, "x", "").replace("</Init", &format!("<ProfilePartIndicator>{n}</ProfilePartIndicator></Init"));
    for case in cases {
        let view = RequestView::new(&m, case);
        let found = [part(0), part(1), ifc(0, "x", "")].map(|c| compiled(&c).next_match(0, &view).is_some());
        assert_eq!(found, [case.is_registered(), !case.is_registered(), true], "{case:?}");
    }
}

/// TS 29.228 C: groups of conditions, and conditions of several groups.
#[test]
fn conjunctive_and_disjunctive_groups() {
    let (yes, no) = ("<Method>INVITE</Method>", "<Method>BYE</Method>");
    let m = invite("");
    for (cnf, spts, wanted) in [
        (1, vec![(&[0u32][..], yes), (&[1], no)], false),
        (0, vec![(&[0], yes), (&[1], no)], true),
        (1, vec![(&[3], yes), (&[3], no)], true),
        (0, vec![(&[3], yes), (&[3], no)], false),
        // One condition in several groups.
        (0, vec![(&[4], no), (&[3, 4], yes)], true),
        (1, vec![(&[4], no), (&[3, 4], yes)], true),
        (1, vec![(&[4], no), (&[3], yes)], false),
        (0, vec![(&[1, 2], no), (&[2], yes)], false),
        (1, vec![(&[1, 2], no), (&[2], yes)], false),
        (1, vec![(&[1], yes), (&[1], no), (&[99], yes)], true),
        (0, vec![(&[1], yes), (&[1], no), (&[99], yes)], true),
        (1, vec![(&[7, 7], yes)], true),
        (1, vec![], true),
        (0, vec![], false),
    ] {
        let text: String = spts.iter().map(|(groups, inside)| spt(groups, inside)).collect();
        let criteria = compiled(&ifc(0, "x", &trigger(cnf, &text)));
        let found = criteria.next_match(0, &view_of(&m)).is_some();
        assert_eq!(found, wanted, "cnf {cnf} {spts:?}");
        assert_eq!(explain(&criteria, &view_of(&m)).criteria[0].matches, found);
    }
}

/// TS 29.228 B.2.2: priorities.
#[test]
fn priorities_ascend_and_the_document_decides_between_equals() {
    let m = invite("");
    let text = [ifc(20, "d", ""), ifc(5, "b", ""), ifc(0, "a", ""), ifc(5, "c", "")].concat();
    let criteria = compiled(&text);
    assert_eq!(servers(&criteria, &view_of(&m)), ["a", "b", "c", "d"]);
    let (at, found) = criteria.next_match(2, &view_of(&m)).unwrap();
    assert_eq!((at, found.server.server_name.as_str()), (2, "sip:c@as"));
    assert_eq!(criteria.get(2), Some(found));
    assert!(criteria.next_match(4, &view_of(&m)).is_none() && criteria.next_match(usize::MAX, &view_of(&m)).is_none());
    assert!(criteria.findings().iter().any(|f| !f.is_error() && f.to_string().contains("same priority, 5")));
}

/// TS 29.228 B.2.1: SharedIFCSetID.
#[test]
fn shared_sets_are_merged_by_priority() {
    let m = invite("");
    let mut sets = SharedSets::default();
    sets.insert(5, profile(&[ifc(1, "shared1", ""), ifc(9, "shared9", "")].concat()).criteria).unwrap();
    sets.insert(6, profile(&ifc(0, "other", "")).criteria).unwrap();
    assert!(sets.insert(6, Vec::new()).is_err());
    let mut one = profile(&[ifc(1, "own1", ""), ifc(7, "own7", "")].concat());
    one.shared_ifc_sets = vec![5, 77];
    let criteria = CompiledCriteria::new(&one, &sets);
    assert_eq!(servers(&criteria, &view_of(&m)), ["own1", "shared1", "own7", "shared9"]);
    assert!(criteria.findings().contains(&Finding::UnknownSet { id: 77 }));
    let text = explain(&criteria, &view_of(&m)).to_string();
    assert!(text.contains("shared set 5") && text.contains("shared iFC set 77 is not known"), "{text}");
}

/// TS 29.228 F: what is no extended regular expression.
#[test]
fn a_criterion_that_makes_no_sense_never_matches_and_is_told() {
    let m = invite("");
    let bad = spt(&[0], "<RequestURI>*</RequestURI>");
    let negated = spt(&[0], &format!("!{}", header("X", Some("("))));
    let good = spt(&[0], "<Method>INVITE</Method>");
    let text = [
        ifc(0, "uri", &trigger(1, &bad)),
        ifc(1, "negated", &trigger(1, &negated)),
        ifc(2, "or", &trigger(0, &[good.clone(), bad.replace("<Group>0", "<Group>1")].concat())),
        ifc(3, "fine", &trigger(1, &good)),
    ];
    let criteria = compiled(&text.concat());
    assert_eq!(
        servers(&criteria, &view_of(&m)),
        ["fine"],
        "not even what is negated, or what another group would let match"
    );
    let told: Vec<String> = criteria.findings().iter().filter(|f| f.is_error()).map(ToString::to_string).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told[0].contains("uri@as (priority 0) never matches: the RequestURI \"*\" is no regular expression"),
        "{told:?}"
    );
    let explained = explain(&criteria, &view_of(&m));
    assert!(explained.criteria[1].reason.contains("the Content \"(\" is no regular expression"), "{explained}");
}

#[test]
fn what_an_operator_got_wrong_is_found() {
    let criteria = profile(
        &[
            ifc(1, "case", &trigger(1, &spt(&[0], "<Method>invite</Method>"))),
            ifc(2, "line", &trigger(1, &spt(&[0], "<SessionDescription><Line>m=audio</Line></SessionDescription>"))),
            ifc(3, "empty", &trigger(0, "")),
            ifc(4, "name", "").replace("sip:name@as", "as.example"),
        ]
        .concat(),
    )
    .criteria;
    let names: Vec<&str> = check(&criteria).iter().map(Finding::name).collect();
    assert_eq!(names, ["ifc-method-case", "ifc-long-line", "ifc-empty-trigger-point", "ifc-no-server"]);
    let kind = SptKind::SessionCase(9);
    let made = Ifc {
        trigger: Some(TriggerPoint { cnf: true, spts: vec![Spt { negated: false, groups: vec![], kind }] }),
        ..criteria[0].clone()
    };
    assert!(check(&[made])[0].to_string().contains("SessionCase is 9"));
}

#[test]
fn an_explanation_names_what_failed_and_what_was_compared() {
    let m = request("MESSAGE", "sip:bob@ims.example", "Authorization: Digest response=\"secret\"\r\n", "");
    let criteria = compiled(
        &[
            ifc(
                1,
                "voicemail",
                &trigger(
                    1,
                    &[spt(&[0], "<Method>INVITE</Method>"), spt(&[1], "<SessionCase>1</SessionCase>")].concat(),
                ),
            ),
            ifc(2, "all", ""),
            ifc(3, "secret", &trigger(1, &spt(&[0], &header("Authorization", None)))),
        ]
        .concat(),
    );
    let explained = explain(&criteria, &RequestView::new(&m, SessionCase::Terminating));
    let text = explained.to_string();
    assert!(
        text.contains("does not match: no condition of group 0 holds: method is INVITE, and there is MESSAGE"),
        "{text}"
    );
    assert!(text.contains("It goes to: sip:all@as, then sip:secret@as"), "{text}");
    assert!(!text.contains("\"secret\""), "{text}");
    let json = serde_json::to_value(&explained).unwrap();
    assert_eq!(json["criteria"][0]["groups"][1]["conditions"][0]["holds"], true);
    assert_eq!(json["criteria"][1]["reason"], "it has no trigger point: every request meets it");
}

#[test]
fn a_profile_out_of_all_proportion_is_cut() {
    let text: String = (0..1200).map(|n| ifc(n, "x", "")).collect();
    let criteria = compiled(&text);
    assert_eq!(criteria.len(), MOST_CRITERIA);
    assert!(criteria.findings().contains(&Finding::TooMany { most: MOST_CRITERIA }));
    let many: String = (0..300).map(|n| spt(&[n], "<Method>INVITE</Method>")).collect();
    assert!(compiled(&ifc(0, "x", &trigger(1, &many))).next_match(0, &view_of(&invite(""))).is_none());
}
