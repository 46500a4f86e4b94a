//! Writing User-Data with the element order of the schema (TS 29.228 Annex E), without namespace, as phones' and other
//! vendors' elements expect it.

use crate::{
    ApplicationServer, DefaultHandling, Ifc, ImsSubscription, ProfilePart, PublicIdentity, ServiceProfile, Spt,
    SptKind, TriggerPoint,
};
use std::fmt::{self, Display, Write};

/// `IdentityType` of a wildcarded PSI: its wildcard has an element of its own.
const WILDCARDED_PSI: u8 = 2;

/// The document, with an XML declaration and no white space between elements.
pub fn write(subscription: &ImsSubscription) -> String {
    let mut out = String::with_capacity(1024);
    out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    element(&mut out, "IMSSubscription", |out| {
        leaf(out, "PrivateID", &subscription.private_id);
        subscription.service_profiles.iter().for_each(|p| service_profile(out, p));
    });
    out
}

fn service_profile(out: &mut String, profile: &ServiceProfile) {
    element(out, "ServiceProfile", |out| {
        profile.public_identities.iter().for_each(|i| public_identity(out, i));
        profile.criteria.iter().for_each(|c| ifc(out, c));
        if let Some(id) = profile.subscribed_media_profile {
            element(out, "CoreNetworkServicesAuthorization", |out| leaf(out, "SubscribedMediaProfileId", id));
        }
        if profile.shared_ifc_sets.is_empty() {
            return;
        }
        element(out, "Extension", |out| profile.shared_ifc_sets.iter().for_each(|id| leaf(out, "SharedIFCSetID", id)))
    })
}

fn public_identity(out: &mut String, identity: &PublicIdentity) {
    let is_psi = identity.identity_type == Some(WILDCARDED_PSI);
    let psi = identity.wildcarded.as_ref().filter(|_| is_psi);
    let wildcarded_impu = identity.wildcarded.as_ref().filter(|_| !is_psi);
    // Each release put its elements into an Extension inside the Extension of the one before.
    let third = wildcarded_impu.is_some();
    let second = third || identity.display_name.is_some() || identity.alias_group.is_some();
    let first = second || identity.identity_type.is_some() || psi.is_some();
    element(out, "PublicIdentity", |out| {
        if identity.barred {
            leaf(out, "BarringIndication", 1);
        }
        leaf(out, "Identity", &identity.identity);
        element_if(first, out, "Extension", |out| {
            optional(out, "IdentityType", identity.identity_type);
            optional(out, "WildcardedPSI", psi);
            element_if(second, out, "Extension", |out| {
                optional(out, "DisplayName", identity.display_name.as_ref());
                optional(out, "AliasIdentityGroupID", identity.alias_group.as_ref());
                element_if(third, out, "Extension", |out| optional(out, "WildcardedIMPU", wildcarded_impu))
            })
        })
    })
}

fn ifc(out: &mut String, ifc: &Ifc) {
    element(out, "InitialFilterCriteria", |out| {
        leaf(out, "Priority", ifc.priority);
        if let Some(trigger) = &ifc.trigger {
            trigger_point(out, trigger);
        }
        application_server(out, &ifc.server);
        let part = ifc.profile_part.map(|part| match part {
            ProfilePart::Registered => 0,
            ProfilePart::Unregistered => 1,
        });
        optional(out, "ProfilePartIndicator", part)
    })
}

fn application_server(out: &mut String, server: &ApplicationServer) {
    element(out, "ApplicationServer", |out| {
        leaf(out, "ServerName", &server.server_name);
        let handling = match server.default_handling {
            DefaultHandling::SessionContinued => 0,
            DefaultHandling::SessionTerminated => 1,
        };
        leaf(out, "DefaultHandling", handling);
        optional(out, "ServiceInfo", server.service_info.as_ref());
        let (request, response) = (server.include_register_request, server.include_register_response);
        element_if(request || response, out, "Extension", |out| {
            element_if(request, out, "IncludeRegisterRequest", |_| {});
            element_if(response, out, "IncludeRegisterResponse", |_| {})
        })
    })
}

fn trigger_point(out: &mut String, trigger: &TriggerPoint) {
    element(out, "TriggerPoint", |out| {
        leaf(out, "ConditionTypeCNF", u8::from(trigger.cnf));
        trigger.spts.iter().for_each(|s| spt(out, s))
    })
}

fn spt(out: &mut String, spt: &Spt) {
    element(out, "SPT", |out| {
        leaf(out, "ConditionNegated", u8::from(spt.negated));
        spt.groups.iter().for_each(|g| leaf(out, "Group", g));
        match &spt.kind {
            SptKind::RequestUri(pattern) => leaf(out, "RequestURI", pattern),
            SptKind::SessionCase(case) => leaf(out, "SessionCase", case),
            // Without a condition it is not usable for who reads it either.
            SptKind::Unusable(_) => {}
            SptKind::SipHeader { header, content } => element(out, "SIPHeader", |out| {
                leaf(out, "Header", header);
                optional(out, "Content", content.as_ref())
            }),
            SptKind::SessionDescription { line, content } => element(out, "SessionDescription", |out| {
                leaf(out, "Line", line);
                optional(out, "Content", content.as_ref())
            }),
            SptKind::Method { method, registration_types } => {
                leaf(out, "Method", method);
                element_if(!registration_types.is_empty(), out, "Extension", |out| {
                    registration_types.iter().for_each(|t| leaf(out, "RegistrationType", t))
                })
            }
        }
    })
}

fn element(out: &mut String, name: &str, inside: impl FnOnce(&mut String)) {
    open(out, name);
    inside(out);
    close(out, name);
}

fn element_if(wanted: bool, out: &mut String, name: &str, inside: impl FnOnce(&mut String)) {
    if wanted {
        element(out, name, inside);
    }
}

fn leaf(out: &mut String, name: &str, value: impl Display) {
    open(out, name);
    // A String takes every write.
    let _ = write!(Text(out), "{value}");
    close(out, name);
}

fn optional(out: &mut String, name: &str, value: Option<impl Display>) {
    if let Some(value) = value {
        leaf(out, name, value);
    }
}

fn open(out: &mut String, name: &str) {
    out.push('<');
    out.push_str(name);
    out.push('>');
}

fn close(out: &mut String, name: &str) {
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

/// Escapes markup, keeps a carriage return from being read as a line feed, and drops the characters that XML 1.0 has no
/// way to carry.
struct Text<'a>(&'a mut String);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = 0;
        for (at, c) in text.char_indices() {
            let instead = match c {
                '<' => "&lt;",
                '>' => "&gt;",
                '&' => "&amp;",
                '\'' => "&apos;",
                '"' => "&quot;",
                '\r' => "&#13;",
                '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => "",
                _ => continue,
            };
            self.0.push_str(&text[plain..at]);
            self.0.push_str(instead);
            plain = at + c.len_utf8();
        }
        self.0.push_str(&text[plain..]);
        Ok(())
    }
}
