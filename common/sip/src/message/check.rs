//! What every element must check before it believes a message (RFC 3261 8.1.1, 8.2.2, 16.3 item 1, 18.1.2).

use super::{Line, Message, ParseError};
use crate::Name;
use crate::headers::{CSeq, CallId, Contact, From, MaxForwards, RecordRoute, Route, To, TypedHeader, Via};
use ims_core::uri::Uri;

/// CSeq numbers are below 2^31 (RFC 3261 8.1.1.5).
pub const MAX_CSEQ: u32 = (1 << 31) - 1;

impl Message {
    /// The mandatory headers are there, once, and readable; so are those that route the message. The status to answer
    /// with is in the error.
    pub fn check(&self) -> Result<(), ParseError> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        if self.is_request() {
            Uri::parse(self.uri()).map_err(ParseError::Uri)?;
        }
        self.check_presence()?;
        self.check_all::<Via<'_>>()?;
        self.first::<From<'_>>()?;
        self.first::<To<'_>>()?;
        self.first::<CallId<'_>>()?;
        let cseq = self.require::<CSeq<'_>>()?;
        if matches!(self.start.line, Line::Request { .. }) && cseq.method != self.method() {
            return Err(ParseError::MethodMismatch);
        }
        self.first::<MaxForwards>()?;
        self.check_all::<Contact<'_>>()?;
        self.check_all::<Route<'_>>()?;
        self.check_all::<RecordRoute<'_>>()?;
        Ok(())
    }

    /// One look at the names: what must be there, and what must not be there twice (RFC 3261 7.3.1, 20).
    fn check_presence(&self) -> Result<(), ParseError> {
        const ONCE: [Name; 5] = [Name::From, Name::To, Name::CallId, Name::CSeq, Name::MaxForwards];
        let mut seen = [false; ONCE.len()];
        let mut via = false;
        for field in &self.fields {
            via |= field.name == Name::Via;
            if let Some(slot) = ONCE.iter().position(|n| *n == field.name).and_then(|i| seen.get_mut(i)) {
                if *slot {
                    return Err(ParseError::Repeated(field.name));
                }
                *slot = true;
            }
        }
        if !via {
            return Err(ParseError::Missing(Name::Via));
        }
        match ONCE.iter().zip(seen).find(|(name, seen)| !seen && **name != Name::MaxForwards) {
            Some((name, _)) => Err(ParseError::Missing(*name)),
            None => Ok(()),
        }
    }

    fn check_all<'a, H: TypedHeader<'a>>(&'a self) -> Result<(), ParseError> {
        self.each::<H>().try_for_each(|value| value.map(drop)).map_err(ParseError::Header)
    }
}
