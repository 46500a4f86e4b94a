//! What the operator is told of criteria: which of them a request meets and why not the others (`ifc.explain`), and what is wrong
//! with those of profiles.

use crate::Scscf;
use crate::profile::{Criteria, Profile};
use crate::registrar::Registration;
use ims_core::{Impu, Problem};
use ims_sip::{Message, Method, Name};
use serde::Deserialize;
use serde_json::{Value, json};
use xml_ifc::trigger::{RegistrationType, RequestView, SessionCase, explain};

/// Findings that are remembered as told.
const MOST_TOLD: usize = 1000;

/// The arguments of `ifc.explain`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    /// The served user.
    impu: String,
    /// A request; line ends may be those of a text file, and Content-Length is not looked at.
    #[serde(default)]
    message: Option<String>,
    /// Instead of that of the message.
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    uri: Option<String>,
    /// Not given: terminating when the Request-URI is the user.
    #[serde(default)]
    case: Option<Case>,
    /// Not given: as it is.
    #[serde(default)]
    registered: Option<bool>,
    #[serde(default)]
    registration: Option<Registering>,
    /// The user's profile in the HSS (User-Data): for who is not registered here.
    #[serde(default)]
    profile: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Case {
    Originating,
    Terminating,
    OriginatingCdiv,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Registering {
    Initial,
    Reregistration,
    Deregistration,
}

impl Scscf {
    /// Counts what is wrong with criteria, and tells each thing once.
    pub(crate) fn tell_findings(&mut self) {
        for finding in self.registrar.take_findings() {
            self.count(finding.name());
            let text = finding.to_string();
            if self.findings_told.len() < MOST_TOLD && self.findings_told.insert(text) {
                match finding.is_error() {
                    true => tracing::warn!(finding = finding.name(), "{finding}"),
                    false => tracing::info!(finding = finding.name(), "{finding}"),
                }
            }
        }
    }

    /// Which criteria a request meets, and why not the others.
    pub(crate) fn explain(&mut self, args: &Value) -> Result<Value, Problem> {
        let question: Question =
            serde_json::from_value(args.clone()).map_err(|error| Problem::invalid("", error.to_string()))?;
        let impu = Impu::parse(&question.impu).map_err(|error| Problem::invalid("impu", error.to_string()))?;
        let message = question.request()?;
        let given = question.profile.as_deref().map(|xml| Profile::parse(xml.as_bytes(), None)).transpose();
        let given = given.map_err(|error| Problem::invalid("profile", error.to_string()))?;
        let given = given.map(|mut profile| {
            self.registrar.share(&mut profile);
            profile.criteria(&impu)
        });
        let registered = self.registrar.of_impu(&impu).next().map(|r: &Registration| r.profile.criteria(&impu));
        let (source, criteria) = match (&registered, &given) {
            (Some(criteria), _) => ("registration", criteria),
            (None, Some(criteria)) => ("hss", criteria),
            (None, None) => {
                let detail =
                    format!("{} is not registered here: ask where the HSS is too, or give profile", impu.as_str());
                return Err(Problem::not_found(detail));
            }
        };
        let view = question.view(&message, &impu, registered.is_some());
        let mut explanation = explain(criteria, &view);
        if let (Some(used), Some(given)) = (&registered, &given)
            && !is_same(used, given)
        {
            explanation.findings.push(
                "the HSS has other criteria than the registration, which goes by what it was given: it takes the new ones with the next SAR or PPR".into(),
            );
        }
        if let Some(fault) = message.fault() {
            explanation.findings.push(format!("the message is not well-formed: {fault}"));
        }
        let text = explanation.to_string();
        Ok(json!({ "impu": impu.as_str(), "source": source, "explanation": explanation, "text": text }))
    }
}

fn is_same(one: &Criteria, other: &Criteria) -> bool {
    one.len() == other.len() && (0..one.len()).all(|at| one.get(at) == other.get(at))
}

impl Question {
    fn request(&self) -> Result<Message, Problem> {
        let message = match (&self.message, &self.method) {
            (Some(text), _) => example(text)?,
            (None, Some(method)) => Message::request(method, self.uri.as_ref().unwrap_or(&self.impu)),
            (None, None) => return Err(Problem::invalid("message", "give a SIP request, or a method")),
        };
        match message.is_request() {
            true => Ok(message),
            false => Err(Problem::invalid("message", "this is a response: criteria are about requests")),
        }
    }

    fn view<'a>(&'a self, message: &'a Message, impu: &Impu, is_registered: bool) -> RequestView<'a> {
        let mut view = RequestView::new(message, SessionCase::Originating);
        view.method = self.method.as_deref().map_or(view.method, Method::parse);
        view.uri = self.uri.as_deref().unwrap_or(view.uri);
        if view.method == Method::Register {
            let kind = self.registration.unwrap_or(if is_registered {
                Registering::Reregistration
            } else {
                Registering::Initial
            });
            view.registration = Some(kind.into());
            return view;
        }
        let is_registered = self.registered.unwrap_or(is_registered);
        let is_to_user = Impu::parse(view.uri).is_ok_and(|to| to == *impu);
        view.case = match self.case.unwrap_or(if is_to_user { Case::Terminating } else { Case::Originating }) {
            Case::Originating if is_registered => SessionCase::Originating,
            Case::Originating => SessionCase::OriginatingUnregistered,
            Case::Terminating if is_registered => SessionCase::Terminating,
            Case::Terminating => SessionCase::TerminatingUnregistered,
            Case::OriginatingCdiv => SessionCase::OriginatingCdiv { is_registered },
        };
        view
    }
}

impl From<Registering> for RegistrationType {
    fn from(kind: Registering) -> Self {
        match kind {
            Registering::Initial => Self::Initial,
            Registering::Reregistration => Self::Reregistration,
            Registering::Deregistration => Self::Deregistration,
        }
    }
}

/// A message as it stands in a text file.
fn example(text: &str) -> Result<Message, Problem> {
    let text = text.replace("\r\n", "\n");
    let text = text.trim_start();
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let body = match body.trim_end() {
        "" => String::new(),
        body => body.replace('\n', "\r\n") + "\r\n",
    };
    let is_length = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default();
        Name::parse(name.trim().as_bytes()) == Name::ContentLength
    };
    let lines: Vec<&str> = head.trim_end().split('\n').filter(|line| !is_length(line)).collect();
    let whole = format!("{}\r\nContent-Length: {}\r\n\r\n{body}", lines.join("\r\n"), body.len());
    Message::parse(whole.into())
        .map_err(|error| Problem::invalid("message", format!("this is no SIP message: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    const PROFILE: &str = "<IMSSubscription><PrivateID>a@b</PrivateID><ServiceProfile><PublicIdentity><Identity>sip:a@b</Identity></PublicIdentity>\
        <InitialFilterCriteria><Priority>1</Priority><TriggerPoint><ConditionTypeCNF>1</ConditionTypeCNF><SPT><Group>0</Group>\
        <SessionDescription><Line>m</Line><Content>^audio</Content></SessionDescription></SPT></TriggerPoint><ApplicationServer>\
        <ServerName>sip:as@b</ServerName></ApplicationServer></InitialFilterCriteria><Extension><SharedIFCSetID>9</SharedIFCSetID></Extension>\
        </ServiceProfile></IMSSubscription>";

    fn ask(args: Value) -> Result<Value, Problem> {
        Scscf::new(Config::default()).unwrap().explain(&args)
    }

    #[test]
    fn a_message_from_a_text_file_is_taken_as_it_is_meant_and_the_case_follows() {
        let message =
            "INVITE sip:a@b SIP/2.0\nFrom: <sip:c@d>\nl: 7\nContent-Type: application/sdp\n\nv=0\nm=audio 1\n\n";
        let answer = ask(json!({ "impu": "sip:a@b", "message": message, "profile": PROFILE })).unwrap();
        let told = &answer["explanation"];
        assert_eq!(
            (&told["session_case"], &told["criteria"][0]["matches"]),
            (&json!("terminating, unregistered"), &json!(true))
        );
        assert!(answer["text"].as_str().unwrap().contains("shared iFC set 9 is not known"), "{answer}");
        let given = json!({ "impu": "sip:a@b", "message": message, "profile": PROFILE, "case": "originating-cdiv", "registered": true });
        assert_eq!(ask(given).unwrap()["explanation"]["session_case"], "originating after call diversion");
        let made = json!({ "impu": "sip:a@b", "method": "REGISTER", "profile": PROFILE });
        assert_eq!(ask(made).unwrap()["explanation"]["criteria"][0]["matches"], false);
    }

    #[test]
    fn what_is_wrong_with_criteria_is_counted_each_time_and_told_once() {
        let mut scscf = Scscf::new(Config::default()).unwrap();
        for priority in 1..=2 {
            let other = PROFILE.replace("<Priority>1<", &format!("<Priority>{priority}<"));
            scscf.explain(&json!({ "impu": "sip:a@b", "method": "INVITE", "profile": other })).unwrap();
        }
        scscf.tell_findings();
        scscf.tell_findings();
        assert_eq!((scscf.refusals.get("ifc-unknown-set"), scscf.findings_told.len()), (Some(&2), 1));
    }

    #[test]
    fn mistakes_name_their_field() {
        for (args, field) in [
            (json!({ "impu": "nobody", "method": "INVITE" }), Some("impu")),
            (json!({ "impu": "sip:a@b" }), Some("message")),
            (json!({ "impu": "sip:a@b", "message": "hello" }), Some("message")),
            (json!({ "impu": "sip:a@b", "message": "SIP/2.0 200 OK\nCSeq: 1 INVITE\n\n" }), Some("message")),
            (json!({ "impu": "sip:a@b", "method": "INVITE", "profile": "<x/>" }), Some("profile")),
            (json!({ "impu": "sip:a@b", "method": "INVITE", "case": "sideways" }), Some("")),
            (json!({ "impu": "sip:a@b", "method": "INVITE" }), None),
        ] {
            let problem = ask(args.clone()).unwrap_err();
            assert_eq!(problem.field.as_deref(), field, "{args}: {problem:?}");
        }
    }
}
