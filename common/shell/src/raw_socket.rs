//! What neither std nor socket2 reaches: ICMP errors of an unconnected UDP socket (IP_RECVERR, see ip(7)), buffers beyond the
//! system's limit (SO_RCVBUFFORCE, see socket(7)), and many datagrams in one call (recvmmsg(2)), each with the time at which the kernel
//! had it (SO_TIMESTAMPNS). Beside
//! what the allocator needs, the only unsafe code of the programs.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Asks the kernel to keep errors, each with the destination it is about.
pub(crate) fn enable_error_queue(socket: &impl AsRawFd, v6: bool) -> io::Result<()> {
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) } else { (libc::IPPROTO_IP, libc::IP_RECVERR) };
    set_option(socket, level, name, 1)
}

/// Sets a buffer's size without regard to the system's limit, which needs CAP_NET_ADMIN.
pub(crate) fn force_receive_buffer(socket: &impl AsRawFd, bytes: usize) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX))
}

/// Asks the kernel to say with each datagram when it came.
pub(crate) fn enable_arrival_times(socket: &impl AsRawFd) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
}

fn set_option(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open while `socket` is borrowed, and the value is a live c_int of the size given.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(4),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Datagrams that one [`receive_many`] takes.
pub(crate) const AT_ONCE: usize = 16;

/// Nothing waits longer in a socket's queue; a clock may have been set meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Room for one control message with a time.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Stamp([u8; 64]);

/// Takes up to [`AT_ONCE`] datagrams that have arrived, and gives each to `each` with its sender and how long it has waited in the
/// kernel; says how many there were. `room` is shared out evenly among them.
pub(crate) fn receive_many(
    socket: &impl AsRawFd,
    room: &mut [u8],
    mut each: impl FnMut(&[u8], SocketAddr, Duration),
) -> io::Result<usize> {
    let size = room.len() / AT_ONCE;
    let mut stamps = [Stamp([0; 64]); AT_ONCE];
    let mut senders: [_; AT_ONCE] = std::array::from_fn(|_| socket2::SockAddrStorage::zeroed());
    // SAFETY: all-zero bytes are valid for these C structures: null pointers and lengths of zero.
    #[allow(unsafe_code)]
    let (mut parts, mut headers) =
        unsafe { (std::mem::zeroed::<[libc::iovec; AT_ONCE]>(), std::mem::zeroed::<[libc::mmsghdr; AT_ONCE]>()) };
    for ((((header, part), sender), stamp), slot) in
        headers.iter_mut().zip(&mut parts).zip(&mut senders).zip(&mut stamps).zip(room.chunks_exact_mut(size.max(1)))
    {
        *part = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
        header.msg_hdr.msg_name = std::ptr::from_mut(sender).cast();
        header.msg_hdr.msg_namelen = sender.size_of();
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = std::ptr::from_mut(stamp).cast();
        header.msg_hdr.msg_controllen = size_of::<Stamp>() as _;
    }
    // SAFETY: every header points to a sender, a part, a stamp and a slot of `room` of its own, with their true lengths, and all of
    // them outlive the call; the kernel writes within them.
    #[allow(unsafe_code)]
    let count = unsafe {
        let flags = libc::MSG_DONTWAIT as _;
        libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), AT_ONCE as libc::c_uint, flags, std::ptr::null_mut())
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for ((header, sender), slot) in headers.iter().zip(senders).zip(room.chunks_exact(size.max(1))).take(count) {
        // SAFETY: the kernel has written an address of this length there.
        #[allow(unsafe_code)]
        let sender = unsafe { socket2::SockAddr::new(sender, header.msg_hdr.msg_namelen) };
        if let (Some(sender), Some(bytes)) = (sender.as_socket(), slot.get(..header.msg_len as usize)) {
            let since = arrival(&header.msg_hdr).unwrap_or(now);
            each(bytes, sender, now.saturating_sub(since).min(LONGEST_WAIT));
        }
    }
    Ok(count)
}

/// When the kernel had the datagram, by the wall clock.
fn arrival(header: &libc::msghdr) -> Option<Duration> {
    // SAFETY: CMSG_* walk only what the kernel said it wrote, in a buffer that lives as long as `header` points to it; a timespec is
    // read only where a message of its kind has room for one.
    #[allow(unsafe_code)]
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = next.as_ref() {
            let is_time = (message.cmsg_level, message.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS);
            if is_time && message.cmsg_len >= libc::CMSG_LEN(size_of::<libc::timespec>() as libc::c_uint) as usize {
                let time = libc::CMSG_DATA(message).cast::<libc::timespec>().read_unaligned();
                return Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?));
            }
            next = libc::CMSG_NXTHDR(header, message);
        }
    }
    None
}

/// One error: the destination of the datagram, and the errno. None when the queue is empty.
pub(crate) fn read_error(socket: &impl AsRawFd) -> io::Result<Option<(SocketAddr, i32)>> {
    #[repr(C, align(8))]
    struct Control([u8; 512]);
    let mut control = Control([0; 512]);
    let mut payload = [0u8; 256];
    let mut part = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    let mut errno = libc::EHOSTUNREACH;

    // SAFETY: every pointer in `header` refers to a local that outlives the call, with its true length; the kernel writes
    // within them. CMSG_* walk only what the kernel said it wrote. `try_init` gives storage of sockaddr_storage's size
    // and takes the length from the same header.
    #[allow(unsafe_code)]
    let (result, from) = unsafe {
        socket2::SockAddr::try_init(|storage, length| {
            let mut header: libc::msghdr = std::mem::zeroed();
            header.msg_name = storage.cast();
            header.msg_namelen = *length;
            header.msg_iov = &raw mut part;
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut control).cast();
            header.msg_controllen = size_of::<Control>() as _;
            let n = libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT);
            if n < 0 {
                let error = io::Error::last_os_error();
                return if error.kind() == io::ErrorKind::WouldBlock { Ok(false) } else { Err(error) };
            }
            *length = header.msg_namelen;
            let mut next = libc::CMSG_FIRSTHDR(&raw const header);
            while let Some(message) = next.as_ref() {
                let ours = matches!(
                    (message.cmsg_level, message.cmsg_type),
                    (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
                );
                if ours && message.cmsg_len >= libc::CMSG_LEN(4) as usize {
                    errno = libc::CMSG_DATA(message).cast::<u32>().read_unaligned().cast_signed();
                }
                next = libc::CMSG_NXTHDR(&raw const header, message);
            }
            Ok(true)
        })?
    };
    Ok(if result { from.as_socket().map(|to| (to, errno)) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_datagram_says_how_long_it_waited_in_the_kernel() {
        let (ours, theirs) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        enable_arrival_times(&ours).unwrap();
        let mut room = vec![0; AT_ONCE * 100];
        let mut receive = |wait: Duration| {
            theirs.send_to(b"x", ours.local_addr().unwrap()).unwrap();
            let sent = std::time::Instant::now();
            while sent.elapsed() < wait {
                std::thread::yield_now();
            }
            let mut seen = Vec::new();
            receive_many(&ours, &mut room, |bytes, from, waited| seen.push((bytes.to_vec(), from, waited))).unwrap();
            let [(bytes, from, waited)] = seen.try_into().unwrap();
            assert_eq!((&bytes[..], from), (&b"x"[..], theirs.local_addr().unwrap()));
            (waited, sent.elapsed())
        };
        // The kernel begins to take times a little later; what came before has none.
        let is_told = (0..100).any(|_| receive(Duration::from_millis(30)).0 >= Duration::from_millis(29));
        assert!(is_told);
        let (waited, elapsed) = receive(Duration::ZERO);
        assert!(waited <= elapsed + Duration::from_millis(5), "{waited:?} of {elapsed:?}");
    }
}
