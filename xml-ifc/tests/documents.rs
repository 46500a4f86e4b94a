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
    assert!(error(&minimal("<InitialFilterCriteria/>")).contains("no ApplicationServer"));
    assert!(error(&ifc_with("<Novelty/>")).contains("no condition"));
    assert!(error(&ifc_with("<SessionCase>5</SessionCase>")).contains("SessionCase is 5"));
    assert!(error(&ifc_with("<SessionCase>-1</SessionCase>")).contains("not a number"));
    assert!(error("<ServiceProfile/>").contains("not IMSSubscription"));
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
