//! The INVITE client transaction (RFC 3261 17.1.1 and RFC 6026 7.2).

use super::{ClientDue, Reaction, SipTimers, due};
use ims_core::Time;
use ims_core::time::earliest;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Calling,
    Proceeding,
    /// A 2xx came: repetitions of it and 2xx of other branches pass.
    Accepted,
    /// A final error came: repetitions are acknowledged here.
    Completed,
}

#[derive(Debug)]
pub struct InviteClient {
    state: State,
    timers: SipTimers,
    reliable: bool,
    /// RFC 3261 16.6 item 11.
    timer_c: Duration,
    interval: Duration,
    /// Timer A.
    resend_at: Option<Time>,
    /// Timer B, C, D or M by state; after a CANCEL the wait for the 487 (RFC 3261 9.1).
    end_at: Time,
    cancelled: bool,
}

impl InviteClient {
    /// The INVITE has been sent at `now`.
    pub fn start(timers: SipTimers, reliable: bool, timer_c: Duration, now: Time) -> Self {
        Self {
            state: State::Calling,
            timers,
            reliable,
            timer_c,
            interval: timers.t1,
            resend_at: (!reliable).then(|| now + timers.t1),
            end_at: now + timers.t1_64(),
            cancelled: false,
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn deadline(&self) -> Option<Time> {
        earliest(self.resend_at, Some(self.end_at))
    }

    /// A CANCEL is sent at `now`: a final answer must follow within 64 T1.
    pub fn on_cancel(&mut self, now: Time) {
        if self.state == State::Proceeding {
            self.cancelled = true;
            self.end_at = now + self.timers.t1_64();
        }
    }

    pub fn on_response(&mut self, status: u16, now: Time) -> Reaction {
        match (self.state, status) {
            (State::Calling | State::Proceeding, ..200) => {
                // 100 only says that the next hop has it: it starts timer C, but does not move it.
                let restart = !self.cancelled && (status > 100 || self.state == State::Calling);
                self.state = State::Proceeding;
                self.resend_at = None;
                if restart {
                    self.end_at = now + self.timer_c;
                }
                Reaction::Deliver
            }
            (State::Calling | State::Proceeding, 200..300) => {
                self.state = State::Accepted;
                self.resend_at = None;
                self.end_at = now + self.timers.t1_64();
                Reaction::Deliver
            }
            (State::Calling | State::Proceeding, _) => {
                self.state = State::Completed;
                self.resend_at = None;
                self.end_at = if self.reliable { now } else { now + self.timers.d() };
                Reaction::AckAndDeliver
            }
            (State::Accepted, 200..300) => Reaction::Deliver,
            (State::Completed, 300..) => Reaction::Ack,
            (State::Accepted | State::Completed, _) => Reaction::Absorb,
        }
    }

    pub fn on_timer(&mut self, now: Time) -> ClientDue {
        if self.end_at <= now {
            return match self.state {
                State::Accepted | State::Completed => ClientDue::Ended,
                State::Proceeding if !self.cancelled => ClientDue::Overdue,
                State::Proceeding | State::Calling => ClientDue::TimedOut,
            };
        }
        if !due(self.resend_at, now) {
            return ClientDue::Nothing;
        }
        self.interval *= 2;
        self.resend_at = Some(now + self.interval);
        ClientDue::Resend
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Time = Time::from_secs(100);
    const C: Duration = Duration::from_secs(190);

    fn start(reliable: bool) -> InviteClient {
        InviteClient::start(SipTimers::CORE, reliable, C, T0)
    }

    fn run(mut tx: InviteClient) -> (Vec<u64>, u64, ClientDue) {
        let mut resent = Vec::new();
        loop {
            let now = tx.deadline().unwrap();
            let ms = (now.micros() - T0.micros()) / 1000;
            match tx.on_timer(now) {
                ClientDue::Resend => resent.push(ms),
                ClientDue::Nothing => {}
                end => return (resent, ms, end),
            }
        }
    }

    #[test]
    fn timer_a_doubles_without_limit_and_timer_b_ends_it() {
        let all = (vec![500, 1500, 3500, 7500, 15500, 31500], 32_000, ClientDue::TimedOut);
        assert_eq!(run(start(false)), all);
    }

    #[test]
    fn reliable_transports_have_only_timer_b() {
        assert_eq!(run(start(true)), (vec![], 32_000, ClientDue::TimedOut));
    }

    #[test]
    fn a_provisional_answer_stops_the_repetitions_and_timer_c_watches() {
        let mut tx = start(false);
        assert_eq!(tx.on_response(100, T0), Reaction::Deliver);
        assert_eq!(tx.on_response(180, T0 + Duration::from_secs(10)), Reaction::Deliver);
        assert_eq!(run(tx), (vec![], 200_000, ClientDue::Overdue));
    }

    #[test]
    fn a_100_does_not_move_timer_c() {
        let mut tx = start(false);
        tx.on_response(100, T0);
        tx.on_response(100, T0 + Duration::from_secs(10));
        assert_eq!(run(tx).1, 190_000);
    }

    #[test]
    fn every_2xx_passes_until_timer_m() {
        let mut tx = start(false);
        assert_eq!(tx.on_response(200, T0), Reaction::Deliver);
        assert_eq!(tx.on_response(200, T0), Reaction::Deliver);
        assert_eq!(tx.on_response(180, T0), Reaction::Absorb);
        assert_eq!(tx.on_response(486, T0), Reaction::Absorb);
        assert_eq!(run(tx), (vec![], 32_000, ClientDue::Ended));
    }

    #[test]
    fn errors_are_acknowledged_each_time_and_delivered_once() {
        let mut tx = start(false);
        assert_eq!(tx.on_response(486, T0), Reaction::AckAndDeliver);
        assert_eq!(tx.on_response(486, T0), Reaction::Ack);
        assert_eq!(tx.on_response(200, T0), Reaction::Absorb);
        assert_eq!(run(tx), (vec![], 32_000, ClientDue::Ended));
        let mut tx = start(true);
        tx.on_response(486, T0);
        assert_eq!(run(tx).1, 0, "timer D is zero on a reliable transport");
    }

    #[test]
    fn after_a_cancel_the_487_has_64_t1_to_come() {
        let mut tx = start(false);
        tx.on_response(180, T0);
        tx.on_cancel(T0);
        tx.on_response(183, T0);
        assert_eq!(run(tx), (vec![], 32_000, ClientDue::TimedOut));
    }
}
