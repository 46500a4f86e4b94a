//! Netlink messages for associations and policies (TS 33.203 7.1; see xfrm(8) for their terms).

use super::keys::{Algorithm, Algorithms};
use ims_core::sa::{SaKeys, SaLeg, SaSet, SaSide};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_xfrm::constants::{
    AF_INET, AF_INET6, IPPROTO_ESP, XFRM_MODE_TRANSPORT, XFRM_POLICY_ALLOW, XFRM_POLICY_BLOCK, XFRM_POLICY_IN,
    XFRM_POLICY_OUT,
};
use netlink_packet_xfrm::policy::{DelGetMessage as PolicyId, ModifyMessage as PolicyModify};
use netlink_packet_xfrm::state::{DelGetMessage as SaId, GetDumpMessage, ModifyMessage as SaModify};
use netlink_packet_xfrm::{
    Address, Alg, AlgAead, AlgAuth, Id, LifetimeConfig, Selector, UserPolicyId, UserPolicyInfo, UserSaId, UserSaInfo,
    UserTemplate, XfrmAttrs, XfrmMessage,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Marks associations and policies as ours ("IMS1"): others are never touched.
pub(super) const REQID: u32 = 0x494d_5331;
/// Lower stands before higher.
const PRIORITY_SET: u32 = 0x1000;
/// Chosen so that a BLOCK policy with it is hardly anyone else's.
pub(super) const PRIORITY_BLOCK: u32 = 0x494d_5332;
/// Datagrams that arrive out of order within this many are taken.
const REPLAY_WINDOW: u8 = 32;

pub(super) type Message = NetlinkMessage<XfrmMessage>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Direction {
    In,
    Out,
}

impl Direction {
    /// Of a leg, as seen from one side of the set.
    pub(super) fn of(set: &SaSet, leg: &SaLeg, side: SaSide) -> Self {
        let we = match side {
            SaSide::Pcscf => (set.pcscf, [set.port_pc, set.port_ps]),
            SaSide::Ue => (set.ue, [set.port_uc, set.port_us]),
        };
        // Both ends may have one address (loopback): the ports decide then.
        if leg.dst.ip() == we.0
            && we.1.contains(&leg.dst.port())
            && (leg.src.ip() != we.0 || !we.1.contains(&leg.src.port()))
        {
            Self::In
        } else {
            Self::Out
        }
    }

    pub(super) fn code(self) -> u8 {
        match self {
            Self::In => XFRM_POLICY_IN,
            Self::Out => XFRM_POLICY_OUT,
        }
    }
}

/// What a policy is about: it names the policy, too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct PolicyKey {
    pub(super) direction: Direction,
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
}

impl PolicyKey {
    /// The end that is on this machine, as the direction says.
    pub(super) fn own_end(&self) -> SocketAddr {
        match self.direction {
            Direction::In => self.dst,
            Direction::Out => self.src,
        }
    }
}

fn family(ip: IpAddr) -> u16 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn prefix(ip: IpAddr) -> u8 {
    match ip {
        _ if ip.is_unspecified() => 0,
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn port_mask(port: u16) -> u16 {
    if port == 0 { 0 } else { u16::MAX }
}

/// Addresses and ports as given, where 0 stands for any. Protocol 0: the kernel compares ports for each protocol that has them
/// (UDP, TCP and SCTP), so that one selector serves both transports.
fn selector(src: SocketAddr, dst: SocketAddr) -> Selector {
    Selector {
        saddr: Address::from_ip(&src.ip()),
        daddr: Address::from_ip(&dst.ip()),
        sport: src.port(),
        sport_mask: port_mask(src.port()),
        dport: dst.port(),
        dport_mask: port_mask(dst.port()),
        family: family(dst.ip()),
        prefixlen_s: prefix(src.ip()),
        prefixlen_d: prefix(dst.ip()),
        ..Selector::default()
    }
}

/// Seconds since the association was added. A warning comes shortly before the end.
fn lifetime(seconds: u64) -> LifetimeConfig {
    LifetimeConfig {
        hard_add_expires_seconds: seconds,
        soft_add_expires_seconds: if seconds > 20 { seconds - 10 } else { 0 },
        ..LifetimeConfig::default()
    }
}

fn request(message: XfrmMessage, flags: u16) -> Message {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | flags;
    request
}

pub(super) fn is_ack_or_error(message: &Message) -> Option<i32> {
    match &message.payload {
        NetlinkPayload::Error(error) => Some(error.raw_code()),
        _ => None,
    }
}

pub(super) fn add_sa(leg: &SaLeg, algorithms: &Algorithms, seconds: u64) -> Message {
    request(XfrmMessage::AddSa(sa(leg, algorithms, seconds)), NLM_F_ACK)
}

pub(super) fn update_sa(leg: &SaLeg, algorithms: &Algorithms, seconds: u64) -> Message {
    request(XfrmMessage::UpdateSa(sa(leg, algorithms, seconds)), NLM_F_ACK)
}

/// Keys to go with [`update_sa`]: the kernel wants some, of the right length, and keeps those it has.
pub(super) fn no_keys() -> SaKeys {
    SaKeys { ck: [0; 16].into(), ik: [0; 16].into() }
}

fn sa(leg: &SaLeg, algorithms: &Algorithms, seconds: u64) -> SaModify {
    let user_sa_info = UserSaInfo {
        selector: selector(leg.src, leg.dst),
        id: Id { daddr: Address::from_ip(&leg.dst.ip()), spi: leg.spi, proto: IPPROTO_ESP },
        saddr: Address::from_ip(&leg.src.ip()),
        lifetime_cfg: lifetime(seconds),
        reqid: REQID,
        family: family(leg.dst.ip()),
        mode: XFRM_MODE_TRANSPORT,
        replay_window: REPLAY_WINDOW,
        ..UserSaInfo::default()
    };
    let nlas = match algorithms {
        Algorithms::Aead(aead) => vec![XfrmAttrs::EncryptionAlgAead(AlgAead {
            alg_name: name(aead),
            alg_key_len: bits(aead),
            alg_icv_len: aead.icv_bits,
            alg_key: aead.key.to_vec(),
        })],
        Algorithms::Separate { auth, crypt } => vec![
            XfrmAttrs::AuthenticationAlgTrunc(AlgAuth {
                alg_name: name(auth),
                alg_key_len: bits(auth),
                alg_trunc_len: auth.icv_bits,
                alg_key: auth.key.to_vec(),
            }),
            XfrmAttrs::EncryptionAlg(Alg {
                alg_name: name(crypt),
                alg_key_len: bits(crypt),
                alg_key: crypt.key.to_vec(),
            }),
        ],
    };
    SaModify { user_sa_info, nlas }
}

fn name(algorithm: &Algorithm) -> [u8; 64] {
    let mut name = [0; 64];
    for (to, from) in name.iter_mut().zip(algorithm.name.bytes()) {
        *to = from;
    }
    name
}

fn bits(algorithm: &Algorithm) -> u32 {
    u32::try_from(algorithm.key.len() * 8).unwrap_or(0)
}

fn sa_id(dst: IpAddr, spi: u32) -> SaId {
    let user_sa_id = UserSaId { daddr: Address::from_ip(&dst), spi, family: family(dst), proto: IPPROTO_ESP };
    SaId { user_sa_id, nlas: Vec::new() }
}

pub(super) fn delete_sa(dst: IpAddr, spi: u32) -> Message {
    request(XfrmMessage::DeleteSa(sa_id(dst, spi)), NLM_F_ACK)
}

pub(super) fn read_sa(dst: IpAddr, spi: u32) -> Message {
    request(XfrmMessage::GetSa(sa_id(dst, spi)), NLM_F_ACK)
}

pub(super) fn dump_sas() -> Message {
    request(XfrmMessage::GetDumpSa(GetDumpMessage::default()), NLM_F_DUMP)
}

pub(super) fn dump_policies() -> Message {
    request(XfrmMessage::GetPolicy(PolicyId::default()), NLM_F_DUMP)
}

/// Traffic of the leg goes through ESP and no other way. Outbound it is this very association; inbound any of ours whose own
/// selector fits, so that an old set works beside a new one that shares the ports.
pub(super) fn add_policy(key: &PolicyKey, spi: u32) -> Message {
    let template = UserTemplate {
        id: Id {
            daddr: Address::from_ip(&key.dst.ip()),
            spi: if key.direction == Direction::Out { spi } else { 0 },
            proto: IPPROTO_ESP,
        },
        family: family(key.dst.ip()),
        saddr: Address::from_ip(&key.src.ip()),
        reqid: REQID,
        mode: XFRM_MODE_TRANSPORT,
        share: 0,
        optional: 0,
        aalgos: u32::MAX,
        ealgos: u32::MAX,
        calgos: u32::MAX,
    };
    let policy = PolicyModify {
        user_policy_info: policy(key, PRIORITY_SET, XFRM_POLICY_ALLOW),
        nlas: vec![XfrmAttrs::Template(vec![template])],
    };
    request(XfrmMessage::UpdatePolicy(policy), NLM_F_ACK)
}

fn policy(key: &PolicyKey, priority: u32, action: u8) -> UserPolicyInfo {
    UserPolicyInfo {
        selector: selector(key.src, key.dst),
        priority,
        direction: key.direction.code(),
        action,
        ..UserPolicyInfo::default()
    }
}

pub(super) fn delete_policy(key: &PolicyKey) -> Message {
    delete_policy_of(selector(key.src, key.dst), key.direction.code())
}

pub(super) fn delete_policy_of(selector: Selector, direction: u8) -> Message {
    let user_policy_id = UserPolicyId { selector, index: 0, direction };
    request(XfrmMessage::DeletePolicy(PolicyId { user_policy_id, nlas: Vec::new() }), NLM_F_ACK)
}

/// The two policies that let nothing through in clear: to the port, and from it.
pub(super) fn blocks(listener: SocketAddr) -> [PolicyKey; 2] {
    let any: IpAddr = match listener {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let any = SocketAddr::new(any, 0);
    [
        PolicyKey { direction: Direction::In, src: any, dst: listener },
        PolicyKey { direction: Direction::Out, src: listener, dst: any },
    ]
}

pub(super) fn add_block(key: &PolicyKey) -> Message {
    let user_policy_info = policy(key, PRIORITY_BLOCK, XFRM_POLICY_BLOCK);
    request(XfrmMessage::UpdatePolicy(PolicyModify { user_policy_info, nlas: Vec::new() }), NLM_F_ACK)
}

pub(super) fn address(address: &Address, family: u16) -> IpAddr {
    if family == AF_INET { address.to_ipv4().into() } else { address.to_ipv6().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ims_core::sa::{AuthAlg, EncAlg, Suite};

    fn set(ue: &str, pcscf: &str) -> SaSet {
        SaSet {
            ue: ue.parse().unwrap(),
            pcscf: pcscf.parse().unwrap(),
            spi_uc: 1,
            spi_us: 2,
            spi_pc: 3,
            spi_ps: 4,
            port_uc: 31,
            port_us: 32,
            port_pc: 6101,
            port_ps: 6100,
            suite: Suite { alg: AuthAlg::HmacSha1_96, ealg: EncAlg::Null },
        }
    }

    #[test]
    fn the_two_sides_see_each_leg_from_opposite_ends_even_on_one_address() {
        use Direction::{In, Out};
        for (ue, pcscf) in [("10.0.0.2", "10.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
            let set = set(ue, pcscf);
            let of = |side| set.legs().map(|leg| Direction::of(&set, &leg, side));
            assert_eq!(of(SaSide::Pcscf), [In, Out, Out, In]);
            assert_eq!(of(SaSide::Ue), [Out, In, In, Out]);
        }
    }

    #[test]
    fn blocks_leave_the_other_end_open() {
        let [to, from] = blocks("[2001:db8::1]:6100".parse().unwrap());
        let selector = selector(to.src, to.dst);
        assert_eq!((selector.prefixlen_s, selector.prefixlen_d), (0, 128));
        assert_eq!((selector.sport_mask, selector.dport_mask, selector.dport), (0, 0xffff, 6100));
        assert_eq!(from.direction, Direction::Out);
        assert_eq!((to.own_end(), from.own_end()), (to.dst, from.src));
    }
}
