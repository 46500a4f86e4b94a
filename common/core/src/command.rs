//! Commands from the REST API and the console, and how they fail (RFC 9457).

use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommandId(pub u64);

/// A named call with JSON arguments, e.g. `subscriber.create`. `status` answers every node's snapshot.
#[derive(Clone)]
pub struct Command {
    pub id: CommandId,
    pub call: String,
    pub args: serde_json::Value,
}

/// Without the arguments: K and OPc of a subscriber may be among them.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("id", &self.id).field("call", &self.call).finish_non_exhaustive()
    }
}

/// An RFC 9457 problem. `field` names the member of the request that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    pub status: u16,
    /// A stable short name, e.g. `invalid-field`; becomes the `type` URN.
    pub kind: String,
    pub title: String,
    /// One sentence for the operator: what is wrong and what to do.
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub field: Option<String>,
}

impl Problem {
    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self {
            status: 400,
            kind: "invalid-field".into(),
            title: "A field is not valid".into(),
            detail: detail.into(),
            field: Some(field.into()),
        }
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self { status: 404, kind: "not-found".into(), title: "Not found".into(), detail: detail.into(), field: None }
    }

    pub fn conflict(field: Option<&str>, detail: impl Into<String>) -> Self {
        Self {
            status: 409,
            kind: "conflict".into(),
            title: "Conflicts with what exists".into(),
            detail: detail.into(),
            field: field.map(Into::into),
        }
    }

    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self {
            status: 503,
            kind: "unavailable".into(),
            title: "Cannot be done now".into(),
            detail: detail.into(),
            field: None,
        }
    }
}
