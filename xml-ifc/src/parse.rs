//! Reading User-Data. What the schema (TS 29.228 Annex E) does not know is passed over, since a newer HSS may write it;
//! what a profile cannot do without is an error. Nothing is fetched and nothing expands: a DTD is refused.

use crate::{
    ApplicationServer, DefaultHandling, Ifc, ImsSubscription, ProfilePart, PublicIdentity, ServiceProfile, SharedSets,
    Spt, SptKind, TriggerPoint, XmlError,
};
use roxmltree::{Document, Node, ParsingOptions};

/// Larger documents are refused unread.
pub const MAX_BYTES: usize = 512 * 1024;
/// Elements, texts and comments in one document.
const MAX_NODES: u32 = 50_000;
/// How deep elements may nest: the schema needs 8.
const MAX_DEPTH: usize = 32;
/// Bytes of one opening tag: the schema has no attributes, and comparing thousands of them takes quadratic time.
const MAX_TAG: usize = 4096;

/// Reads an `IMSSubscription` document in UTF-8.
pub fn parse(xml: &[u8]) -> Result<ImsSubscription, XmlError> {
    let document = document(readable(xml)?)?;
    let root = document.root_element();
    if root.tag_name().name() != "IMSSubscription" {
        return Err(refuse(format!("the root element is {:?}, not IMSSubscription", clip(root.tag_name().name()))));
    }
    subscription(root)
}

/// Reads `InitialFilterCriteria` elements: one or several, by themselves or in whatever stands around them.
pub fn parse_criteria(xml: &str) -> Result<Vec<Ifc>, XmlError> {
    let text = readable(xml.as_bytes())?;
    // Several have no root.
    let text = text.strip_prefix("<?xml").and_then(|rest| rest.split_once("?>")).map_or(text, |(_, rest)| rest);
    let rooted = format!("<Criteria>{text}</Criteria>");
    let document = document(&rooted)?;
    let found = document.descendants().filter(|n| n.is_element() && n.tag_name().name() == "InitialFilterCriteria");
    let criteria = found.map(ifc).collect::<Result<Vec<_>, _>>()?;
    if criteria.is_empty() { Err(refuse("there is no InitialFilterCriteria element")) } else { Ok(criteria) }
}

/// Reads a file of shared sets: elements with a `SetID` (or `SharedIFCSetID`) and `InitialFilterCriteria`, whatever they are called.
pub fn parse_shared_sets(xml: &[u8]) -> Result<SharedSets, XmlError> {
    let document = document(readable(xml)?)?;
    let mut sets = SharedSets::default();
    for set in document.root_element().children().filter(Node::is_element) {
        let id = child(set, "SetID").or_else(|| child(set, "SharedIFCSetID"));
        let id = number(id.ok_or_else(|| missing(set, "SetID"))?, "SetID")?;
        let criteria = children(set, "InitialFilterCriteria").map(ifc).collect::<Result<Vec<_>, _>>()?;
        sets.insert(id, criteria)?;
    }
    Ok(sets)
}

fn readable(xml: &[u8]) -> Result<&str, XmlError> {
    if xml.len() > MAX_BYTES {
        return Err(refuse(format!("the profile has {} bytes, more than the {MAX_BYTES} allowed", xml.len())));
    }
    let text = std::str::from_utf8(xml).map_err(|_| refuse("the profile is not in UTF-8"))?;
    // Some stacks end the octet string with a NUL, and a byte order mark may lead it.
    Ok(text.trim_start_matches('\u{feff}').trim_matches(|c: char| c == '\0' || c.is_whitespace()))
}

fn document(text: &str) -> Result<Document<'_>, XmlError> {
    check_depth(text)?;
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).map_err(no_xml)
}

fn subscription(root: Node<'_, '_>) -> Result<ImsSubscription, XmlError> {
    let service_profiles = children(root, "ServiceProfile").map(service_profile).collect::<Result<Vec<_>, _>>()?;
    if service_profiles.is_empty() {
        return Err(refuse("the subscription has no ServiceProfile"));
    }
    Ok(ImsSubscription { private_id: need(root, "PrivateID")?, service_profiles })
}

fn service_profile(node: Node<'_, '_>) -> Result<ServiceProfile, XmlError> {
    let public_identities = children(node, "PublicIdentity").map(public_identity).collect::<Result<Vec<_>, _>>()?;
    if public_identities.is_empty() {
        return Err(refuse("a ServiceProfile has no PublicIdentity"));
    }
    let subscribed_media_profile = child(node, "CoreNetworkServicesAuthorization")
        .map(|cn| optional_number(cn, "SubscribedMediaProfileId"))
        .transpose()?
        .flatten();
    let shared_ifc_sets =
        extended(node, "SharedIFCSetID").map(|id| number(id, "SharedIFCSetID")).collect::<Result<Vec<_>, _>>()?;
    Ok(ServiceProfile {
        public_identities,
        criteria: children(node, "InitialFilterCriteria").map(ifc_or_why).collect(),
        shared_ifc_sets,
        subscribed_media_profile,
    })
}

fn public_identity(node: Node<'_, '_>) -> Result<PublicIdentity, XmlError> {
    let text = |name| extended(node, name).next().map(trimmed).filter(|t| !t.is_empty());
    let identity_type =
        extended(node, "IdentityType").next().map(|n| number_up_to(n, "IdentityType", 255)).transpose()?;
    Ok(PublicIdentity {
        identity: need(node, "Identity")?,
        barred: child(node, "BarringIndication").map(|n| boolean(n, "BarringIndication")).transpose()?.unwrap_or(false),
        identity_type,
        wildcarded: text("WildcardedPSI").or_else(|| text("WildcardedIMPU")),
        display_name: text("DisplayName"),
        alias_group: text("AliasIdentityGroupID"),
    })
}

/// One that makes no sense is no reason to let a user have no service at all.
fn ifc_or_why(node: Node<'_, '_>) -> Ifc {
    ifc(node).unwrap_or_else(|XmlError(reason)| {
        let unusable = Spt { negated: false, groups: vec![0], kind: SptKind::Unusable(reason) };
        let server = child(node, "ApplicationServer").and_then(|server| child(server, "ServerName"));
        Ifc {
            priority: child(node, "Priority").and_then(|n| number(n, "Priority").ok()).unwrap_or(u32::MAX),
            profile_part: None,
            trigger: Some(TriggerPoint { cnf: true, spts: vec![unusable] }),
            server: ApplicationServer { server_name: server.map(trimmed).unwrap_or_default(), ..Default::default() },
        }
    })
}

fn ifc(node: Node<'_, '_>) -> Result<Ifc, XmlError> {
    let part = child(node, "ProfilePartIndicator").map(|n| number_up_to(n, "ProfilePartIndicator", 1)).transpose()?;
    let server = child(node, "ApplicationServer").ok_or_else(|| missing(node, "ApplicationServer"))?;
    Ok(Ifc {
        priority: child(node, "Priority")
            .map(|n| number(n, "Priority"))
            .transpose()?
            .ok_or_else(|| missing(node, "Priority"))?,
        profile_part: part.map(|p| if p == 0 { ProfilePart::Registered } else { ProfilePart::Unregistered }),
        trigger: child(node, "TriggerPoint").map(trigger_point).transpose()?,
        server: application_server(server)?,
    })
}

fn application_server(node: Node<'_, '_>) -> Result<ApplicationServer, XmlError> {
    let handling = child(node, "DefaultHandling").map(|n| number_up_to(n, "DefaultHandling", 1)).transpose()?;
    Ok(ApplicationServer {
        server_name: need(node, "ServerName")?,
        default_handling: match handling {
            Some(1) => DefaultHandling::SessionTerminated,
            _ => DefaultHandling::SessionContinued,
        },
        // Handed to the application server as it is: its white space may mean something.
        service_info: child(node, "ServiceInfo").map(text_of).filter(|t| !t.trim().is_empty()),
        include_register_request: extended(node, "IncludeRegisterRequest").next().is_some(),
        include_register_response: extended(node, "IncludeRegisterResponse").next().is_some(),
    })
}

fn trigger_point(node: Node<'_, '_>) -> Result<TriggerPoint, XmlError> {
    let cnf = child(node, "ConditionTypeCNF").ok_or_else(|| missing(node, "ConditionTypeCNF"))?;
    Ok(TriggerPoint {
        cnf: boolean(cnf, "ConditionTypeCNF")?,
        spts: children(node, "SPT").map(spt).collect::<Result<Vec<_>, _>>()?,
    })
}

fn spt(node: Node<'_, '_>) -> Result<Spt, XmlError> {
    let mut groups = children(node, "Group").map(|n| number(n, "Group")).collect::<Result<Vec<_>, _>>()?;
    if groups.is_empty() {
        groups.push(0);
    }
    Ok(Spt {
        negated: child(node, "ConditionNegated").map(|n| boolean(n, "ConditionNegated")).transpose()?.unwrap_or(false),
        groups,
        kind: spt_kind(node)?,
    })
}

fn spt_kind(node: Node<'_, '_>) -> Result<SptKind, XmlError> {
    for n in node.children().filter(Node::is_element) {
        return Ok(match n.tag_name().name() {
            "RequestURI" => SptKind::RequestUri(trimmed(n)),
            "Method" => SptKind::Method {
                method: trimmed(n),
                registration_types: extended(node, "RegistrationType")
                    .map(|t| number_up_to(t, "RegistrationType", 2))
                    .collect::<Result<Vec<_>, _>>()?,
            },
            "SIPHeader" => SptKind::SipHeader {
                header: need(n, "Header")?,
                content: child(n, "Content").map(trimmed).filter(|t| !t.is_empty()),
            },
            "SessionCase" => SptKind::SessionCase(number_up_to(n, "SessionCase", 4)?),
            "SessionDescription" => SptKind::SessionDescription {
                line: need(n, "Line")?,
                content: child(n, "Content").map(trimmed).filter(|t| !t.is_empty()),
            },
            _ => continue,
        });
    }
    // Passing it over would change what the trigger point means.
    Err(refuse("an SPT has no condition of a kind known here"))
}

fn children<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |n| n.is_element() && n.tag_name().name() == name)
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> Option<Node<'a, 'i>> {
    children(node, name).next()
}

/// Elements of that name inside the `Extension`s of `node`, at whatever level of extension: each release put its
/// elements one `Extension` deeper, and not every HSS counts right.
fn extended<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    let mut levels: Vec<Node<'a, 'i>> = children(node, "Extension").collect();
    let mut next = 0;
    while let Some(level) = levels.get(next).copied() {
        levels.extend(children(level, "Extension"));
        next += 1;
    }
    levels.into_iter().flat_map(move |level| children(level, name))
}

/// All character data directly inside, CDATA sections and entities included.
fn text_of(node: Node<'_, '_>) -> String {
    node.children().filter(Node::is_text).filter_map(|n| n.text()).collect()
}

fn trimmed(node: Node<'_, '_>) -> String {
    text_of(node).trim().to_owned()
}

fn need(node: Node<'_, '_>, name: &'static str) -> Result<String, XmlError> {
    child(node, name).map(trimmed).filter(|t| !t.is_empty()).ok_or_else(|| missing(node, name))
}

fn number(node: Node<'_, '_>, name: &str) -> Result<u32, XmlError> {
    let text = trimmed(node);
    text.parse().map_err(|_| refuse(format!("{name} is {:?}, not a number", clip(&text))))
}

fn number_up_to(node: Node<'_, '_>, name: &str, most: u8) -> Result<u8, XmlError> {
    let value = number(node, name)?;
    match u8::try_from(value) {
        Ok(v) if v <= most => Ok(v),
        _ => Err(refuse(format!("{name} is {value}, more than {most}"))),
    }
}

fn optional_number(node: Node<'_, '_>, name: &'static str) -> Result<Option<u32>, XmlError> {
    child(node, name).map(|n| number(n, name)).transpose()
}

/// `xs:boolean`: 0, 1, true, false.
fn boolean(node: Node<'_, '_>, name: &str) -> Result<bool, XmlError> {
    match trimmed(node).to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        other => Err(refuse(format!("{name} is {:?}, not 0 or 1", clip(other)))),
    }
}

/// Refuses deep nesting and endless tags before the tree is built.
fn check_depth(text: &str) -> Result<(), XmlError> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0usize, 0usize);
    while let Some(rest) = text.get(at..) {
        let Some(open) = rest.find('<') else { break };
        at += open + 1;
        let skip = |end: &str| text.get(at..).and_then(|t| t.find(end)).map_or(text.len(), |i| at + i + end.len());
        match bytes.get(at) {
            Some(b'/') => depth = depth.saturating_sub(1),
            Some(b'?') => at = skip("?>"),
            Some(b'!') if rest[open..].starts_with("<!--") => at = skip("-->"),
            Some(b'!') if rest[open..].starts_with("<![CDATA[") => at = skip("]]>"),
            Some(b'!') => return Err(refuse("the profile has a document type declaration: take it out")),
            _ => {
                let length = tag_length(&bytes[at.min(bytes.len())..])
                    .ok_or_else(|| refuse(format!("a tag is longer than {MAX_TAG} bytes or has no end")))?;
                at += length;
                depth += usize::from(!text.get(..at).is_some_and(|t| t.ends_with("/>")));
            }
        }
        if depth > MAX_DEPTH {
            return Err(refuse(format!("elements nest deeper than {MAX_DEPTH}")));
        }
    }
    Ok(())
}

/// Up to and with the `>` that stands outside of quotes.
fn tag_length(bytes: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (i, &byte) in bytes.iter().take(MAX_TAG).enumerate() {
        match quote {
            Some(q) if q == byte => quote = None,
            Some(_) => {}
            None if byte == b'>' => return Some(i + 1),
            None if matches!(byte, b'"' | b'\'') => quote = Some(byte),
            None => {}
        }
    }
    None
}

fn missing(node: Node<'_, '_>, name: &str) -> XmlError {
    refuse(format!("{} has no {name}", clip(node.tag_name().name())))
}

/// The parser tells tags as they are, and an end tag may be as long as the document.
fn no_xml(error: roxmltree::Error) -> XmlError {
    const MOST: usize = 200;
    let (at, text) = (error.pos(), error.to_string());
    match text.char_indices().nth(MOST) {
        None => refuse(format!("the profile is no XML: {text}")),
        Some((end, _)) => refuse(format!("the profile is no XML, at {at}: {}…", &text[..end])),
    }
}

fn refuse(reason: impl Into<String>) -> XmlError {
    XmlError(reason.into())
}

/// Enough of a value to find it, not enough to flood a log.
fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}
