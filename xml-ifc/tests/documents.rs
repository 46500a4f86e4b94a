//! Documents in, profiles out, and back.

use xml_ifc::*;

const FULL: &str = include_str!("full.xml");

fn minimal(inside: &str) -> String {
    format!(
        "<IMSSubscription><PrivateID>a@b</PrivateID><ServiceProfile><PublicIdentity><Identity>sip:a@b</Identity></PublicIdentity>{inside}</ServiceProfile></IMSSubscription>"
    )
}

fn ifc_with(spt: &str) -> String {
    minimal(&format!(
        "<InitialFilterCriteria><Priority>1</Priority><TriggerPoint><ConditionTypeCNF>1</ConditionTypeCNF><SPT><Group>0</Group>{spt}</SPT></TriggerPoint><ApplicationServer><ServerName>sip:as@b</ServerName></ApplicationServer></InitialFilterCriteria>"
    ))
}

fn error(xml: &str) -> String {
    parse(xml.as_bytes()).unwrap_err().0
}

#[test]
fn a_full_profile_is_read() {
    let s = parse(FULL.as_bytes()).unwrap();
    assert_eq!(s.private_id, "001010000000001@ims.example");
    let p = &s.service_profiles[0];
    assert_eq!(p.public_identities[0].identity, "sip:alice@ims.example");
    assert!(p.public_identities[0].barred);
    assert_eq!(p.public_identities[1].display_name.as_deref(), Some("Zoë & Ünal"));
    assert_eq!(p.public_identities[1].alias_group.as_deref(), Some("7"));
    assert_eq!(p.public_identities[2].wildcarded.as_deref(), Some("sip:pbx!.*!@ims.example"));
    assert_eq!(p.public_identities[2].identity_type, Some(3));
    assert_eq!((p.shared_ifc_sets.as_slice(), p.subscribed_media_profile), ([5, 9].as_slice(), Some(2)));
    let first = &p.criteria[0];
    assert_eq!((first.priority, first.profile_part), (0, Some(ProfilePart::Registered)));
    assert_eq!(first.server.default_handling, DefaultHandling::SessionTerminated);
    assert!(first.server.include_register_request && !first.server.include_register_response);
    let spts = &first.trigger.as_ref().unwrap().spts;
    assert_eq!(spts[0].kind, SptKind::Method { method: "REGISTER".into(), registration_types: vec![0, 2] });
    assert_eq!((spts[1].groups.as_slice(), spts[1].negated), ([0, 1].as_slice(), true));
    assert_eq!(spts[1].kind, SptKind::SipHeader { header: "P-Access-.*".into(), content: Some("3GPP<5".into()) });
    assert_eq!(spts[2].kind, SptKind::SessionDescription { line: "m".into(), content: Some("audio".into()) });
    assert_eq!(spts[3].kind, SptKind::SessionCase(4));
    assert_eq!(spts[4].kind, SptKind::RequestUri("^\\*[0-9]+@ims".into()));
    assert_eq!(p.criteria[1].trigger, None, "no trigger point: unconditional");
    assert_eq!(p.criteria[1].server.service_info.as_deref(), Some(" <xml kept=\"as is\"/> "));
}

#[test]
fn what_is_written_reads_back_the_same() {
    let s = parse(FULL.as_bytes()).unwrap();
    let text = write(&s);
    assert_eq!(parse(text.as_bytes()).unwrap(), s);
    assert_eq!(write(&parse(text.as_bytes()).unwrap()), text);
}

#[test]
fn elements_stand_in_the_order_of_the_schema() {
    let text = write(&parse(FULL.as_bytes()).unwrap());
    let order = [
        "<PrivateID>",
        "<BarringIndication>1<",
        "<Identity>",
        "<IdentityType>0<",
        "<DisplayName>",
        "<AliasIdentityGroupID>",
        "<WildcardedIMPU>",
        "<Priority>0<",
        "<ConditionTypeCNF>",
        "<ConditionNegated>0<",
        "<Group>",
        "<Method>",
        "<RegistrationType>0<",
        "<ServerName>",
        "<DefaultHandling>1<",
        "<IncludeRegisterRequest",
        "<ProfilePartIndicator>0<",
        "<CoreNetworkServicesAuthorization>",
        "<SharedIFCSetID>5<",
    ];
    let mut at = 0;
    for element in order {
        at += text[at..].find(element).unwrap_or_else(|| panic!("{element} after byte {at} of {text}"));
    }
}

#[test]
fn hostile_text_is_carried_or_dropped_but_never_markup() {
    let mut s = parse(minimal("").as_bytes()).unwrap();
    s.service_profiles[0].public_identities[0].display_name =
        Some("</Identity>\u{1}<!DOCTYPE x>]]>&amp;\rß\u{1F4DE}".into());
    let back = parse(write(&s).as_bytes()).unwrap();
    let name = back.service_profiles[0].public_identities[0].display_name.clone().unwrap();
    assert_eq!(name, "</Identity><!DOCTYPE x>]]>&amp;\rß\u{1F4DE}");
}

#[test]
fn unknown_elements_namespaces_and_white_space_are_passed_over() {
    let xml = "\u{feff}<?xml version='1.0'?>\n<!-- <deep> --><ns:IMSSubscription xmlns:ns='urn:x' a='1'>\r\n <ns:PrivateID>\n a@b \n</ns:PrivateID>\
        <ns:Extension><ns:IMSI>1</ns:IMSI></ns:Extension><ns:ServiceProfile><ns:Novelty><ns:Identity>no</ns:Identity></ns:Novelty>\
        <ns:PublicIdentity><ns:Identity><![CDATA[ sip:a@b ]]></ns:Identity><ns:Extension><ns:DisplayName>at the wrong level</ns:DisplayName></ns:Extension>\
        </ns:PublicIdentity></ns:ServiceProfile></ns:IMSSubscription>\n\0";
    let s = parse(xml.as_bytes()).unwrap();
    assert_eq!(s.private_id, "a@b");
    let identity = &s.service_profiles[0].public_identities[0];
    assert_eq!((identity.identity.as_str(), identity.barred), ("sip:a@b", false));
    assert_eq!(identity.display_name.as_deref(), Some("at the wrong level"));
}

#[test]
fn an_absent_content_is_a_presence_test_and_an_absent_group_is_group_0() {
    let s = parse(ifc_with("<SIPHeader><Header>X</Header></SIPHeader>").replace("<Group>0</Group>", "").as_bytes());
    let spt = s.unwrap().service_profiles[0].criteria[0].trigger.clone().unwrap().spts.remove(0);
    assert_eq!(spt.kind, SptKind::SipHeader { header: "X".into(), content: None });
    assert_eq!((spt.groups, spt.negated), (vec![0], false));
}

#[test]
fn what_a_profile_cannot_do_without_is_named() {
    assert!(error("<IMSSubscription><PrivateID>a</PrivateID></IMSSubscription>").contains("no ServiceProfile"));
    assert!(error(&minimal("").replace("<PrivateID>a@b</PrivateID>", "")).contains("no PrivateID"));
    assert!(
        error(&minimal("").replace("<Identity>sip:a@b</Identity>", "<Identity> </Identity>")).contains("no Identity")
    );
    assert!(error("<ServiceProfile/>").contains("not IMSSubscription"));
}

#[test]
fn a_criterion_that_cannot_be_read_spoils_nothing_but_itself() {
    for (xml, wanted) in [
        (minimal("<InitialFilterCriteria/>"), "no ApplicationServer"),
        (ifc_with("<Novelty/>"), "no condition"),
        (ifc_with("<SessionCase>5</SessionCase>"), "SessionCase is 5"),
        (ifc_with("<SessionCase>-1</SessionCase>"), "not a number"),
        (ifc_with("<SessionCase>ORIGINATING</SessionCase>"), "not a number"),
        (ifc_with("<SIPHeader><Extension/></SIPHeader>"), "no Header"),
        (ifc_with("<SessionDescription/>"), "no Line"),
        (ifc_with("<Method>REGISTER</Method>").replace("<Priority>1</Priority>", ""), "no Priority"),
        (ifc_with("<Method>REGISTER</Method>").replace(">1</Priority", ">Mu</Priority"), "not a number"),
        (ifc_with("<Method>REGISTER</Method>").replace("sip:as@b", " "), "no ServerName"),
        (
            ifc_with("<Method>REGISTER</Method><Extension><RegistrationType>3</RegistrationType></Extension>"),
            "more than 2",
        ),
        (ifc_with("<Method>A</Method>").replace("<Group>0", "<Group>many"), "not a number"),
        (ifc_with("<Method>A</Method>").replace(">1</ConditionTypeCNF", ">maybe</ConditionTypeCNF"), "not 0 or 1"),
    ] {
        let good = "<InitialFilterCriteria><Priority>9</Priority><ApplicationServer><ServerName>sip:good@b</ServerName></ApplicationServer>\
                    </InitialFilterCriteria></ServiceProfile>";
        let profile = parse(xml.replace("</ServiceProfile>", good).as_bytes()).unwrap().service_profiles.remove(0);
        let findings = trigger::check(&profile.criteria);
        assert!(findings.len() == 1 && findings[0].to_string().contains(wanted), "{xml}: {findings:?}");
        assert_eq!(profile.criteria[1].server.server_name, "sip:good@b");
        assert!(matches!(&profile.criteria[0].trigger.as_ref().unwrap().spts[0].kind, SptKind::Unusable(_)));
    }
}

#[test]
fn hostile_documents_are_refused_without_harm() {
    let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><IMSSubscription>&b;</IMSSubscription>";
    assert!(error(bomb).contains("document type"));
    assert!(
        error("<!DOCTYPE IMSSubscription SYSTEM 'file:///etc/passwd'><IMSSubscription/>").contains("document type")
    );
    assert!(error(&"<a>".repeat(MAX_BYTES / 3)).contains("nest deeper"));
    assert!(error(&"<a x='/>' y=\"'>\">".repeat(20_000)).contains("nest deeper"));
    assert!(error(&minimal(&"<b>".repeat(100_000))).contains("nest deeper"));
    assert!(error(&" ".repeat(MAX_BYTES + 1)).contains("bytes"));
    assert!(error(&minimal(&"<b/>".repeat(60_000))).contains("no XML"), "the number of nodes is bounded");
    assert!(parse(b"\xff\xfe<\0I\0").unwrap_err().0.contains("UTF-8"));
    assert!(error(&minimal("&unknown;")).contains("no XML"));
    for cut in 0..FULL.len() {
        let _ = parse(FULL.as_bytes().get(..cut).unwrap());
    }
    for byte in 0..FULL.len() {
        let mut broken = FULL.as_bytes().to_vec();
        broken[byte] ^= 0x15;
        let _ = parse(&broken);
    }
}

#[test]
fn many_attributes_are_no_way_to_stop_the_clock() {
    let attributes: String = (0..20_000).map(|i| format!(" a{i}='1'")).collect();
    assert!(error(&format!("<IMSSubscription{attributes}/>")).contains("longer than"));
}

const AS: &str = "<ApplicationServer><ServerName>sip:as@b</ServerName></ApplicationServer>";

#[test]
fn criteria_are_read_by_themselves_and_in_whatever_stands_around_them() {
    let one = |n: u32| format!("<InitialFilterCriteria><Priority>{n}</Priority>{AS}</InitialFilterCriteria>");
    let priorities = |xml: &str| parse_criteria(xml).unwrap().iter().map(|c| c.priority).collect::<Vec<_>>();
    assert_eq!(priorities(&one(3)), [3]);
    assert_eq!(priorities(&format!("<?xml version='1.0'?>\n{}\n{}", one(3), one(1))), [3, 1]);
    assert_eq!(priorities(&minimal(&one(4))), [4]);
    assert_eq!(priorities(FULL), [0, 10]);
    assert!(parse_criteria("").unwrap_err().0.contains("no InitialFilterCriteria"));
    assert!(parse_criteria("<InitialFilterCriteria/>").unwrap_err().0.contains("no ApplicationServer"));
    assert!(parse_criteria("</Criteria><Criteria>").is_err() && parse_criteria("<!DOCTYPE x>").is_err());
}

#[test]
fn a_file_of_shared_sets() {
    let set = |id: &str, n: u32| {
        format!(
            "<SharedIFCsSet><SetID>{id}</SetID><InitialFilterCriteria><Priority>{n}</Priority>{AS}</InitialFilterCriteria></SharedIFCsSet>"
        )
    };
    let file = |inside: &str| parse_shared_sets(format!("<SharedIFCsSets>{inside}</SharedIFCsSets>").as_bytes());
    let sets =
        file(&[set("5", 1), set("7", 2), "<SharedIFCsSet><SetID>9</SetID></SharedIFCsSet>".into()].concat()).unwrap();
    assert_eq!(sets.iter().map(|(id, criteria)| (id, criteria.len())).collect::<Vec<_>>(), [(5, 1), (7, 1), (9, 0)]);
    assert!(file(&[set("5", 1), set("5", 2)].concat()).unwrap_err().0.contains("set 5 is given twice"));
    assert!(file(&set("five", 1)).unwrap_err().0.contains("not a number"));
    assert!(file("<x/>").unwrap_err().0.contains("no SetID"));
}

#[test]
fn criteria_are_written_in_json_as_people_think_of_them() {
    let read = |text: &str| serde_json::from_str::<Criterion>(text).map(|c| c.0).map_err(|e| e.to_string());
    let made = read(
        r#"{ "priority": 10, "server": "sip:as@b", "default_handling": "terminate", "profile_part": "registered",
             "when": { "all": [ { "method": "INVITE" }, { "any": [ { "case": "originating" }, { "case": "originating-cdiv" } ] },
                                { "not": true, "header": "P-Asserted-Service", "content": "ussd" } ] } }"#,
    )
    .unwrap();
    let trigger = made.trigger.clone().unwrap();
    assert_eq!((made.priority, made.profile_part, trigger.cnf), (10, Some(ProfilePart::Registered), true));
    let shape: Vec<_> = trigger.spts.iter().map(|s| (s.groups[0], s.negated)).collect();
    assert_eq!(shape, [(0, false), (1, false), (1, false), (2, true)]);
    assert_eq!(trigger.spts[2].kind, SptKind::SessionCase(4));
    let any = read(
        r#"{ "priority": 1, "server": "sip:as@b", "when": { "any": [ { "method": "REGISTER", "registration": ["initial", "deregistration"] },
             { "all": [ { "line": "m", "content": "video" }, { "request_uri": "^ims" } ] } ] } }"#,
    )
    .unwrap();
    let trigger = any.trigger.unwrap();
    assert_eq!(trigger.spts[0].kind, SptKind::Method { method: "REGISTER".into(), registration_types: vec![0, 2] });
    assert_eq!((trigger.cnf, trigger.spts[2].groups.as_slice()), (false, [1].as_slice()));
    assert_eq!(
        read(r#"{ "priority": 1, "server": "sip:as@b", "when": { "case": "terminating" } }"#)
            .unwrap()
            .trigger
            .unwrap()
            .spts
            .len(),
        1
    );
    assert!(read(r#"{ "priority": 1, "server": "sip:as@b" }"#).unwrap().trigger.is_none());
    let raw = r#"{ "priority": 1, "server": "sip:as@b", "trigger": { "cnf": true, "spts": [ { "negated": false, "groups": [0], "kind": { "RequestUri": "x" } } ] } }"#;
    assert_eq!(read(raw).unwrap().trigger.unwrap().spts[0].kind, SptKind::RequestUri("x".into()));
    for (when, wrong) in [
        (r#"{}"#, "one of method"),
        (r#"{ "all": [] }"#, "no condition"),
        (r#"{ "method": "INVITE", "case": "originating" }"#, "make several"),
        (r#"{ "method": "INVITE", "content": "x" }"#, "content goes with"),
        (r#"{ "method": "INVITE", "registration": ["initial"] }"#, "registration goes with"),
        (r#"{ "not": true, "all": [ { "method": "INVITE" } ] }"#, "not belongs"),
        (r#"{ "all": [ { "all": [ { "method": "INVITE" } ] } ] }"#, "list may hold"),
        (r#"{ "all": [ { "any": [ { "all": [ { "method": "INVITE" } ] } ] } ] }"#, "list may hold"),
        (r#"{ "all": [ { "method": "A" } ], "any": [ { "method": "B" } ] }"#, "a list stands alone"),
        (r#"{ "all": [ { "method": "A" } ], "method": "B" }"#, "a list stands alone"),
        (r#"{ "case": "sideways" }"#, "unknown variant"),
        (r#"{ "methode": "INVITE" }"#, "unknown field"),
    ] {
        let error = read(&format!(r#"{{ "priority": 1, "server": "sip:as@b", "when": {when} }}"#)).unwrap_err();
        assert!(error.contains(wrong), "{when}: {error}");
    }
}

/// Every criterion in docs/calls.md is one.
#[test]
fn what_the_manual_shows_can_be_provisioned() {
    let manual = include_str!("../../docs/calls.md");
    let mut seen = 0;
    for block in manual.split("```json").skip(1).filter_map(|rest| rest.split("```").next()) {
        if !block.contains("\"server\"") || !block.contains("\"priority\"") {
            continue;
        }
        let one = serde_json::from_str::<Criterion>(block).map(|c| vec![c.0]);
        let criteria = one.or_else(|_| serde_json::from_str::<Criteria>(block).map(|c| c.0));
        let criteria = criteria.unwrap_or_else(|error| panic!("{error}: {block}"));
        assert_eq!(trigger::check(&criteria), [], "{block}");
        seen += criteria.len();
    }
    assert!(seen >= 9, "{seen}");
}
