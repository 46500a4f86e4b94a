//! Cx commands against bytes written by hand, against themselves, and against damage.

use bytes::Bytes;
use ims_core::{Impi, Impu, Rng, Secret};
use ims_diameter::avp::Writer;
use ims_diameter::cx::*;
use ims_diameter::dict::{self, Def, Kind};
use ims_diameter::{DiameterError, Message};

fn impi() -> Impi {
    Impi::parse("a@b").unwrap()
}

fn impu() -> Impu {
    Impu::parse("sip:a@b").unwrap()
}

fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<_>>().into()
}

fn mar() -> Mar {
    let (server_name, scheme) = ("sip:s".into(), "Digest-AKAv1-MD5".into());
    Mar { impi: impi(), impu: impu(), server_name, items: 1, scheme, authorization: None }
}

fn aka(item: u32) -> AuthItem {
    AuthItem::Aka {
        item,
        rand: [0x11; 16],
        autn: [0x22; 16],
        xres: vec![0x33; 8],
        ck: Secret::new([0x44; 16]),
        ik: Secret::new([0x55; 16]),
    }
}

fn maa(items: Vec<AuthItem>) -> Maa {
    Maa { result: ResultCode::SUCCESS, impi: Some(impi()), impu: Some(impu()), items }
}

/// By hand from TS 29.229 6.1.8 and RFC 6733 4.1.
const MAA: &str = "
    01 00012c  40 00012f  01000000  01020304  05060708
    00000104 40 000020  0000010a 40 00000c 000028af  00000102 40 00000c 01000000
    00000115 40 00000c 00000001
    0000010c 40 00000c 000007d1
    00000001 40 00000b 614062 00
    00000259 c0 000013 000028af 7369703a614062 00
    0000025f c0 000010 000028af 00000001
    00000264 c0 0000b0 000028af
      00000265 c0 000010 000028af 00000001
      00000260 c0 00001c 000028af 4469676573742d414b4176312d4d4435
      00000261 c0 00002c 000028af 11111111111111111111111111111111 22222222222222222222222222222222
      00000262 c0 000014 000028af 3333333333333333
      00000271 c0 00001c 000028af 44444444444444444444444444444444
      00000272 c0 00001c 000028af 55555555555555555555555555555555";

fn with_ids(mut m: Message) -> Message {
    (m.hop_by_hop, m.end_to_end) = (0x0102_0304, 0x0506_0708);
    m
}

#[test]
fn an_maa_has_the_bytes_that_the_specification_says() {
    let answer = maa(vec![aka(1)]).to_message(&with_ids(mar().to_message()));
    let expected = hex(MAA);
    assert_eq!(expected.len(), 0x12c);
    assert_eq!(answer.to_bytes(), expected);
    let read = Maa::from_message(&Message::parse(expected).unwrap()).unwrap();
    assert_eq!((read.result, read.impi, read.impu), (ResultCode::SUCCESS, Some(impi()), Some(impu())));
    let [AuthItem::Aka { item: 1, rand, autn, xres, ck, ik }] = &read.items[..] else { panic!("{:?}", read.items) };
    assert_eq!((rand, autn, &xres[..]), (&[0x11; 16], &[0x22; 16], &[0x33; 8][..]));
    assert_eq!((ck.expose(), ik.expose()), (&[0x44; 16], &[0x55; 16]));
}

#[test]
fn vectors_are_taken_in_the_order_of_their_item_numbers() {
    let answer = maa(vec![aka(3), aka(1), aka(2)]).to_message(&mar().to_message());
    let read = Maa::from_message(&answer).unwrap();
    let order: Vec<u32> =
        read.items.iter().map(|i| if let AuthItem::Aka { item, .. } = i { *item } else { 0 }).collect();
    assert_eq!(order, [1, 2, 3]);
}

#[test]
fn every_request_survives_the_wire() {
    let capable = ServerCapabilities { mandatory: vec![1, 2], optional: vec![3], server_names: vec!["sip:s".into()] };
    let visited_network = Some(b"ims.example".to_vec());
    let kind = UserAuthorizationType::RegistrationAndCapabilities;
    let charging = ChargingInformation { primary_ccf: Some("aaa://ccf".into()), ..ChargingInformation::default() };
    let requests = [
        Request::Uar(Uar { impi: impi(), impu: impu(), visited_network, kind, emergency: true }),
        Request::Mar(Mar { authorization: Some(vec![7; 30]), ..mar() }),
        Request::Sar(Sar {
            impi: Some(impi()),
            impus: vec![impu(), Impu::parse("tel:+491").unwrap()],
            server_name: "sip:s".into(),
            kind: ServerAssignmentType::Restoration,
            data_already_available: true,
            wildcarded: Some("sip:!.*!@b".into()),
        }),
        Request::Lir(Lir { impu: impu(), originating: true, capabilities: true }),
        Request::Rtr(Rtr {
            impi: impi(),
            impus: vec![],
            reason: ReasonCode::RemoveScscf,
            reason_info: Some("moved".into()),
        }),
        Request::Ppr(Ppr { impi: impi(), user_data: Some(b"<x/>".to_vec()), charging: Some(charging.clone()) }),
    ];
    for request in requests {
        let m = match &request {
            Request::Uar(r) => r.to_message(),
            Request::Mar(r) => r.to_message(),
            Request::Sar(r) => r.to_message(),
            Request::Lir(r) => r.to_message(),
            Request::Rtr(r) => r.to_message(),
            Request::Ppr(r) => r.to_message(),
        };
        let received = Message::parse(m.to_bytes()).unwrap();
        assert_eq!(received.avps().unsupported(), None);
        assert_eq!(Request::from_message(&received), Ok(request));
    }
    let m = mar().to_message();
    let result = ResultCode::UNREGISTERED_SERVICE;
    let server_name = Some("sip:s".to_owned());
    let uaa = Uaa { result, server_name: server_name.clone(), capabilities: Some(capable.clone()) };
    assert_eq!(Uaa::from_message(&uaa.to_message(&m)), Ok(uaa));
    let wildcarded = Some("sip:x@b".into());
    let lia = Lia { result, server_name, capabilities: Some(capable), wildcarded, is_direct: true };
    assert_eq!(Lia::from_message(&lia.to_message(&m)), Ok(lia));
    let user_data = Some(vec![b'x'; 70_001]);
    let saa = Saa { result, impi: Some(impi()), user_data, charging: Some(charging), associated: vec![impi()] };
    assert_eq!(Saa::from_message(&saa.to_message(&m)), Ok(saa));
    assert_eq!(Rta::from_message(&Rta { result }.to_message(&m)), Ok(Rta { result }));
    assert_eq!(Ppa::from_message(&Ppa { result }.to_message(&m)), Ok(Ppa { result }));
}

#[test]
fn digest_credentials_survive_the_wire_and_are_not_printed() {
    let (algorithm, qop) = (Some("MD5".into()), Some("auth".into()));
    let alternate = Some(("SHA-256".to_owned(), "fedcba9876543210".to_owned().into()));
    let ha1 = "0123456789abcdef".to_owned().into();
    let item = AuthItem::Digest(Box::new(DigestItem { realm: "b".into(), algorithm, qop, ha1, alternate }));
    let m = maa(vec![item]).to_message(&mar().to_message());
    let read = Maa::from_message(&m).unwrap();
    let [AuthItem::Digest(digest)] = &read.items[..] else { panic!() };
    assert_eq!(
        (digest.realm.as_str(), digest.algorithm.as_deref(), digest.qop.as_deref()),
        ("b", Some("MD5"), Some("auth"))
    );
    assert_eq!(*digest.ha1, "0123456789abcdef");
    let (algorithm, ha1) = digest.alternate.as_ref().unwrap();
    assert_eq!((algorithm.as_str(), ha1.as_str()), ("SHA-256", "fedcba9876543210"));
    assert!(!format!("{read:?}{m:?}").contains("01234") && !format!("{read:?}{m:?}").contains("fedcba"));
}

#[test]
fn result_code_and_experimental_result_are_never_both_there() {
    let request = mar().to_message();
    for result in [ResultCode::SUCCESS, ResultCode::FIRST_REGISTRATION, ResultCode::TOO_BUSY] {
        let m = Uaa { result, server_name: None, capabilities: None }.to_message(&request);
        let avps = m.avps();
        assert!(avps.first(&dict::RESULT_CODE).is_some() != avps.first(&dict::EXPERIMENTAL_RESULT).is_some());
        assert_eq!(ResultCode::from_message(&m), Ok(result));
        assert_eq!(m.is_error(), result == ResultCode::TOO_BUSY);
    }
}

#[test]
fn a_protocol_error_gives_an_answer_with_only_a_result() {
    let bare = mar().to_message().error_answer(&DiameterError::Realm);
    assert_eq!(Maa::from_message(&bare).unwrap().result, ResultCode::Base(3003));
    assert_eq!(Uaa::from_message(&bare).unwrap().result, ResultCode::Base(3003));
    assert_eq!(Saa::from_message(&bare).unwrap().user_data, None);
}

fn without(m: &Message, def: &Def) -> Message {
    Message::request(m.command(), m.application())
        .with(|w| m.avps().iter().filter(|a| !a.is(def)).for_each(|a| w.copy(&a)))
        .build()
}

#[test]
fn what_is_missing_is_named() {
    let m = mar().to_message();
    for def in [
        &dict::USER_NAME,
        &dict::PUBLIC_IDENTITY,
        &dict::SERVER_NAME,
        &dict::SIP_AUTH_DATA_ITEM,
        &dict::SIP_NUMBER_AUTH_ITEMS,
    ] {
        let error = Request::from_message(&without(&m, def)).unwrap_err();
        assert_eq!((error.result_code(), error.failed_avp().unwrap().code), (5005, def.code));
        let answer = m.error_answer(&error);
        let failed = answer.avps().first(&dict::FAILED_AVP).unwrap().group().unwrap();
        assert!(failed.first(def).is_some());
    }
    for def in [&dict::AUTH_SESSION_STATE, &dict::VENDOR_SPECIFIC_APPLICATION_ID] {
        assert!(Request::from_message(&without(&m, def)).is_ok());
    }
}

fn replaced(m: &Message, def: &Def, data: &[u8]) -> Message {
    let mut out = Writer::default();
    m.avps().iter().filter(|a| !a.is(def)).for_each(|a| out.copy(&a));
    out.octets(def, data);
    let bytes = out.into_vec();
    Message::request(m.command(), m.application())
        .with(|w| ims_diameter::avp::Avps::parse(&bytes).unwrap().iter().for_each(|a| w.copy(&a)))
        .build()
}

#[test]
fn wrong_lengths_are_5014_and_wrong_values_5004() {
    let m = mar().to_message();
    let code = |m: &Message| Request::from_message(m).unwrap_err().result_code();
    assert_eq!(code(&replaced(&m, &dict::SIP_NUMBER_AUTH_ITEMS, &[1, 2, 3])), 5014);
    assert_eq!(code(&replaced(&m, &dict::USER_NAME, &[0xff, 0xfe])), 5004);
    assert_eq!(code(&replaced(&m, &dict::PUBLIC_IDENTITY, b"no uri")), 5004);
    let sar = Sar {
        impi: None,
        impus: vec![impu()],
        server_name: "sip:s".into(),
        kind: ServerAssignmentType::Registration,
        data_already_available: false,
        wildcarded: None,
    };
    let m = sar.to_message();
    assert_eq!(code(&replaced(&m, &dict::SERVER_ASSIGNMENT_TYPE, &[0, 0, 0, 99])), 5004);
    assert_eq!(code(&without(&m, &dict::PUBLIC_IDENTITY)), 5005);
    // Twice what may be there once.
    let twice = Message::request(m.command(), m.application())
        .with(|w| m.avps().iter().chain(m.avps().all(&dict::SERVER_NAME)).for_each(|a| w.copy(&a)))
        .build();
    assert_eq!(code(&twice), 5009);
}

#[test]
fn supported_features_and_strangers_are_tolerated() {
    let stranger = Def { code: 4711, vendor: 99, name: "?", kind: Kind::OctetString, mandatory: false };
    let m = mar().to_message();
    let more = Message::request(m.command(), m.application())
        .with(|w| {
            m.avps().iter().for_each(|a| w.copy(&a));
            w.octets(&stranger, b"?");
            w.group(&dict::SUPPORTED_FEATURES, |w| {
                w.u32(&dict::VENDOR_ID, VENDOR_3GPP);
                w.u32(&dict::FEATURE_LIST_ID, 1);
                w.u32(&dict::FEATURE_LIST, 3);
            });
        })
        .build();
    assert_eq!(more.avps().unsupported(), None);
    assert_eq!(Request::from_message(&more), Ok(Request::Mar(mar())));
}

#[test]
fn damaged_messages_are_refused_with_a_result_code_and_never_panic() {
    let mut rng = Rng::from_u64(42);
    let request = mar().to_message();
    let seeds = [request.to_bytes(), maa(vec![aka(1), aka(2)]).to_message(&request).to_bytes()];
    for round in 0..40_000u64 {
        let mut bytes = seeds[(round & 1) as usize].to_vec();
        for _ in 0..=rng.below(3) {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = match rng.below(3) {
                0 => 0xff,
                1 => 0,
                _ => bytes[at] ^ (1 << rng.below(8)),
            };
        }
        let refusal = match Message::parse(bytes.into()) {
            Ok(m) if m.is_request() => Request::from_message(&m).err(),
            Ok(m) => Maa::from_message(&m).err(),
            Err(error) => Some(error),
        };
        if let Some(error) = refusal {
            assert!((3000..6000).contains(&error.result_code()), "{error:?}");
            assert!(request.error_answer(&error).to_bytes().len() < 2048);
        }
    }
}
