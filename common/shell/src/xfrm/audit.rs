//! What the kernel really has, compared with what was asked of it.
//!
//! Ours is what carries our reqid and stands on a protected port of ours; of policies, also what blocks such a port with our
//! priority. Everything else on the machine belongs to somebody else and is not looked at twice. A set that is missing is
//! reported and never put back: with the keys it had, its sequence numbers would begin again (RFC 4303 3.3.3), and the
//! handset would take none of it.

use super::ProtectedPort;
use super::kernel::{Installed, Machine, policy_keys, set_key};
use super::message::{
    self, Direction, Message, PRIORITY_BLOCK, PolicyKey, REQID, add_block, add_policy, blocks, delete_policy_of,
    delete_sa, dump_policies, dump_sas,
};
use ims_core::Time;
use ims_core::sa::{SaAudit, SaError, SaSet, SaSide, SaUsage};
use netlink_packet_xfrm::constants::{IPPROTO_ESP, XFRM_POLICY_BLOCK, XFRM_POLICY_IN, XFRM_POLICY_OUT};
use netlink_packet_xfrm::policy::ModifyMessage as Policy;
use netlink_packet_xfrm::state::ModifyMessage as Sa;
use netlink_packet_xfrm::{UserPolicyInfo, XfrmAttrs, XfrmMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// One association of ours, as found.
struct Found {
    usage: SaUsage,
    added: Time,
}

type FoundSas = BTreeMap<(IpAddr, u32), Found>;

impl Machine {
    pub(super) async fn on_audit(&mut self, owner: usize, side: SaSide, adopt: Vec<SaSet>) -> Result<SaAudit, SaError> {
        let ports = self.ports_of(owner);
        let found = self.our_sas(&ports).await?;
        for set in adopt {
            self.adopt(owner, side, &set, &found);
        }
        let (policies, mut deletions) = self.our_policies(&ports).await?;

        let known: BTreeSet<(IpAddr, u32)> = self.sets.keys().flatten().copied().collect();
        deletions.extend(found.keys().filter(|sa| !known.contains(*sa)).map(|(dst, spi)| delete_sa(*dst, *spi)));
        let strays = deletions.len();
        self.netlink.delete(deletions).await?;
        let repaired = self.put_back(&ports, &policies).await?;
        let sas = found.into_iter().filter(|(sa, _)| known.contains(sa)).map(|(_, found)| found.usage).collect();
        Ok(SaAudit { sas, strays, repaired })
    }

    /// Removes what stands on these ports, but for the ports whose nodes keep their associations: those know better.
    pub(super) async fn remove_leftovers(&mut self, ports: &[ProtectedPort]) -> Result<usize, SaError> {
        let forgetful: BTreeSet<SocketAddr> = ports.iter().filter(|p| !p.keeps_sas).map(|p| p.addr).collect();
        if forgetful.is_empty() {
            return Ok(0);
        }
        let (_, mut deletions) = self.our_policies(&forgetful).await?;
        deletions.extend(self.our_sas(&forgetful).await?.keys().map(|(dst, spi)| delete_sa(*dst, *spi)));
        let count = deletions.len();
        self.netlink.delete(deletions).await?;
        Ok(count)
    }

    fn ports_of(&self, owner: usize) -> BTreeSet<SocketAddr> {
        self.ports.iter().filter(|p| p.owner == owner).map(|p| p.addr).collect()
    }

    /// A set that is not there wholly is not adopted: what is left of it goes with the strays.
    fn adopt(&mut self, owner: usize, side: SaSide, set: &SaSet, found: &FoundSas) {
        let key = set_key(set);
        let added: Vec<Time> = key.iter().filter_map(|sa| found.get(sa)).map(|found| found.added).collect();
        let Some(added) = added.iter().max().filter(|_| added.len() == key.len()) else { return };
        if self.sets.contains_key(&key) {
            return;
        }
        self.sets.insert(key, (*set, Installed { added: *added, keys: None, sides: vec![(owner, side)] }));
        for (key, spi) in policy_keys(set, side) {
            self.policies.entry(key).or_default().push_back(spi);
        }
    }

    async fn our_sas(&mut self, ports: &BTreeSet<SocketAddr>) -> Result<FoundSas, SaError> {
        let mut found = FoundSas::new();
        self.netlink
            .each(dump_sas(), |answer| {
                if let XfrmMessage::AddSa(sa) = answer
                    && let Some(sa) = read_sa(&sa, ports)
                {
                    found.insert((sa.usage.dst, sa.usage.spi), sa);
                }
            })
            .await?;
        Ok(found)
    }

    /// The policies of ours that somebody asked for, and messages that delete the others.
    async fn our_policies(
        &mut self,
        ports: &BTreeSet<SocketAddr>,
    ) -> Result<(BTreeSet<PolicyKey>, Vec<Message>), SaError> {
        let (mut known, mut strays) = (BTreeSet::new(), Vec::new());
        let wanted = &self.policies;
        let blocking: BTreeSet<PolicyKey> = self.ports.iter().flat_map(|p| blocks(p.addr)).collect();
        self.netlink
            .each(dump_policies(), |answer| {
                if let XfrmMessage::AddPolicy(policy) = answer
                    && let Some(key) = policy_of_ours(&policy, ports)
                {
                    match wanted.contains_key(&key) || blocking.contains(&key) {
                        true => drop(known.insert(key)),
                        false => {
                            let info = &policy.user_policy_info;
                            strays.push(delete_policy_of(info.selector, info.direction));
                        }
                    }
                }
            })
            .await?;
        Ok((known, strays))
    }

    /// Policies need no key: what is missing is put back, the blocking ones first.
    async fn put_back(
        &mut self,
        ports: &BTreeSet<SocketAddr>,
        standing: &BTreeSet<PolicyKey>,
    ) -> Result<usize, SaError> {
        let missing = |key: &PolicyKey| !standing.contains(key);
        let mut batch: Vec<Message> =
            ports.iter().flat_map(|addr| blocks(*addr)).filter(missing).map(|key| add_block(&key)).collect();
        let sets = self.policies.iter().filter(|(key, _)| missing(key) && ports.contains(&key.own_end()));
        batch.extend(sets.filter_map(|(key, spis)| Some(add_policy(key, *spis.front()?))));
        let count = batch.len();
        self.netlink.ask_all(batch).await?;
        Ok(count)
    }
}

fn read_sa(sa: &Sa, ports: &BTreeSet<SocketAddr>) -> Option<Found> {
    let info = &sa.user_sa_info;
    if info.reqid != REQID || info.id.proto != IPPROTO_ESP || !ends(info).iter().any(|end| ports.contains(end)) {
        return None;
    }
    let added = Time::from_secs(info.lifetime_cur.add_time);
    let expires = match info.lifetime_cfg.hard_add_expires_seconds {
        0 => Time::from_micros(u64::MAX),
        seconds => added + Duration::from_secs(seconds),
    };
    let last_use = sa.nlas.iter().find_map(|nla| match nla {
        XfrmAttrs::LastUsed(seconds) => Some(Time::from_secs(*seconds)),
        _ => None,
    });
    let usage = SaUsage {
        dst: message::address(&info.id.daddr, info.family),
        spi: info.id.spi,
        bytes: info.lifetime_cur.bytes,
        packets: info.lifetime_cur.packets,
        last_use,
        expires,
    };
    Some(Found { usage, added })
}

fn ends(info: &netlink_packet_xfrm::UserSaInfo) -> [SocketAddr; 2] {
    let s = &info.selector;
    [(s.daddr, s.dport), (s.saddr, s.sport)].map(|(ip, port)| SocketAddr::new(message::address(&ip, info.family), port))
}

/// The key of a policy that is ours and stands on one of these ports, on our side of it: a handset on the same machine has
/// policies of its own about them.
fn policy_of_ours(policy: &Policy, ports: &BTreeSet<SocketAddr>) -> Option<PolicyKey> {
    let UserPolicyInfo { selector, action, priority, direction, .. } = &policy.user_policy_info;
    let templates = policy.nlas.iter().filter_map(|nla| match nla {
        XfrmAttrs::Template(templates) => Some(templates),
        _ => None,
    });
    let block = *action == XFRM_POLICY_BLOCK && *priority == PRIORITY_BLOCK;
    if !block && !templates.flatten().any(|t| t.reqid == REQID) {
        return None;
    }
    let direction = match *direction {
        XFRM_POLICY_IN => Direction::In,
        XFRM_POLICY_OUT => Direction::Out,
        _ => return None,
    };
    let end = |ip, port| SocketAddr::new(message::address(&ip, selector.family), port);
    let key =
        PolicyKey { direction, src: end(selector.saddr, selector.sport), dst: end(selector.daddr, selector.dport) };
    ports.contains(&key.own_end()).then_some(key)
}
