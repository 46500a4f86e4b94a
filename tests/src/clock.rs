//! The clock of one host: the world's, and how far it is ahead.

use ims_core::Time;
use std::time::Duration;

#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct HostClock {
    pub(crate) ahead: Duration,
}

impl HostClock {
    /// What it shows.
    pub(crate) fn read(self, world: Time) -> Time {
        world + self.ahead
    }

    /// When it is that this clock shows `at`.
    pub(crate) fn in_the_world(self, at: Time) -> Time {
        Time::from_micros(at.since(Time::EPOCH + self.ahead).as_micros().try_into().unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let clock = HostClock { ahead: Duration::from_secs(90) };
        let now = Time::from_secs(1000);
        assert_eq!(clock.read(now), Time::from_secs(1090));
        assert_eq!(clock.in_the_world(clock.read(now)), now);
        assert_eq!(clock.in_the_world(Time::from_secs(10)), Time::EPOCH, "long ago is as early as can be");
    }
}
