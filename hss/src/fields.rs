//! Reading the JSON of commands so that each mistake names its field.

use ims_core::command::Problem;
use ims_core::hex;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// The members of an object, taken one by one; what is left over in the end is a mistake.
pub(crate) struct Fields {
    members: Map<String, Value>,
    /// Where this object stands, e.g. `private_identities[0].`.
    place: String,
}

pub(crate) type Result<T> = std::result::Result<T, Problem>;
type Bytes = Zeroizing<Vec<u8>>;

impl Fields {
    pub(crate) fn new(value: &Value, place: &str) -> Result<Self> {
        match value {
            Value::Object(members) => Ok(Self { members: members.clone(), place: place.into() }),
            _ => Err(Problem::invalid(place.trim_end_matches('.'), "give a JSON object")),
        }
    }

    pub(crate) fn invalid(&self, name: &str, detail: impl Into<String>) -> Problem {
        Problem::invalid(&format!("{}{name}", self.place), detail)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// `Some(Null)` where it is given as null.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name)
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.invalid(name, "give a string")),
        }
    }

    pub(crate) fn bool(&mut self, name: &str) -> Result<Option<bool>> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(b)),
            Some(_) => Err(self.invalid(name, "give true or false")),
        }
    }

    pub(crate) fn number(&mut self, name: &str, most: u64) -> Result<Option<u64>> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
                let number = number.filter(|n| *n <= most);
                number.map(Some).ok_or_else(|| self.invalid(name, format!("give a number up to {most}")))
            }
        }
    }

    pub(crate) fn list(&mut self, name: &str, most: usize) -> Result<Option<Vec<Value>>> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(list)) if list.len() <= most => Ok(Some(list)),
            Some(Value::Array(_)) => Err(self.invalid(name, format!("{most} entries at most"))),
            Some(_) => Err(self.invalid(name, "give a list")),
        }
    }

    /// Anything that serde reads.
    pub(crate) fn value<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value).map(Some).map_err(|e| self.invalid(name, e.to_string())),
        }
    }

    /// Exactly as many bytes as one of `lengths` says. The problem does not repeat what was given: it may be most of a key.
    pub(crate) fn hex(&mut self, name: &str, lengths: &[usize]) -> Result<Option<Bytes>> {
        let Some(text) = self.text(name)?.map(Zeroizing::new) else { return Ok(None) };
        let allowed: Vec<String> = lengths.iter().map(|bytes| (2 * bytes).to_string()).collect();
        let allowed = allowed.join(" or ");
        if !lengths.iter().any(|bytes| text.len() == 2 * bytes) {
            let count = text.chars().count();
            return Err(self.invalid(name, format!("give {allowed} hexadecimal digits; this has {count} characters")));
        }
        let wrong = || self.invalid(name, format!("give {allowed} hexadecimal digits and nothing else"));
        hex::decode(&text).map(|bytes| Some(Zeroizing::new(bytes))).ok_or_else(wrong)
    }

    pub(crate) fn finish(self) -> Result<()> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.invalid(name, "there is no such field here: correct its name or leave it out")),
        }
    }
}
