//! A handset that shares no code with the core under test: SIP by hand, Milenage from another crate, digest by formula, and
//! security associations made with `ip xfrm` from the values in the 401.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

pub const K: [u8; 16] = *b"\x46\x5b\x5c\xe8\xb1\x99\xb4\x9f\xaa\x5f\x0a\x2e\xe2\x38\xa6\xbc";
pub const OPC: [u8; 16] = *b"\xcd\x63\xcb\x71\x95\x4a\x9f\x4e\x48\xa5\x99\x4e\x37\xa0\x2b\xaf";
pub const DOMAIN: &str = "ims.mnc001.mcc001.3gppnetwork.org";

pub type Result<T> = std::result::Result<T, String>;

/// What one attach is made with.
#[derive(Clone, Debug)]
pub struct Attach {
    pub imsi: String,
    pub ue: IpAddr,
    pub pcscf: IpAddr,
    pub tcp: bool,
    pub alg: &'static str,
    pub ealg: &'static str,
    pub port_uc: u16,
    pub port_us: u16,
    pub spi_uc: u32,
    pub spi_us: u32,
}

/// What the P-CSCF chose, from Security-Server.
#[derive(Clone, Debug)]
pub struct Server {
    pub spi_c: u32,
    pub spi_s: u32,
    pub port_c: u16,
    pub port_s: u16,
    pub line: String,
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// The value of `name=` in a header line, without quotes.
pub fn param<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split([';', ',', ' ']).find_map(|part| {
        let (key, value) = part.trim().split_once('=')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim_matches('"'))
    })
}

/// The first header line with this name.
pub fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.split("\r\n").skip(1).take_while(|l| !l.is_empty()).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

pub fn status(message: &str) -> u16 {
    message.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
}

fn md5(text: impl AsRef<[u8]>) -> String {
    hex(&Md5::digest(text.as_ref()))
}

/// RES, CK, IK for the RAND in a nonce, after the network proved itself by AUTN.
pub fn aka(nonce: &str) -> Result<([u8; 8], [u8; 16], [u8; 16])> {
    let (res, ck, ik, _) = usim(nonce)?;
    Ok((res, ck, ik))
}

/// The sequence number that the network used, unmasked.
pub fn network_sqn(nonce: &str) -> Result<u64> {
    let (.., sqn) = usim(nonce)?;
    Ok(sqn.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)))
}

type Usim = ([u8; 8], [u8; 16], [u8; 16], [u8; 6]);

fn usim(nonce: &str) -> Result<Usim> {
    let nonce = BASE64.decode(nonce).map_err(|e| format!("nonce is no base64: {e}"))?;
    let (rand, autn) = (nonce.get(..16).ok_or("short nonce")?, nonce.get(16..32).ok_or("short nonce")?);
    let rand: [u8; 16] = rand.try_into().map_err(|_| "short nonce")?;
    let mut m = milenage::Milenage::new_with_opc(K, OPC);
    let (res, ck, ik, ak) = m.f2345(&rand);
    let mut sqn = [0; 6];
    for (i, byte) in sqn.iter_mut().enumerate() {
        *byte = autn[i] ^ ak[i];
    }
    let amf: [u8; 2] = [autn[6], autn[7]];
    if m.f1(&rand, &sqn, &amf)[..] != autn[8..16] {
        return Err("AUTN: the network's MAC is wrong".into());
    }
    Ok((res, ck, ik, sqn))
}

/// RFC 3310: the digest with RES as password, qop=auth.
pub fn digest(imsi: &str, nonce: &str, res: &[u8]) -> String {
    let (user, uri, nc, cnonce) = (format!("{imsi}@{DOMAIN}"), format!("sip:{DOMAIN}"), "00000001", "0a4f113b");
    let mut a1 = format!("{user}:{DOMAIN}:").into_bytes();
    a1.extend_from_slice(res);
    let response = md5(format!("{}:{nonce}:{nc}:{cnonce}:auth:{}", md5(a1), md5(format!("REGISTER:{uri}"))));
    format!(
        "Digest username=\"{user}\",realm=\"{DOMAIN}\",nonce=\"{nonce}\",uri=\"{uri}\",response=\"{response}\",\
         algorithm=AKAv1-MD5,qop=auth,nc={nc},cnonce=\"{cnonce}\""
    )
}

impl Attach {
    /// Over UDP, with ports, SPIs and algorithms that serve as well as others.
    pub fn new(imsi: impl Into<String>, ue: IpAddr, pcscf: IpAddr) -> Self {
        Self {
            imsi: imsi.into(),
            ue,
            pcscf,
            tcp: false,
            alg: "hmac-sha-1-96",
            ealg: "null",
            port_uc: 5065,
            port_us: 5064,
            spi_uc: 0x1001,
            spi_us: 0x1002,
        }
    }

    /// `alg`/`ealg` over `udp|tcp` on IPv4 or IPv6, for messages.
    pub fn name(&self) -> String {
        let family = if self.ue.is_ipv4() { "IPv4" } else { "IPv6" };
        format!("{}/{} {} {family}", self.alg, self.ealg, if self.tcp { "TCP" } else { "UDP" })
    }

    fn transport(&self) -> &'static str {
        if self.tcp { "TCP" } else { "UDP" }
    }

    pub fn register(&self, cseq: u32, port: u16, authorization: &str, verify: Option<&str>, expires: u32) -> String {
        let (ue, imsi) = (host(self.ue), &self.imsi);
        let Self { alg, ealg, spi_uc, spi_us, port_uc, port_us, .. } = self;
        let verify = verify.map_or(String::new(), |v| format!("Security-Verify: {v}\r\n"));
        format!(
            "REGISTER sip:{DOMAIN} SIP/2.0\r\n\
             Via: SIP/2.0/{} {ue}:{port};branch=z9hG4bKk{imsi}{cseq};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:{imsi}@{DOMAIN}>;tag=t{imsi}\r\nTo: <sip:{imsi}@{DOMAIN}>\r\n\
             Call-ID: kernel-{imsi}-{}\r\nCSeq: {cseq} REGISTER\r\n\
             Contact: <sip:{imsi}@{ue}:{port_us}>;+g.3gpp.smsip;expires={expires}\r\n\
             Authorization: {authorization}\r\n\
             Require: sec-agree\r\nProxy-Require: sec-agree\r\nSupported: path,sec-agree\r\n\
             Security-Client: ipsec-3gpp;alg={alg};ealg={ealg};prot=esp;mod=trans;spi-c={spi_uc};spi-s={spi_us};\
             port-c={port_uc};port-s={port_us}\r\n{verify}Content-Length: 0\r\n\r\n",
            self.transport(),
            self.transport(),
        )
    }

    pub fn empty_authorization(&self) -> String {
        let imsi = &self.imsi;
        format!("Digest username=\"{imsi}@{DOMAIN}\",realm=\"{DOMAIN}\",nonce=\"\",uri=\"sip:{DOMAIN}\",response=\"\"")
    }

    /// First REGISTER in clear; gives the 401.
    pub fn challenge(&self) -> Result<String> {
        let message = self.register(1, 5060, &self.empty_authorization(), None, 600_000);
        let answer = if self.tcp {
            exchange_tcp(SocketAddr::new(self.ue, 0), SocketAddr::new(self.pcscf, 5060), &message)?.0
        } else {
            let socket = UdpSocket::bind(SocketAddr::new(self.ue, 5060)).map_err(|e| format!("bind 5060: {e}"))?;
            exchange_udp(&socket, &socket, SocketAddr::new(self.pcscf, 5060), &message)?
        };
        match status(&answer) {
            401 => Ok(answer),
            other => Err(format!("first REGISTER: {other}\n{answer}")),
        }
    }

    fn send_in_clear(&self, cseq: u32, authorization: &str, expires: u32) -> Result<String> {
        let text = self.register(cseq, 5060, authorization, None, expires);
        let message = text
            .lines()
            .filter(|l| !l.contains("sec-agree") && !l.starts_with("Security-"))
            .fold(String::new(), |all, line| if line.is_empty() { all } else { all + line + "\r\n" })
            + "\r\n";
        let to = SocketAddr::new(self.pcscf, 5060);
        if self.tcp {
            return exchange_tcp(SocketAddr::new(self.ue, 0), to, &message).map(|(answer, _)| answer);
        }
        let socket = UdpSocket::bind(SocketAddr::new(self.ue, 5060)).map_err(|e| e.to_string())?;
        exchange_udp(&socket, &socket, to, &message)
    }

    /// Reads Security-Server, after checking that the keys stayed inside the core.
    pub fn server(&self, challenge: &str) -> Result<Server> {
        // As parameters: "ck=" alone may also be the end of a nonce in base64.
        let mut parameters = challenge.split([' ', ',', ';']).map(str::to_ascii_lowercase);
        if parameters.any(|p| p.starts_with("ck=") || p.starts_with("ik=")) {
            return Err("the 401 towards the handset carries ck or ik".into());
        }
        let line = header(challenge, "Security-Server").ok_or("the 401 has no Security-Server")?;
        let number = |name| param(line, name).and_then(|v| v.parse().ok()).ok_or(format!("{name} missing: {line}"));
        if param(line, "alg") != Some(self.alg) || param(line, "ealg").unwrap_or("null") != self.ealg {
            return Err(format!("another suite was chosen: {line}"));
        }
        let port = |name| number(name).and_then(|p| u16::try_from(p).map_err(|_| format!("bad {name}")));
        Ok(Server {
            spi_c: number("spi-c")?,
            spi_s: number("spi-s")?,
            port_c: port("port-c")?,
            port_s: port("port-s")?,
            line: line.into(),
        })
    }

    /// Four SAs and the policies that lead to them, by `ip xfrm` in this network namespace.
    pub fn install(&self, server: &Server, ck: &[u8; 16], ik: &[u8; 16]) -> Result<()> {
        let algorithm = algorithm_words(self.alg, self.ealg, ck, ik);
        let (ue, p) = (self.ue.to_string(), self.pcscf.to_string());
        let legs = [
            (true, self.port_uc, server.port_s, server.spi_s),
            (true, self.port_us, server.port_c, server.spi_c),
            (false, self.port_uc, server.port_s, self.spi_uc),
            (false, self.port_us, server.port_c, self.spi_us),
        ];
        for (out, ue_port, p_port, spi) in legs {
            let (src, dst) = if out { (&ue, &p) } else { (&p, &ue) };
            let (sport, dport) = if out { (ue_port, p_port) } else { (p_port, ue_port) };
            let mut words = vec!["state", "add", "src", src, "dst", dst, "proto", "esp", "spi"];
            let (spi, reqid) = (format!("{spi:#x}"), spi.to_string());
            words.extend([spi.as_str(), "mode", "transport", "reqid", &reqid]);
            words.extend(algorithm.iter().map(String::as_str));
            ip_xfrm(&words)?;
            let (sport, dport) = (sport.to_string(), dport.to_string());
            for proto in ["udp", "tcp"] {
                let dir = if out { "out" } else { "in" };
                ip_xfrm(&[
                    "policy",
                    "add",
                    "src",
                    src,
                    "dst",
                    dst,
                    "proto",
                    proto,
                    "sport",
                    &sport,
                    "dport",
                    &dport,
                    "dir",
                    dir,
                    "tmpl",
                    "src",
                    src,
                    "dst",
                    dst,
                    "proto",
                    "esp",
                    "mode",
                    "transport",
                    "reqid",
                    &reqid,
                ])?;
            }
        }
        Ok(())
    }

    /// The second REGISTER (or any later one) through the SAs; gives the final answer.
    pub fn protected(&self, server: &Server, message: &str) -> Result<String> {
        let to = SocketAddr::new(self.pcscf, server.port_s);
        if self.tcp {
            return exchange_tcp(SocketAddr::new(self.ue, self.port_uc), to, message).map(|(answer, _)| answer);
        }
        let client = UdpSocket::bind(SocketAddr::new(self.ue, self.port_uc)).map_err(|e| format!("port_uc: {e}"))?;
        let own = UdpSocket::bind(SocketAddr::new(self.ue, self.port_us)).map_err(|e| format!("port_us: {e}"))?;
        own.connect(SocketAddr::new(self.pcscf, server.port_c)).map_err(|e| format!("port_us: {e}"))?;
        exchange_udp(&client, &own, to, message)
    }

    /// The whole attach; gives the 200.
    pub fn attach(&self) -> Result<(Server, String)> {
        let challenge = self.challenge()?;
        let server = self.server(&challenge)?;
        let line = header(&challenge, "WWW-Authenticate").ok_or("no WWW-Authenticate")?;
        let nonce = param(line, "nonce").ok_or("no nonce")?;
        let (res, ck, ik) = aka(nonce)?;
        self.install(&server, &ck, &ik)?;
        let authorization = digest(&self.imsi, nonce, &res);
        let answer =
            self.protected(&server, &self.register(2, self.port_us, &authorization, Some(&server.line), 600_000))?;
        match status(&answer) {
            200 => Ok((server, answer)),
            other => Err(format!("protected REGISTER: {other}\n{answer}")),
        }
    }
}

/// A handset's two sockets for UDP inside its SAs: it sends from one, and hears on the other (TS 33.203 7.1).
pub struct Talk<'a> {
    attach: &'a Attach,
    own: &'a UdpSocket,
    client: UdpSocket,
    to: SocketAddr,
    sent: u32,
}

impl<'a> Talk<'a> {
    /// `own` is bound to port_us, which stays when the SAs change.
    pub fn new(attach: &'a Attach, server: &Server, own: &'a UdpSocket) -> Result<Self> {
        let client =
            UdpSocket::bind(SocketAddr::new(attach.ue, attach.port_uc)).map_err(|e| format!("port_uc: {e}"))?;
        Ok(Self { attach, own, client, to: SocketAddr::new(attach.pcscf, server.port_s), sent: 0 })
    }

    fn send(&self, message: &str) -> Result<()> {
        self.client.send_to(message.as_bytes(), self.to).map(drop).map_err(|e| format!("send: {e}"))
    }

    /// Sends an OPTIONS for the P-CSCF itself, and does not wait for its answer.
    pub fn options(&mut self) -> Result<()> {
        self.sent += 1;
        let Attach { imsi, port_us, port_uc, .. } = self.attach;
        let (ue, pcscf, n) = (host(self.attach.ue), host(self.attach.pcscf), self.sent);
        self.send(&format!(
            "OPTIONS sip:{pcscf} SIP/2.0\r\nVia: SIP/2.0/UDP {ue}:{port_us};branch=z9hG4bKo{imsi}{port_uc}{n}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{imsi}@{DOMAIN}>;tag=o\r\nTo: <sip:{pcscf}>\r\n\
             Call-ID: options-{imsi}-{port_uc}\r\nCSeq: {n} OPTIONS\r\nContent-Length: 0\r\n\r\n"
        ))
    }

    /// Sends a REGISTER, and hears until it and `options` requests are answered. Gives the answer to the REGISTER.
    pub fn register(&self, message: &str, mut options: usize) -> Result<String> {
        self.send(message)?;
        let mut answer = None;
        while answer.is_none() || options > 0 {
            let text = self.hear()?;
            match header(&text, "CSeq") {
                Some(cseq) if cseq.ends_with("REGISTER") => answer = Some(text),
                _ if status(&text) == 200 => options = options.saturating_sub(1),
                _ => return Err(format!("OPTIONS was refused:\n{text}")),
            }
        }
        answer.ok_or_else(|| "no answer".into())
    }

    pub fn hear(&self) -> Result<String> {
        self.own.set_read_timeout(Some(Duration::from_secs(10))).map_err(|e| e.to_string())?;
        let mut buffer = [0; 65_535];
        let n = self.own.recv(&mut buffer).map_err(|e| format!("nothing is heard on port_us: {e}"))?;
        Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
    }

    /// Nothing comes for a while.
    pub fn is_silent(&self, time: Duration) -> bool {
        let _ = self.own.set_read_timeout(Some(time));
        self.own.recv(&mut [0; 65_535]).is_err()
    }
}

/// A new authentication inside the SAs of `old`, with requests under way all the time (TS 33.203 7.4): what is sent over the
/// old set is answered before, while and after the new one comes up. Gives the handset with its new SAs.
pub fn reauthenticate(old: &Attach, server: &Server) -> Result<(Attach, Server)> {
    const BURST: usize = 5;
    let own = UdpSocket::bind(SocketAddr::new(old.ue, old.port_us)).map_err(|e| format!("port_us: {e}"))?;
    let new = Attach {
        port_uc: old.port_uc + 4000,
        spi_uc: old.spi_uc + 0x10_0000,
        spi_us: old.spi_us + 0x10_0000,
        ..old.clone()
    };
    let mut before = Talk::new(old, server, &own)?;
    (0..BURST).try_for_each(|_| before.options())?;
    let message = new.register(20, old.port_us, &old.empty_authorization(), Some(&server.line), 600_000);
    let challenge = before.register(&message, BURST)?;
    if status(&challenge) != 401 {
        return Err(format!("no challenge:\n{challenge}"));
    }
    let fresh = new.server(&challenge)?;
    let line = header(&challenge, "WWW-Authenticate").ok_or("no WWW-Authenticate")?;
    let nonce = param(line, "nonce").ok_or("no nonce")?;
    let (res, ck, ik) = aka(nonce)?;
    new.install(&fresh, &ck, &ik)?;
    if fresh.port_s != server.port_s || fresh.port_c == server.port_c {
        return Err(format!("the server port stays and the client port changes: {server:?} {fresh:?}"));
    }
    (0..BURST).try_for_each(|_| before.options())?;
    let mut after = Talk::new(&new, &fresh, &own)?;
    after.options()?;
    let message = new.register(21, old.port_us, &digest(&old.imsi, nonce, &res), Some(&fresh.line), 600_000);
    let answer = after.register(&message, BURST + 1)?;
    if status(&answer) != 200 {
        return Err(format!("over the new SAs:\n{answer}"));
    }
    before.options()?;
    before.hear()?;
    Ok((new.clone(), fresh))
}

/// The whole attach without IPsec and without a word of it, as by a handset that knows no sec-agree. Gives the nonce that it
/// answered.
pub fn attach_in_clear(attach: &Attach) -> Result<String> {
    register_in_clear(attach, 1, 3600)
}

/// Two REGISTERs without IPsec, from this CSeq on: a first one, a refresh, or with 0 a de-registration.
pub fn register_in_clear(attach: &Attach, cseq: u32, expires: u32) -> Result<String> {
    let nonce = challenge_in_clear(attach, cseq, expires)?;
    let (res, ..) = aka(&nonce)?;
    let answer = attach.send_in_clear(cseq + 1, &digest(&attach.imsi, &nonce, &res), expires)?;
    if status(&answer) == 200 { Ok(nonce) } else { Err(answer) }
}

/// The first of them: gives the nonce of the 401.
pub fn challenge_in_clear(attach: &Attach, cseq: u32, expires: u32) -> Result<String> {
    let challenge = attach.send_in_clear(cseq, &attach.empty_authorization(), expires)?;
    let line = header(&challenge, "WWW-Authenticate").ok_or(challenge.clone())?;
    Ok(param(line, "nonce").ok_or("no nonce")?.into())
}

/// The words of `ip xfrm state` for a suite (TS 33.203 Annex H and I).
fn algorithm_words(alg: &str, ealg: &str, ck: &[u8; 16], ik: &[u8; 16]) -> Vec<String> {
    let key = |bytes: &[u8]| format!("0x{}", hex(bytes));
    let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    match (alg, ealg) {
        ("aes-gmac", _) => {
            let key = key(&[ik.as_slice(), &salt(0x58, "AES_GMAC_SALT", ck, ik)].concat());
            return words(&["aead", "rfc4543(gcm(aes))", &key, "128"]);
        }
        (_, "aes-gcm") => {
            let key = key(&[ck.as_slice(), &salt(0x59, "AES_GCM_SALT", ck, ik)].concat());
            return words(&["aead", "rfc4106(gcm(aes))", &key, "128"]);
        }
        _ => {}
    }
    let integrity = match alg {
        "hmac-sha-1-96" => words(&["auth-trunc", "hmac(sha1)", &key(&[ik.as_slice(), &[0; 4]].concat()), "96"]),
        _ => words(&["auth-trunc", "hmac(md5)", &key(ik), "96"]),
    };
    let cipher = match ealg {
        "aes-cbc" => words(&["enc", "cbc(aes)", &key(ck)]),
        "des-ede3-cbc" => words(&["enc", "cbc(des3_ede)", &key(&[ck.as_slice(), &ck[..8]].concat())]),
        _ => words(&["enc", "ecb(cipher_null)", ""]),
    };
    [integrity, cipher].concat()
}

/// TS 33.203 Annex I with the KDF of TS 33.220 B.2: the low 32 bits of HMAC-SHA-256(CK || IK, FC || P0 || L0).
fn salt(fc: u8, name: &str, ck: &[u8; 16], ik: &[u8; 16]) -> [u8; 4] {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&[ck.as_slice(), ik].concat()).expect("any key length");
    mac.update(&[fc]);
    mac.update(name.as_bytes());
    mac.update(&u16::try_from(name.len()).unwrap_or(0).to_be_bytes());
    let out = mac.finalize().into_bytes();
    [out[28], out[29], out[30], out[31]]
}

pub fn ip_xfrm(words: &[&str]) -> Result<String> {
    let out = Command::new("ip").arg("xfrm").args(words).output().map_err(|e| format!("ip: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() {
        return Ok(text);
    }
    Err(format!("ip xfrm {} {}: {}", words[0], words[1], String::from_utf8_lossy(&out.stderr).trim()))
}

/// Sends on one socket, listens on another (TS 33.203 7.1), retransmitting as a UE does, until a final answer.
pub fn exchange_udp(from: &UdpSocket, on: &UdpSocket, to: SocketAddr, message: &str) -> Result<String> {
    on.set_read_timeout(Some(Duration::from_secs(2))).map_err(|e| e.to_string())?;
    let mut buffer = [0; 65_535];
    for _ in 0..4 {
        from.send_to(message.as_bytes(), to).map_err(|e| format!("send to {to}: {e}"))?;
        while let Ok(n) = on.recv(&mut buffer) {
            let answer = String::from_utf8_lossy(&buffer[..n]).into_owned();
            if status(&answer) >= 200 {
                return Ok(answer);
            }
        }
    }
    Err(format!("no answer from {to} over UDP"))
}

/// Over a connection from `from` (port 0: any), until a final answer. Gives the connection back, still open.
pub fn exchange_tcp(from: SocketAddr, to: SocketAddr, message: &str) -> Result<(String, TcpStream)> {
    let mut stream = connect(from, to)?;
    stream.set_read_timeout(Some(Duration::from_secs(8))).map_err(|e| e.to_string())?;
    stream.write_all(message.as_bytes()).map_err(|e| format!("write to {to}: {e}"))?;
    let mut text = String::new();
    let mut buffer = [0; 8192];
    loop {
        let n = stream.read(&mut buffer).map_err(|e| format!("no answer from {to} over TCP: {e}"))?;
        if n == 0 {
            return Err(format!("{to} closed the connection; got:\n{text}"));
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        while let Some(end) = text.find("\r\n\r\n") {
            let rest = text.split_off(end + 4);
            if status(&text) >= 200 {
                return Ok((text, stream));
            }
            text = rest;
        }
    }
}

/// The standard library cannot connect from a chosen port, so the socket is made by socket2.
fn connect(from: SocketAddr, to: SocketAddr) -> Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)
        .map_err(|e| e.to_string())?;
    socket.set_reuse_address(true).map_err(|e| e.to_string())?;
    socket.bind(&from.into()).map_err(|e| format!("bind {from}: {e}"))?;
    socket.connect_timeout(&to.into(), Duration::from_secs(8)).map_err(|e| format!("connect {from} -> {to}: {e}"))?;
    Ok(socket.into())
}

/// An address for the n-th handset: on loopback, each has its own.
pub fn loopback(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 66, 0, n))
}
