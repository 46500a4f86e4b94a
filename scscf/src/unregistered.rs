//! Profiles of users that are not registered here and have services all the same (TS 24.229 5.4.3.3, TS 29.228 6.1.2): kept for a
//! while after a request, so that not each one asks the HSS. The HSS goes on naming us for them, so forgetting one is all that
//! its end takes.

use crate::profile::Profile;
use ims_core::{Impu, Time};
use std::collections::{BTreeMap, VecDeque};

#[derive(Default)]
pub(crate) struct Unregistered {
    profiles: BTreeMap<Impu, (Time, Profile)>,
    /// In the order in which they end; may name what was replaced or is gone.
    ends: VecDeque<(Time, Impu)>,
}

impl Unregistered {
    pub(crate) fn find(&self, impu: &Impu) -> Option<&Profile> {
        self.profiles.get(impu).map(|(_, profile)| profile)
    }

    /// Keeps `most`: the oldest go first.
    pub(crate) fn keep(&mut self, impu: &Impu, profile: Profile, until: Time, most: usize) {
        self.profiles.insert(impu.clone(), (until, profile));
        self.ends.push_back((until, impu.clone()));
        while self.profiles.len() > most {
            let Some((at, impu)) = self.ends.pop_front() else { return };
            self.end(at, &impu);
        }
    }

    /// The HSS says something new of it. Whether it was known.
    pub(crate) fn forget(&mut self, impu: &Impu) -> bool {
        self.profiles.remove(impu).is_some()
    }

    pub(crate) fn expire(&mut self, now: Time) {
        while let Some((at, impu)) = self.ends.pop_front_if(|(at, _)| *at <= now) {
            self.end(at, &impu);
        }
    }

    fn end(&mut self, at: Time, impu: &Impu) {
        if self.profiles.get(impu).is_some_and(|(until, _)| *until == at) {
            self.profiles.remove(impu);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.ends.front().map(|(at, _)| *at)
    }

    pub(crate) fn len(&self) -> usize {
        self.profiles.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn profiles_end_in_time_and_the_oldest_make_room() {
        let profile = || Profile { identities: Arc::from([]), services: Arc::default(), charging: None };
        let impu = |n: u32| Impu::parse(&format!("sip:{n}@b")).unwrap();
        let mut unregistered = Unregistered::default();
        unregistered.keep(&impu(1), profile(), Time::from_secs(10), 2);
        unregistered.keep(&impu(2), profile(), Time::from_secs(11), 2);
        unregistered.keep(&impu(1), profile(), Time::from_secs(12), 2);
        unregistered.keep(&impu(3), profile(), Time::from_secs(13), 2);
        assert!(unregistered.find(&impu(2)).is_none() && unregistered.find(&impu(1)).is_some());
        unregistered.expire(Time::from_secs(12));
        assert!(unregistered.find(&impu(1)).is_none() && unregistered.find(&impu(3)).is_some());
        assert!(unregistered.forget(&impu(3)) && !unregistered.forget(&impu(3)));
        unregistered.expire(Time::from_secs(13));
        assert_eq!((unregistered.len(), unregistered.deadline()), (0, None));
    }
}
