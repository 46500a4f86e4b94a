//! Writing User-Data with the element order of the schema (TS 29.228 Annex E), without namespace, as phones' and other
//! vendors' elements expect it.

use crate::{
    ApplicationServer, DefaultHandling, Ifc, ImsSubscription, ProfilePart, PublicIdentity, ServiceProfile, Spt,
    SptKind, TriggerPoint,
};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use std::io;

/// `IdentityType` of a wildcarded PSI: its wildcard has an element of its own.
const WILDCARDED_PSI: u8 = 2;

type Out = Writer<Vec<u8>>;

/// The document, with an XML declaration and no white space between elements.
pub fn write(subscription: &ImsSubscription) -> String {
    let mut out = Writer::new(Vec::with_capacity(1024));
    // A Vec<u8> takes every write.
    let _ = document(&mut out, subscription);
    String::from_utf8(out.into_inner()).unwrap_or_default()
}

fn document(out: &mut Out, subscription: &ImsSubscription) -> io::Result<()> {
    out.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    element(out, "IMSSubscription", |out| {
        leaf(out, "PrivateID", &subscription.private_id)?;
        subscription.service_profiles.iter().try_for_each(|p| service_profile(out, p))
    })
}

fn service_profile(out: &mut Out, profile: &ServiceProfile) -> io::Result<()> {
    element(out, "ServiceProfile", |out| {
        profile.public_identities.iter().try_for_each(|i| public_identity(out, i))?;
        profile.criteria.iter().try_for_each(|c| ifc(out, c))?;
        if let Some(id) = profile.subscribed_media_profile {
            element(out, "CoreNetworkServicesAuthorization", |out| leaf(out, "SubscribedMediaProfileId", id))?;
        }
        if profile.shared_ifc_sets.is_empty() {
            return Ok(());
        }
        element(out, "Extension", |out| {
            profile.shared_ifc_sets.iter().try_for_each(|id| leaf(out, "SharedIFCSetID", id))
        })
    })
}

fn public_identity(out: &mut Out, identity: &PublicIdentity) -> io::Result<()> {
    let is_psi = identity.identity_type == Some(WILDCARDED_PSI);
    let psi = identity.wildcarded.as_ref().filter(|_| is_psi);
    let wildcarded_impu = identity.wildcarded.as_ref().filter(|_| !is_psi);
    // Each release put its elements into an Extension inside the Extension of the one before.
    let third = wildcarded_impu.is_some();
    let second = third || identity.display_name.is_some() || identity.alias_group.is_some();
    let first = second || identity.identity_type.is_some() || psi.is_some();
    element(out, "PublicIdentity", |out| {
        if identity.barred {
            leaf(out, "BarringIndication", 1)?;
        }
        leaf(out, "Identity", &identity.identity)?;
        element_if(first, out, "Extension", |out| {
            optional(out, "IdentityType", identity.identity_type)?;
            optional(out, "WildcardedPSI", psi)?;
            element_if(second, out, "Extension", |out| {
                optional(out, "DisplayName", identity.display_name.as_ref())?;
                optional(out, "AliasIdentityGroupID", identity.alias_group.as_ref())?;
                element_if(third, out, "Extension", |out| optional(out, "WildcardedIMPU", wildcarded_impu))
            })
        })
    })
}

fn ifc(out: &mut Out, ifc: &Ifc) -> io::Result<()> {
    element(out, "InitialFilterCriteria", |out| {
        leaf(out, "Priority", ifc.priority)?;
        if let Some(trigger) = &ifc.trigger {
            trigger_point(out, trigger)?;
        }
        application_server(out, &ifc.server)?;
        let part = ifc.profile_part.map(|part| match part {
            ProfilePart::Registered => 0,
            ProfilePart::Unregistered => 1,
        });
        optional(out, "ProfilePartIndicator", part)
    })
}

fn application_server(out: &mut Out, server: &ApplicationServer) -> io::Result<()> {
    element(out, "ApplicationServer", |out| {
        leaf(out, "ServerName", &server.server_name)?;
        let handling = match server.default_handling {
            DefaultHandling::SessionContinued => 0,
            DefaultHandling::SessionTerminated => 1,
        };
        leaf(out, "DefaultHandling", handling)?;
        optional(out, "ServiceInfo", server.service_info.as_ref())?;
        let (request, response) = (server.include_register_request, server.include_register_response);
        element_if(request || response, out, "Extension", |out| {
            element_if(request, out, "IncludeRegisterRequest", |_| Ok(()))?;
            element_if(response, out, "IncludeRegisterResponse", |_| Ok(()))
        })
    })
}

fn trigger_point(out: &mut Out, trigger: &TriggerPoint) -> io::Result<()> {
    element(out, "TriggerPoint", |out| {
        leaf(out, "ConditionTypeCNF", u8::from(trigger.cnf))?;
        trigger.spts.iter().try_for_each(|s| spt(out, s))
    })
}

fn spt(out: &mut Out, spt: &Spt) -> io::Result<()> {
    element(out, "SPT", |out| {
        leaf(out, "ConditionNegated", u8::from(spt.negated))?;
        spt.groups.iter().try_for_each(|g| leaf(out, "Group", g))?;
        match &spt.kind {
            SptKind::RequestUri(pattern) => leaf(out, "RequestURI", pattern),
            SptKind::SessionCase(case) => leaf(out, "SessionCase", case),
            SptKind::SipHeader { header, content } => element(out, "SIPHeader", |out| {
                leaf(out, "Header", header)?;
                optional(out, "Content", content.as_ref())
            }),
            SptKind::SessionDescription { line, content } => element(out, "SessionDescription", |out| {
                leaf(out, "Line", line)?;
                optional(out, "Content", content.as_ref())
            }),
            SptKind::Method { method, registration_types } => {
                leaf(out, "Method", method)?;
                element_if(!registration_types.is_empty(), out, "Extension", |out| {
                    registration_types.iter().try_for_each(|t| leaf(out, "RegistrationType", t))
                })
            }
        }
    })
}

fn element(out: &mut Out, name: &str, inside: impl FnOnce(&mut Out) -> io::Result<()>) -> io::Result<()> {
    out.create_element(name).write_inner_content(inside)?;
    Ok(())
}

fn element_if(
    wanted: bool,
    out: &mut Out,
    name: &str,
    inside: impl FnOnce(&mut Out) -> io::Result<()>,
) -> io::Result<()> {
    if wanted { element(out, name, inside) } else { Ok(()) }
}

fn leaf(out: &mut Out, name: &str, value: impl ToString) -> io::Result<()> {
    let text = escape(&value.to_string());
    out.create_element(name).write_text_content(BytesText::from_escaped(text))?;
    Ok(())
}

fn optional(out: &mut Out, name: &str, value: Option<impl ToString>) -> io::Result<()> {
    value.map_or(Ok(()), |value| leaf(out, name, value))
}

/// Escapes markup, keeps a carriage return from being read as a line feed, and drops the characters that XML 1.0 has no
/// way to carry.
fn escape(text: &str) -> String {
    let carried =
        |c: &char| !matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    let clean: String = text.chars().filter(carried).collect();
    quick_xml::escape::escape(&clean).replace('\r', "&#13;")
}
