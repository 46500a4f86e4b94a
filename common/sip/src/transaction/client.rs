//! The non-INVITE client transaction (RFC 3261 17.1.2).

use super::{ClientDue, Reaction, SipTimers, due};
use ims_core::Time;
use ims_core::time::earliest;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Trying,
    Proceeding,
    Completed,
}

#[derive(Debug)]
pub struct Client {
    state: State,
    timers: SipTimers,
    reliable: bool,
    interval: Duration,
    /// Timer E.
    resend_at: Option<Time>,
    /// Timer F, then K.
    end_at: Time,
}

impl Client {
    /// The request has been sent at `now`.
    pub fn start(timers: SipTimers, reliable: bool, now: Time) -> Self {
        Self {
            state: State::Trying,
            timers,
            reliable,
            interval: timers.t1,
            resend_at: (!reliable).then(|| now + timers.t1),
            end_at: now + timers.t1_64(),
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn deadline(&self) -> Option<Time> {
        earliest(self.resend_at, Some(self.end_at))
    }

    pub fn on_response(&mut self, status: u16, now: Time) -> Reaction {
        match self.state {
            State::Completed => Reaction::Absorb,
            State::Trying | State::Proceeding if status < 200 => {
                self.state = State::Proceeding;
                Reaction::Deliver
            }
            State::Trying | State::Proceeding => {
                self.state = State::Completed;
                self.resend_at = None;
                self.end_at = if self.reliable { now } else { now + self.timers.t4 };
                Reaction::Deliver
            }
        }
    }

    pub fn on_timer(&mut self, now: Time) -> ClientDue {
        if self.end_at <= now {
            return if self.state == State::Completed { ClientDue::Ended } else { ClientDue::TimedOut };
        }
        if !due(self.resend_at, now) {
            return ClientDue::Nothing;
        }
        self.interval =
            if self.state == State::Proceeding { self.timers.t2 } else { (self.interval * 2).min(self.timers.t2) };
        self.resend_at = Some(now + self.interval);
        ClientDue::Resend
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Time = Time::from_secs(100);

    /// The milliseconds after the start at which the request is repeated, and when and how it ends.
    fn run(mut tx: Client) -> (Vec<u64>, u64, ClientDue) {
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
    fn timer_e_doubles_up_to_t2_and_timer_f_ends_it() {
        let (resent, end, how) = run(Client::start(SipTimers::CORE, false, T0));
        assert_eq!(resent, [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
        assert_eq!((end, how), (32_000, ClientDue::TimedOut));
    }

    #[test]
    fn towards_a_ue_the_timers_of_24_229_hold() {
        let (resent, end, _) = run(Client::start(SipTimers::UE, false, T0));
        assert_eq!(resent[..4], [2000, 6000, 14000, 30000]);
        assert_eq!(end, 128_000);
    }

    #[test]
    fn a_provisional_answer_slows_timer_e_to_t2() {
        let mut tx = Client::start(SipTimers::CORE, false, T0);
        assert_eq!(tx.on_response(100, T0), Reaction::Deliver);
        let (resent, end, _) = run(tx);
        assert_eq!(resent[..3], [500, 4500, 8500]);
        assert_eq!(end, 32_000);
    }

    #[test]
    fn final_answers_are_delivered_once_and_timer_k_frees() {
        let mut tx = Client::start(SipTimers::CORE, false, T0);
        assert_eq!(tx.on_response(200, T0), Reaction::Deliver);
        assert_eq!(tx.on_response(200, T0), Reaction::Absorb);
        assert_eq!(run(tx), (vec![], 5000, ClientDue::Ended));
    }

    #[test]
    fn on_a_reliable_transport_nothing_is_repeated_and_timer_k_is_zero() {
        let mut tx = Client::start(SipTimers::CORE, true, T0);
        assert_eq!(tx.deadline(), Some(T0 + SipTimers::CORE.t1_64()));
        tx.on_response(404, T0);
        assert_eq!(run(tx), (vec![], 0, ClientDue::Ended));
    }
}
