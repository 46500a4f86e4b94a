//! The non-INVITE server transaction (RFC 3261 17.2.2).

use super::{ServerDue, SipTimers};
use ims_core::Time;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Trying,
    Proceeding,
    Completed,
}

#[derive(Debug)]
pub struct Server {
    state: State,
    timers: SipTimers,
    reliable: bool,
    /// The wait for an answer of ours, then timer J.
    end_at: Time,
}

impl Server {
    /// `patience`: for how long an answer is waited for; the client has given up long before.
    pub fn start(timers: SipTimers, reliable: bool, patience: Duration, now: Time) -> Self {
        Self { state: State::Trying, timers, reliable, end_at: now + patience }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn deadline(&self) -> Option<Time> {
        Some(self.end_at)
    }

    /// The request came again: whether the last answer, if there is one, is repeated.
    pub fn on_repeated(&self) -> bool {
        self.state != State::Trying
    }

    /// We answer: whether it is to be sent.
    pub fn on_answer(&mut self, status: u16, now: Time) -> bool {
        match self.state {
            State::Completed => false,
            State::Trying | State::Proceeding if status < 200 => {
                self.state = State::Proceeding;
                true
            }
            State::Trying | State::Proceeding => {
                self.state = State::Completed;
                // Timer J is zero on a reliable transport, yet for T1 a transport error must still find the answer
                // (RFC 3261 18.2.2: a new connection is opened when the old one is gone).
                self.end_at = now + if self.reliable { self.timers.t1 } else { self.timers.absorb() };
                true
            }
        }
    }

    pub fn on_timer(&mut self, now: Time) -> ServerDue {
        match self.state {
            _ if self.end_at > now => ServerDue::Nothing,
            State::Completed => ServerDue::Ended,
            State::Trying | State::Proceeding => ServerDue::Unanswered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Time = Time::from_secs(100);
    const PATIENCE: Duration = Duration::from_secs(300);

    fn start(reliable: bool) -> Server {
        Server::start(SipTimers::CORE, reliable, PATIENCE, T0)
    }

    #[test]
    fn repetitions_get_the_last_answer_once_there_is_one() {
        let mut tx = start(false);
        assert!(!tx.on_repeated());
        assert!(tx.on_answer(100, T0) && tx.on_repeated());
        assert!(tx.on_answer(200, T0) && tx.on_repeated());
        assert!(!tx.on_answer(500, T0), "there is one final answer");
    }

    #[test]
    fn timer_j_is_64_t1_and_next_to_nothing_on_a_reliable_transport() {
        for (reliable, end) in [(false, Duration::from_secs(32)), (true, Duration::from_millis(500))] {
            let mut tx = start(reliable);
            tx.on_answer(200, T0);
            assert_eq!(tx.deadline(), Some(T0 + end));
            assert_eq!(tx.on_timer(T0 + end), ServerDue::Ended);
        }
    }

    #[test]
    fn a_client_with_the_usual_t1_may_repeat_to_the_end() {
        let quick = SipTimers { t1: SipTimers::CORE.t1 / 2, ..SipTimers::CORE };
        let mut tx = Server::start(quick, false, PATIENCE, T0);
        tx.on_answer(200, T0);
        assert_eq!(tx.deadline(), Some(T0 + Duration::from_secs(32)));
    }

    #[test]
    fn an_answer_that_never_comes_does_not_hold_the_transaction_for_ever() {
        let mut tx = start(false);
        assert_eq!(tx.on_timer(T0), ServerDue::Nothing);
        assert_eq!(tx.on_timer(T0 + PATIENCE), ServerDue::Unanswered);
    }
}
