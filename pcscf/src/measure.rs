//! What the P-CSCF measures of registrations and of the kernel.

use ims_core::metrics::{Histogram, Outcomes, Samples, catalogue};
use ims_core::sa::SaError;
use ims_core::{Impi, Time};
use std::collections::{BTreeMap, HashMap};

/// Registrations whose beginning is remembered. Beyond it the earlier half is not timed.
const MOST_BEGUN: usize = 16_384;

pub(crate) struct Measured {
    pub(crate) outcomes: Outcomes,
    /// From a REGISTER to the 401 that goes with it.
    challenge: Histogram,
    /// From a REGISTER to its 200.
    answer: Histogram,
    /// From the first REGISTER to the 200 of the second.
    total: Histogram,
    begun: [HashMap<Impi, Time>; 2],
    kernel: BTreeMap<(&'static str, &'static str), u64>,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            outcomes: Outcomes::default(),
            challenge: Histogram::long(),
            answer: Histogram::long(),
            total: Histogram::long(),
            begun: Default::default(),
            kernel: BTreeMap::new(),
        }
    }
}

impl Measured {
    /// A 401 is on its way to a UE whose REGISTER came at `since`.
    pub(crate) fn challenged(&mut self, impi: &Impi, since: Time, now: Time) {
        self.outcomes.count("challenged");
        self.challenge.observe(now.since(since));
        if self.begun[0].len() >= MOST_BEGUN / 2 {
            self.begun.swap(0, 1);
            self.begun[0].clear();
        }
        self.begun[0].insert(impi.clone(), since);
    }

    pub(crate) fn accepted(&mut self, outcome: &'static str, impi: &Impi, since: Time, now: Time) {
        self.outcomes.count(outcome);
        self.answer.observe(now.since(since));
        let [newer, older] = &mut self.begun;
        let (newer, older) = (newer.remove(impi), older.remove(impi));
        if let Some(begun) = newer.or(older) {
            self.total.observe(now.since(begun));
        }
    }

    pub(crate) fn kernel(&mut self, operation: &'static str, result: &Result<(), SaError>) {
        let result = match result {
            Ok(()) => "ok",
            Err(SaError::NoEsp) => "no-esp",
            Err(SaError::NotPermitted) => "not-permitted",
            Err(SaError::NoAlgorithm(_)) => "no-algorithm",
            Err(SaError::SpiTaken(_)) => "spi-taken",
            Err(SaError::NotFound) => "not-found",
            Err(_) => "error",
        };
        self.kernel_said(operation, result);
    }

    pub(crate) fn kernel_said(&mut self, operation: &'static str, result: &'static str) {
        *self.kernel.entry((operation, result)).or_default() += 1;
    }

    pub(crate) fn metrics(&self, out: &mut Samples) {
        self.outcomes.metrics(out);
        for (phase, took) in [("challenge", &self.challenge), ("answer", &self.answer), ("total", &self.total)] {
            out.histogram(&catalogue::REGISTRATION_TIME, &[phase], took);
        }
        for ((operation, result), n) in &self.kernel {
            out.count(&catalogue::SA_OPERATIONS, &[operation, result], *n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_from_the_first_register_and_memory_is_bounded() {
        let mut m = Measured::default();
        let impi = |n: usize| Impi::parse(&format!("{n}@a.example")).unwrap();
        m.challenged(&impi(0), Time::from_secs(1), Time::from_secs(2));
        m.accepted("registered", &impi(0), Time::from_secs(5), Time::from_secs(6));
        assert_eq!((m.total.count(), m.total.sum(), m.answer.sum()), (1, 5_000_000, 1_000_000));
        m.accepted("refreshed", &impi(0), Time::from_secs(5), Time::from_secs(6));
        assert_eq!(m.total.count(), 1, "a refresh without a challenge");
        for n in 0..3 * MOST_BEGUN {
            m.challenged(&impi(n), Time::EPOCH, Time::EPOCH);
        }
        assert!(m.begun.iter().map(HashMap::len).sum::<usize>() <= MOST_BEGUN);
    }
}
