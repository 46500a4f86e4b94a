//! Initial filter criteria: a profile of 20 against an INVITE of a phone, each criterion looked at.

use bytes::Bytes;
use ims_bench::medians;
use ims_sip::Message;
use std::fmt::Write;
use std::hint::black_box;
use xml_ifc::trigger::{CompiledCriteria, Compiler, RequestView, SessionCase};
use xml_ifc::{ServiceProfile, SharedSets};

const INVITE: &[u8] = include_bytes!("../messages/invite.sip");

/// What an operator's profile asks for: by method and case first, then by header, Request-URI and session description.
const USUAL: [&str; 5] = [
    "<SPT><Group>0</Group><Method>REGISTER</Method></SPT>",
    "<SPT><Group>0</Group><Method>INVITE</Method></SPT><SPT><Group>1</Group><SessionCase>1</SessionCase></SPT>",
    "<SPT><Group>0</Group><Method>MESSAGE</Method></SPT><SPT><Group>1</Group><SIPHeader><Header>Content-Type</Header>\
     <Content>application/vnd\\.3gpp\\.sms</Content></SIPHeader></SPT>",
    "<SPT><Group>0</Group><Method>INVITE</Method></SPT><SPT><Group>0</Group><Method>SUBSCRIBE</Method></SPT><SPT><Group>1</Group>\
     <SessionCase>0</SessionCase></SPT><SPT><ConditionNegated>1</ConditionNegated><Group>2</Group><SIPHeader><Header>P-Asserted-Service\
     </Header></SIPHeader></SPT><SPT><Group>3</Group><RequestURI>^sip:\\*[0-9]{2,3}@</RequestURI></SPT>",
    "<SPT><Group>0</Group><Method>INVITE</Method></SPT><SPT><Group>1</Group><SIPHeader><Header>Accept-Contact</Header><Content>\
     g\\.3gpp\\.icsi-ref=.*conference</Content></SIPHeader></SPT>",
];

/// The same with nothing that is cheap to say no to.
const DEAR: [&str; 4] = [
    "<SPT><Group>0</Group><SIPHeader><Header>^P-.*</Header><Content>(ussd|voicemail)[0-9]+</Content></SIPHeader></SPT>",
    "<SPT><Group>0</Group><SessionDescription><Line>m</Line><Content>^(text|message) [0-9]+ </Content></SessionDescription></SPT>",
    "<SPT><Group>0</Group><RequestURI>^(sip|tel):\\+?(112|911|999)[@;]</RequestURI></SPT>",
    "<SPT><Group>0</Group><SIPHeader><Header>History-Info</Header><Content>cause=(302|404|486|408)</Content></SIPHeader></SPT>",
];

fn profile(kinds: &[&str]) -> ServiceProfile {
    let mut xml = String::from(
        "<IMSSubscription><PrivateID>a@b</PrivateID><ServiceProfile><PublicIdentity><Identity>sip:a@b</Identity></PublicIdentity>",
    );
    for (priority, spts) in kinds.iter().cycle().take(20).enumerate() {
        let _ = write!(
            xml,
            "<InitialFilterCriteria><Priority>{priority}</Priority><TriggerPoint><ConditionTypeCNF>1</ConditionTypeCNF>{spts}</TriggerPoint>\
             <ApplicationServer><ServerName>sip:as{priority}@b</ServerName></ApplicationServer></InitialFilterCriteria>"
        );
    }
    xml.push_str("</ServiceProfile></IMSSubscription>");
    xml_ifc::parse(xml.as_bytes()).expect("a profile").service_profiles.remove(0)
}

fn main() {
    let message = Message::parse(Bytes::from_static(INVITE)).expect("an INVITE");
    let (usual, dear) = (profile(&USUAL), profile(&DEAR));
    let criteria = [&usual, &dear].map(|profile| CompiledCriteria::new(profile, &SharedSets::default()));
    let matching: Vec<usize> =
        criteria.iter().map(|c| c.matches(&RequestView::new(&message, SessionCase::Originating)).count()).collect();
    println!("{} bytes of INVITE; of 20 criteria {matching:?} match", INVITE.len());
    let walk = |criteria: &CompiledCriteria| {
        let view = RequestView::new(black_box(&message), SessionCase::Originating);
        black_box(criteria.matches(&view).count());
    };
    let mut known = Compiler::default();
    let kept = known.compile(&usual);
    let times = medians(
        301,
        &mut [
            &mut || walk(&criteria[0]),
            &mut || walk(&criteria[1]),
            &mut || drop(black_box(Compiler::default().compile(&usual))),
            &mut || drop(black_box(known.compile(&usual))),
        ],
    );
    drop(kept);
    let [usual, dear, first, again] = times[..] else { return };
    println!("20 usual criteria:                 {usual:8.0} ns");
    println!("20 of nothing but expressions:     {dear:8.0} ns");
    println!("made ready, the first of its kind: {first:8.0} ns; with known expressions {again:.0} ns");
}
