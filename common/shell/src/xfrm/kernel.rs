//! The kernel of the machine, over netlink: one batch for a set, every answer checked, undone when one says no.
//!
//! A netlink error echoes the request, keys and all: errors become an errno at once, and nothing of netlink is ever printed.

use super::keys::Algorithms;
use super::message::{
    self, Direction, Message, PolicyKey, REQID, add_block, add_policy, add_sa, blocks, delete_policy, delete_sa,
    dump_sas, no_keys, read_sa, update_sa,
};
use super::{ProtectedPort, SaFuture, SaKernel};
use futures_util::StreamExt;
use ims_core::Time;
use ims_core::sa::{SaAudit, SaChange, SaError, SaExpiry, SaKeys, SaSet, SaSide};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_xfrm::constants::XFRMNLGRP_EXPIRE;
use netlink_packet_xfrm::{XfrmAttrs, XfrmMessage};
use netlink_proto::sys::{AsyncSocket, SocketAddr as NetlinkAddr, protocols::NETLINK_XFRM};
use netlink_proto::{ConnectionHandle, new_connection};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

/// The kernel answers at once; when not, something is very wrong and a registration must not hang.
const PATIENCE: Duration = Duration::from_secs(5);
/// Deletions in one batch.
const CHUNK: usize = 64;

/// A netlink connection with its task.
pub(super) struct Netlink {
    handle: ConnectionHandle<XfrmMessage>,
    unasked: futures_util::stream::BoxStream<'static, NetlinkMessage<XfrmMessage>>,
    task: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Netlink {
    pub(super) fn open() -> Result<Self, SaError> {
        Self::open_with_groups(0)
    }

    fn open_with_groups(groups: u32) -> Result<Self, SaError> {
        let failed = |error: std::io::Error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => SaError::NotPermitted,
            _ => SaError::NoEsp,
        };
        let (mut connection, handle, unasked) = new_connection::<XfrmMessage>(NETLINK_XFRM).map_err(failed)?;
        connection.set_forward_ack(true);
        if groups != 0 {
            connection.socket_mut().socket_mut().bind(&NetlinkAddr::new(0, groups)).map_err(failed)?;
        }
        let task = tokio::spawn(connection);
        Ok(Self { handle, unasked: unasked.map(|(message, _)| message).boxed(), task })
    }

    /// Sends a batch and returns the errno (0 or negative) of each message, in order.
    async fn errnos(&mut self, batch: Vec<Message>) -> Result<Vec<i32>, SaError> {
        let count = batch.len();
        let answers = self.exchange(batch).await?;
        let mut by_sequence: Vec<(u32, i32)> = answers
            .iter()
            .filter_map(|m| message::is_ack_or_error(m).map(|errno| (m.header.sequence_number, errno)))
            .collect();
        by_sequence.sort_unstable_by_key(|(sequence, _)| *sequence);
        if by_sequence.len() != count {
            return Err(SaError::Kernel(libc::EIO));
        }
        Ok(by_sequence.into_iter().map(|(_, errno)| errno).collect())
    }

    async fn exchange(&mut self, batch: Vec<Message>) -> Result<Vec<Message>, SaError> {
        let stream =
            self.handle.request_batch(batch, NetlinkAddr::new(0, 0)).map_err(|_| SaError::Kernel(libc::ENOTCONN))?;
        tokio::time::timeout(PATIENCE, stream.collect()).await.map_err(|_| SaError::Kernel(libc::ETIMEDOUT))
    }

    /// Sends a batch; the first error counts. `spis` belong to the first messages, one each.
    pub(super) async fn ask(&mut self, batch: Vec<Message>, spis: &[u32], names: &'static str) -> Result<(), SaError> {
        for (place, errno) in self.errnos(batch).await?.into_iter().enumerate() {
            if errno != 0 {
                return Err(sa_error(errno, spis.get(place).copied(), names));
            }
        }
        Ok(())
    }

    /// Any number of messages, none of which may fail.
    pub(super) async fn ask_all(&mut self, messages: Vec<Message>) -> Result<(), SaError> {
        for chunk in messages.chunks(CHUNK) {
            self.ask(chunk.to_vec(), &[], "").await?;
        }
        Ok(())
    }

    /// All associations or policies, of anyone, one by one: there may be hundreds of thousands.
    pub(super) async fn each(&mut self, request: Message, mut take: impl FnMut(XfrmMessage)) -> Result<(), SaError> {
        let answers = self
            .handle
            .request_batch(vec![request], NetlinkAddr::new(0, 0))
            .map_err(|_| SaError::Kernel(libc::ENOTCONN))?;
        let mut answers = std::pin::pin!(answers);
        loop {
            let next = tokio::time::timeout(PATIENCE, answers.next()).await;
            let Some(answer) = next.map_err(|_| SaError::Kernel(libc::ETIMEDOUT))? else { return Ok(()) };
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => take(inner),
                NetlinkPayload::Error(error) if error.raw_code() != 0 => {
                    return Err(sa_error(error.raw_code(), None, "of the dump"));
                }
                _ => {}
            }
        }
    }

    /// Deletes; what is not there any more is fine.
    pub(super) async fn delete(&mut self, messages: Vec<Message>) -> Result<(), SaError> {
        let mut worst = Ok(());
        for chunk in messages.chunks(CHUNK) {
            for errno in self.errnos(chunk.to_vec()).await? {
                if !matches!(-errno, 0 | libc::ESRCH | libc::ENOENT) {
                    worst = Err(sa_error(errno, None, "to delete"));
                }
            }
        }
        worst
    }
}

fn sa_error(errno: i32, spi: Option<u32>, names: &'static str) -> SaError {
    match (-errno, spi) {
        (libc::EPERM | libc::EACCES, _) => SaError::NotPermitted,
        (libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT, _) => SaError::NoEsp,
        (libc::ENOSYS | libc::ENOENT, Some(_)) => SaError::NoAlgorithm(names),
        (libc::EEXIST, Some(spi)) => SaError::SpiTaken(spi),
        (libc::ESRCH | libc::ENOENT, _) => SaError::NotFound,
        (code, _) => SaError::Kernel(code),
    }
}

/// The kernel of this machine, or something that says why not. `wanted`: somebody has protected ports.
pub fn machine_kernel(wanted: bool) -> Box<dyn SaKernel> {
    match Machine::open(wanted) {
        Ok(machine) => Box::new(machine),
        Err(error) => Box::new(NoKernel(error)),
    }
}

struct NoKernel(SaError);

impl SaKernel for NoKernel {
    fn protect<'a>(&'a mut self, _: &'a [ProtectedPort]) -> SaFuture<'a, Result<(), SaError>> {
        Box::pin(std::future::ready(Err(self.0.clone())))
    }

    fn change(&mut self, _: usize, change: SaChange, _: Time) -> SaFuture<'_, Result<(), SaError>> {
        let result = if matches!(change, SaChange::Remove { .. }) { Ok(()) } else { Err(self.0.clone()) };
        Box::pin(std::future::ready(result))
    }

    fn audit(&mut self, _: usize, _: SaSide, _: Vec<SaSet>) -> SaFuture<'_, Result<SaAudit, SaError>> {
        Box::pin(std::future::ready(Err(self.0.clone())))
    }

    fn expired(&mut self) -> SaFuture<'_, SaExpiry> {
        Box::pin(std::future::pending())
    }

    fn clear(&mut self) -> SaFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// One installed set, which both of its ends may use when they live on this machine.
pub(super) struct Installed {
    pub(super) added: Time,
    /// None: an earlier run installed it, and keys outlast no process.
    pub(super) keys: Option<SaKeys>,
    pub(super) sides: Vec<(usize, SaSide)>,
}

/// A set by the numbers that are unique on this machine.
pub(super) type SetKey = [(IpAddr, u32); 4];

pub(super) fn set_key(set: &SaSet) -> SetKey {
    set.legs().map(|leg| (leg.dst.ip(), leg.spi))
}

pub(super) struct Machine {
    pub(super) netlink: Netlink,
    expiries: Option<mpsc::UnboundedReceiver<Notice>>,
    listener: Option<JoinHandle<()>>,
    pub(super) ports: Vec<ProtectedPort>,
    pub(super) sets: BTreeMap<SetKey, (SaSet, Installed)>,
    /// SPIs that want a policy, the one that has it first.
    pub(super) policies: BTreeMap<PolicyKey, VecDeque<u32>>,
    pending: VecDeque<SaExpiry>,
}

enum Notice {
    Expired(SaExpiry),
    /// The kernel lost notices.
    Lost,
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(task) = self.listener.take() {
            task.abort();
        }
    }
}

impl Machine {
    fn open(wanted: bool) -> Result<Self, SaError> {
        let netlink = Netlink::open()?;
        let (mut expiries, mut listener) = (None, None);
        if wanted {
            match Netlink::open_with_groups(1 << (XFRMNLGRP_EXPIRE - 1)) {
                Ok(events) => {
                    let (tx, rx) = mpsc::unbounded_channel();
                    expiries = Some(rx);
                    listener = Some(tokio::spawn(listen(events, tx)));
                }
                Err(error) => warn!(%error, "the kernel will not tell of expired associations"),
            }
        }
        Ok(Self {
            netlink,
            expiries,
            listener,
            ports: Vec::new(),
            sets: BTreeMap::new(),
            policies: BTreeMap::new(),
            pending: VecDeque::new(),
        })
    }

    /// The sockets are ours, so whoever had these ports before us is gone. Blocking comes first: at no time may anything
    /// pass in clear.
    async fn on_protect(&mut self, ports: &[ProtectedPort]) -> Result<(), SaError> {
        self.ports = ports.to_vec();
        let blocks = ports.iter().flat_map(|p| blocks(p.addr)).map(|key| add_block(&key)).collect();
        self.netlink.ask_all(blocks).await?;
        let left = self.remove_leftovers(ports).await?;
        if left > 0 {
            info!(left, "IPsec state of an earlier run removed");
        }
        Ok(())
    }

    async fn on_change(&mut self, owner: usize, change: SaChange, now: Time) -> Result<(), SaError> {
        match change {
            SaChange::Install { set, keys, side, expires } => self.install(owner, set, keys, side, expires, now).await,
            SaChange::Extend { set, expires } => self.extend(set, expires, now).await,
            SaChange::Remove { set } => self.remove(owner, set).await,
        }
    }

    async fn install(
        &mut self,
        owner: usize,
        set: SaSet,
        keys: SaKeys,
        side: SaSide,
        expires: Time,
        now: Time,
    ) -> Result<(), SaError> {
        let key = set_key(&set);
        let joined = match self.sets.get(&key) {
            None => false,
            Some((known, installed)) => {
                let fresh = !installed.sides.iter().any(|(_, s)| *s == side);
                if *known != set || !fresh || !installed.keys.as_ref().is_some_and(|known| same_keys(known, &keys)) {
                    return Err(SaError::SpiTaken(set.spi_ps));
                }
                true
            }
        };
        let algorithms = Algorithms::new(set.suite, &keys).ok_or(SaError::NoAlgorithm("of this pair"))?;
        let mut batch = Vec::new();
        let legs = set.legs();
        let seconds = seconds(expires, now);
        if !joined {
            batch.extend(legs.iter().map(|leg| add_sa(leg, &algorithms, seconds)));
        }
        let policies = policy_keys(&set, side);
        let wanted: Vec<(PolicyKey, u32)> =
            policies.iter().copied().filter(|(key, _)| !self.policies.contains_key(key)).collect();
        batch.extend(wanted.iter().map(|(key, spi)| add_policy(key, *spi)));

        let sas = if joined { 0 } else { legs.len() };
        let errnos = self.netlink.errnos(batch).await?;
        let mut failure = None;
        let mut undo = Vec::new();
        for (place, errno) in errnos.iter().enumerate() {
            if let Some(leg) = legs.get(place).filter(|_| place < sas) {
                match *errno {
                    0 => undo.push(delete_sa(leg.dst.ip(), leg.spi)),
                    e if -e == libc::EEXIST && side == SaSide::Ue && self.is_shared(leg, &algorithms).await => {}
                    e => failure = failure.or(Some(sa_error(e, Some(leg.spi), algorithms.names()))),
                }
            } else if let Some((key, _)) = wanted.get(place - sas) {
                match *errno {
                    0 => undo.push(delete_policy(key)),
                    e => failure = failure.or(Some(sa_error(e, None, algorithms.names()))),
                }
            }
        }
        if let Some(failure) = failure {
            self.netlink.delete(undo).await?;
            return Err(failure);
        }
        for (key, spi) in policies {
            self.policies.entry(key).or_default().push_back(spi);
        }
        let fresh = Installed { added: now, keys: Some(keys), sides: Vec::new() };
        let (_, installed) = self.sets.entry(key).or_insert((set, fresh));
        installed.sides.push((owner, side));
        Ok(())
    }

    /// Whether the association is there already with just these keys: handset and P-CSCF are different processes on one
    /// machine, and share what each of them has derived.
    async fn is_shared(&mut self, leg: &ims_core::sa::SaLeg, algorithms: &Algorithms) -> bool {
        let mut shared = false;
        let read = self.netlink.each(read_sa(leg.dst.ip(), leg.spi), |found| {
            if let XfrmMessage::AddSa(sa) = found {
                shared |= sa.user_sa_info.reqid == REQID && has_keys(&sa.nlas, algorithms);
            }
        });
        read.await.is_ok() && shared
    }

    async fn extend(&mut self, set: SaSet, expires: Time, now: Time) -> Result<(), SaError> {
        let (_, installed) = self.sets.get(&set_key(&set)).ok_or(SaError::NotFound)?;
        // The kernel counts from the moment the association was added.
        let seconds = seconds(expires.max(now), installed.added);
        let algorithms = Algorithms::new(set.suite, &no_keys()).ok_or(SaError::NotFound)?;
        let batch = set.legs().iter().map(|leg| update_sa(leg, &algorithms, seconds)).collect();
        let spis = set.legs().map(|leg| leg.spi);
        self.netlink.ask(batch, &spis, algorithms.names()).await
    }

    async fn remove(&mut self, owner: usize, set: SaSet) -> Result<(), SaError> {
        let key = set_key(&set);
        let Some((_, installed)) = self.sets.get_mut(&key) else { return Ok(()) };
        let Some(place) = installed.sides.iter().position(|(o, _)| *o == owner) else { return Ok(()) };
        let (_, side) = installed.sides.remove(place);
        let last = installed.sides.is_empty();
        let mut deletions = Vec::new();
        let mut replacements = Vec::new();
        for (policy, spi) in policy_keys(&set, side) {
            let Some(claims) = self.policies.get_mut(&policy) else { continue };
            let had_it = claims.front() == Some(&spi);
            claims.retain(|other| *other != spi);
            match claims.front() {
                None => {
                    self.policies.remove(&policy);
                    deletions.push(delete_policy(&policy));
                }
                Some(next) if had_it => replacements.push(add_policy(&policy, *next)),
                Some(_) => {}
            }
        }
        if last {
            self.sets.remove(&key);
            deletions.extend(set.legs().iter().map(|leg| delete_sa(leg.dst.ip(), leg.spi)));
        }
        if !replacements.is_empty() {
            self.netlink.ask(replacements, &[], "").await?;
        }
        self.netlink.delete(deletions).await
    }

    /// What has to outlast us stays: sets of nodes that will know them again, and what blocks their ports meanwhile.
    async fn on_clear(&mut self) {
        let kept: BTreeSet<SocketAddr> = self.ports.iter().filter(|p| p.keeps_sas).map(|p| p.addr).collect();
        let goes = |key: &&PolicyKey| !kept.contains(&key.own_end());
        let mut deletions: Vec<Message> = self.policies.keys().filter(goes).map(delete_policy).collect();
        let mut left = 0;
        for (set, _) in self.sets.values() {
            let legs = set.legs();
            match legs.iter().any(|leg| kept.contains(&leg.src) || kept.contains(&leg.dst)) {
                true => left += 1,
                false => deletions.extend(legs.iter().map(|leg| delete_sa(leg.dst.ip(), leg.spi))),
            }
        }
        // Last, so that at no time anything passes in clear while an association is still there.
        deletions
            .extend(self.ports.iter().flat_map(|p| blocks(p.addr)).filter(|k| goes(&k)).map(|k| delete_policy(&k)));
        self.policies.clear();
        self.sets.clear();
        self.ports.clear();
        let count = deletions.len();
        let result = self.netlink.delete(deletions).await;
        if result.is_ok() && count > 0 {
            info!(count, "IPsec state removed");
        }
        if left > 0 {
            info!(left, "SA sets of registered handsets stay in the kernel until they expire or we are back");
        }
        if let Err(error) = result
            && error != SaError::NotPermitted
        {
            warn!(%error, "IPsec state could not be removed wholly");
        }
    }

    async fn next_expiry(&mut self) -> SaExpiry {
        loop {
            if let Some(expiry) = self.pending.pop_front() {
                return expiry;
            }
            let Some(expiries) = &mut self.expiries else { return std::future::pending().await };
            match expiries.recv().await {
                Some(Notice::Expired(expiry)) => return expiry,
                Some(Notice::Lost) => self.look_for_missing().await,
                None => self.expiries = None,
            }
        }
    }

    /// After lost notices: what we put in and the kernel has no more, has expired.
    async fn look_for_missing(&mut self) {
        let mut alive = BTreeSet::new();
        let read = self.netlink.each(dump_sas(), |found| {
            if let XfrmMessage::AddSa(sa) = found {
                let info = &sa.user_sa_info;
                alive.insert((message::address(&info.id.daddr, info.family), info.id.spi));
            }
        });
        if read.await.is_err() {
            return;
        }
        for (dst, spi) in self.sets.keys().flatten() {
            if !alive.contains(&(*dst, *spi)) {
                self.pending.push_back(SaExpiry { dst: *dst, spi: *spi, hard: true });
            }
        }
    }
}

impl SaKernel for Machine {
    fn protect<'a>(&'a mut self, ports: &'a [ProtectedPort]) -> SaFuture<'a, Result<(), SaError>> {
        Box::pin(self.on_protect(ports))
    }

    fn change(&mut self, owner: usize, change: SaChange, now: Time) -> SaFuture<'_, Result<(), SaError>> {
        Box::pin(self.on_change(owner, change, now))
    }

    fn audit(&mut self, owner: usize, side: SaSide, adopt: Vec<SaSet>) -> SaFuture<'_, Result<SaAudit, SaError>> {
        Box::pin(self.on_audit(owner, side, adopt))
    }

    fn expired(&mut self) -> SaFuture<'_, SaExpiry> {
        Box::pin(self.next_expiry())
    }

    fn clear(&mut self) -> SaFuture<'_, ()> {
        Box::pin(self.on_clear())
    }
}

/// Passes on what the kernel says unasked.
async fn listen(mut events: Netlink, notices: mpsc::UnboundedSender<Notice>) {
    while let Some(event) = events.unasked.next().await {
        let notice = match event.payload {
            NetlinkPayload::InnerMessage(XfrmMessage::Expire(message)) => {
                let sa = message.expire.state;
                if sa.reqid != REQID {
                    continue;
                }
                Notice::Expired(SaExpiry {
                    dst: message::address(&sa.id.daddr, sa.family),
                    spi: sa.id.spi,
                    hard: message.expire.hard != 0,
                })
            }
            NetlinkPayload::Overrun(_) => Notice::Lost,
            _ => continue,
        };
        if notices.send(notice).is_err() {
            return;
        }
    }
}

pub(super) fn policy_keys(set: &SaSet, side: SaSide) -> [(PolicyKey, u32); 4] {
    set.legs().map(|leg| {
        let direction = Direction::of(set, &leg, side);
        (PolicyKey { direction, src: leg.src, dst: leg.dst }, leg.spi)
    })
}

/// Whole seconds from `from` to `to`, rounded up, never 0: that would mean for ever.
fn seconds(to: Time, from: Time) -> u64 {
    to.since(from).as_micros().div_ceil(1_000_000).try_into().unwrap_or(u64::MAX).max(1)
}

fn same_keys(a: &SaKeys, b: &SaKeys) -> bool {
    (a.ck.expose().ct_eq(b.ck.expose()) & a.ik.expose().ct_eq(b.ik.expose())).into()
}

fn has_keys(nlas: &[XfrmAttrs], algorithms: &Algorithms) -> bool {
    let same = |a: &[u8], b: &[u8]| bool::from(a.ct_eq(b));
    match algorithms {
        Algorithms::Aead(aead) => {
            nlas.iter().any(|nla| matches!(nla, XfrmAttrs::EncryptionAlgAead(found) if same(&found.alg_key, &aead.key)))
        }
        Algorithms::Separate { auth, crypt } => {
            nlas.iter()
                .any(|nla| matches!(nla, XfrmAttrs::AuthenticationAlgTrunc(found) if same(&found.alg_key, &auth.key)))
                && nlas
                    .iter()
                    .any(|nla| matches!(nla, XfrmAttrs::EncryptionAlg(found) if same(&found.alg_key, &crypt.key)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_up_and_never_for_ever() {
        let t = Time::from_secs(100);
        assert_eq!(seconds(t + Duration::from_millis(1500), t), 2);
        assert_eq!(seconds(t, t), 1);
        assert_eq!(seconds(t, t + Duration::from_secs(5)), 1);
    }

    #[test]
    fn errnos_become_errors_that_say_what_to_do() {
        assert_eq!(sa_error(-libc::EPERM, None, ""), SaError::NotPermitted);
        assert_eq!(sa_error(-libc::EPROTONOSUPPORT, Some(1), ""), SaError::NoEsp);
        assert_eq!(sa_error(-libc::ENOSYS, Some(1), "cbc(aes)"), SaError::NoAlgorithm("cbc(aes)"));
        assert_eq!(sa_error(-libc::EEXIST, Some(7), ""), SaError::SpiTaken(7));
        assert_eq!(sa_error(-libc::ESRCH, Some(7), ""), SaError::NotFound);
    }
}
