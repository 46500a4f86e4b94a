//! ICMP errors of an unconnected UDP socket (IP_RECVERR, see ip(7)). The only unsafe code of the project: neither std nor
//! socket2 reaches the error queue.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

/// Asks the kernel to keep errors, each with the destination it is about.
pub(crate) fn enable(socket: &impl AsRawFd, v6: bool) -> io::Result<()> {
    let on: libc::c_int = 1;
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) } else { (libc::IPPROTO_IP, libc::IP_RECVERR) };
    // SAFETY: the descriptor is open while `socket` is borrowed, and the value is a live c_int of the size given.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(4),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One error: the destination of the datagram, and the errno. None when the queue is empty.
pub(crate) fn read(socket: &impl AsRawFd) -> io::Result<Option<(SocketAddr, i32)>> {
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
