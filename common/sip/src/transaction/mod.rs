//! The four transaction machines of RFC 3261 section 17, with the Accepted states of RFC 6026.
//!
//! Each is a plain value: it is told what happened and at what time, and says what is to be done. It knows neither
//! messages nor sockets; [`crate::Endpoint`] keeps those. Every state has a deadline, so nothing lives for ever.

pub mod client;
pub mod invite_client;
pub mod invite_server;
pub mod server;

pub use client::Client;
pub use invite_client::InviteClient;
pub use invite_server::InviteServer;
pub use server::Server;

use ims_core::Time;
use std::time::Duration;

/// RFC 3261 17 timers; TS 24.229 7.7 gives other values towards the UE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SipTimers {
    pub t1: Duration,
    pub t2: Duration,
    pub t4: Duration,
}

impl SipTimers {
    /// RFC 3261: T1 500 ms, T2 4 s, T4 5 s.
    pub const CORE: Self =
        Self { t1: Duration::from_millis(500), t2: Duration::from_secs(4), t4: Duration::from_secs(5) };
    /// TS 24.229 7.7 towards a UE: T1 2 s, T2 16 s, T4 17 s.
    pub const UE: Self = Self { t1: Duration::from_secs(2), t2: Duration::from_secs(16), t4: Duration::from_secs(17) };

    /// Timers B, F, H and M.
    pub fn t1_64(&self) -> Duration {
        self.t1 * 64
    }

    /// Timers J and L: our T1 may be short, the other side repeats its request by its own.
    pub fn absorb(&self) -> Duration {
        self.t1_64().max(Self::CORE.t1_64())
    }

    /// Timer D: more than 32 s, and as long as the server may repeat its answer.
    pub fn d(&self) -> Duration {
        self.t1_64().max(Duration::from_secs(32))
    }
}

/// What a client transaction has to do with a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    /// Pass it to the user of the transaction.
    Deliver,
    /// A final error to an INVITE: acknowledge it and pass it on.
    AckAndDeliver,
    /// A repeated final error to an INVITE: acknowledge it again.
    Ack,
    /// A repetition: nothing to do.
    Absorb,
}

/// What a deadline of a client transaction means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientDue {
    /// Timer A or E: send the request once more.
    Resend,
    /// Timer B or F: no answer.
    TimedOut,
    /// Timer C of RFC 3261 16.6 item 11: it rings for too long, cancel it.
    Overdue,
    /// Timer D, K or M: forget the transaction.
    Ended,
    Nothing,
}

/// What a deadline of a server transaction means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerDue {
    /// 200 ms without an answer to an INVITE: send 100 (RFC 3261 17.2.1).
    Trying,
    /// Timer G: send the final answer once more.
    Resend,
    /// Timer H: the final answer was never acknowledged.
    Unacknowledged,
    /// The user of the transaction has not answered and is not expected to any more.
    Unanswered,
    /// Timer I, J or L: forget the transaction.
    Ended,
    Nothing,
}

fn due(at: Option<Time>, now: Time) -> bool {
    at.is_some_and(|at| at <= now)
}
