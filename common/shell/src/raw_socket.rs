//! What neither std nor socket2 reaches: ICMP errors of an unconnected UDP socket (IP_RECVERR, see ip(7)), and buffers beyond
//! the system's limit (SO_RCVBUFFORCE, see socket(7)). The only unsafe code of the project.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

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
