//! Methods: an open set (RFC 3261 7.1); names are case-sensitive.

use std::fmt;

macro_rules! methods {
    ($($variant:ident $text:literal),* $(,)?) => {
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Method<'a> { $($variant,)* Other(&'a str) }

        impl<'a> Method<'a> {
            pub fn parse(text: &'a str) -> Self {
                match text { $($text => Self::$variant,)* other => Self::Other(other) }
            }

            /// What is not UTF-8 is no method: empty.
            pub(crate) fn parse_bytes(text: &'a [u8]) -> Self {
                $(if text == $text.as_bytes() { return Self::$variant; })*
                Self::Other(std::str::from_utf8(text).unwrap_or_default())
            }

            pub fn as_str(&self) -> &'a str {
                match self { $(Self::$variant => $text,)* Self::Other(other) => other }
            }
        }
    };
}

methods! {
    Register "REGISTER", Invite "INVITE", Ack "ACK", Cancel "CANCEL", Bye "BYE", Options "OPTIONS", Prack "PRACK",
    Update "UPDATE", Info "INFO", Message "MESSAGE", Subscribe "SUBSCRIBE", Notify "NOTIFY", Publish "PUBLISH",
    Refer "REFER",
}

impl fmt::Display for Method<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
