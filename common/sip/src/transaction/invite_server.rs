//! The INVITE server transaction (RFC 3261 17.2.1 and RFC 6026 7.1).

use super::{ServerDue, SipTimers, due};
use ims_core::Time;
use ims_core::time::earliest;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Proceeding,
    /// We sent a 2xx: its ACK is none of our business, repeated INVITEs are absorbed.
    Accepted,
    /// We sent an error, and repeat it until the ACK.
    Completed,
    Confirmed,
}

#[derive(Debug)]
pub struct InviteServer {
    state: State,
    timers: SipTimers,
    reliable: bool,
    patience: Duration,
    interval: Duration,
    /// The 200 ms until 100, then timer G.
    resend_at: Option<Time>,
    /// The wait for an answer of ours, then timer H, I or L.
    end_at: Time,
}

/// When the transaction says 100 by itself.
const TRYING_AFTER: Duration = Duration::from_millis(200);

impl InviteServer {
    /// `patience`: for how long after the last provisional answer the next one is waited for.
    pub fn start(timers: SipTimers, reliable: bool, patience: Duration, now: Time) -> Self {
        Self {
            state: State::Proceeding,
            timers,
            reliable,
            patience,
            interval: timers.t1,
            resend_at: Some(now + TRYING_AFTER),
            end_at: now + patience,
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn deadline(&self) -> Option<Time> {
        earliest(self.resend_at, Some(self.end_at))
    }

    /// The INVITE came again: whether the last answer, if there is one, is repeated.
    pub fn on_repeated(&self) -> bool {
        matches!(self.state, State::Proceeding | State::Completed)
    }

    /// We answer: whether it is to be sent.
    pub fn on_answer(&mut self, status: u16, now: Time) -> bool {
        match (self.state, status) {
            (State::Proceeding, ..200) => {
                self.resend_at = None;
                self.end_at = now + self.patience;
            }
            (State::Proceeding, 200..300) => {
                self.state = State::Accepted;
                self.resend_at = None;
                self.end_at = now + self.timers.absorb();
            }
            (State::Proceeding, _) => {
                self.state = State::Completed;
                self.resend_at = (!self.reliable).then(|| now + self.timers.t1);
                self.end_at = now + self.timers.t1_64();
            }
            (State::Accepted, 200..300) => {}
            _ => return false,
        }
        true
    }

    /// An ACK that belongs to this INVITE: whether it is for the user of the transaction.
    pub fn on_ack(&mut self, now: Time) -> bool {
        if self.state == State::Completed {
            self.state = State::Confirmed;
            self.resend_at = None;
            self.end_at = if self.reliable { now } else { now + self.timers.t4 };
        }
        self.state == State::Accepted
    }

    pub fn on_timer(&mut self, now: Time) -> ServerDue {
        if self.end_at <= now {
            return match self.state {
                State::Proceeding => ServerDue::Unanswered,
                State::Completed => ServerDue::Unacknowledged,
                State::Accepted | State::Confirmed => ServerDue::Ended,
            };
        }
        if !due(self.resend_at, now) {
            return ServerDue::Nothing;
        }
        if self.state == State::Proceeding {
            self.resend_at = None;
            return ServerDue::Trying;
        }
        self.interval = (self.interval * 2).min(self.timers.t2);
        self.resend_at = Some(now + self.interval);
        ServerDue::Resend
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Time = Time::from_secs(100);

    fn start(reliable: bool) -> InviteServer {
        InviteServer::start(SipTimers::CORE, reliable, Duration::from_secs(600), T0)
    }

    fn run(mut tx: InviteServer) -> (Vec<u64>, u64, ServerDue) {
        let mut resent = Vec::new();
        loop {
            let now = tx.deadline().unwrap();
            let ms = (now.micros() - T0.micros()) / 1000;
            match tx.on_timer(now) {
                ServerDue::Resend | ServerDue::Trying => resent.push(ms),
                ServerDue::Nothing => {}
                end => return (resent, ms, end),
            }
        }
    }

    #[test]
    fn says_100_after_200_ms_unless_answered_before() {
        let mut tx = start(false);
        assert_eq!(tx.on_timer(T0 + Duration::from_millis(200)), ServerDue::Trying);
        let mut tx = start(false);
        tx.on_answer(180, T0);
        assert_eq!(run(tx), (vec![], 600_000, ServerDue::Unanswered));
    }

    #[test]
    fn an_error_is_repeated_by_timer_g_until_timer_h() {
        let mut tx = start(false);
        assert!(tx.on_answer(486, T0));
        let resent = vec![500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500];
        assert_eq!(run(tx), (resent, 32_000, ServerDue::Unacknowledged));
    }

    #[test]
    fn on_a_reliable_transport_the_error_is_sent_once_but_the_ack_still_awaited() {
        let mut tx = start(true);
        tx.on_answer(486, T0);
        assert_eq!(run(tx), (vec![], 32_000, ServerDue::Unacknowledged));
    }

    #[test]
    fn the_ack_confirms_and_timer_i_frees() {
        for (reliable, end) in [(false, 5000), (true, 0)] {
            let mut tx = start(reliable);
            tx.on_answer(486, T0);
            assert!(!tx.on_ack(T0) && !tx.on_ack(T0), "both absorbed");
            assert!(!tx.on_repeated() && !tx.on_answer(200, T0));
            assert_eq!(run(tx), (vec![], end, ServerDue::Ended));
        }
    }

    #[test]
    fn after_a_2xx_more_2xx_pass_and_repeated_invites_are_absorbed_until_timer_l() {
        let mut tx = start(false);
        assert!(tx.on_answer(200, T0) && tx.on_answer(200, T0));
        assert!(!tx.on_answer(486, T0) && !tx.on_repeated());
        assert!(tx.on_ack(T0), "an ACK with the branch of the INVITE is for the user");
        assert_eq!(run(tx), (vec![], 32_000, ServerDue::Ended));
    }
}
