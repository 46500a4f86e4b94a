//! What neither std nor socket2 reaches: ICMP errors of an unconnected UDP socket (IP_RECVERR, see ip(7)), buffers beyond the
//! system's limit (SO_RCVBUFFORCE, see socket(7)), and many datagrams in one call (recvmmsg(2)). The only unsafe code of the project.

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

/// Datagrams that one [`receive_many`] takes.
pub(crate) const AT_ONCE: usize = 16;

/// Takes up to [`AT_ONCE`] datagrams that have arrived, and gives each to `each` with its sender; says how many there were. `room`
/// is shared out evenly among them.
pub(crate) fn receive_many(
    socket: &impl AsRawFd,
    room: &mut [u8],
    mut each: impl FnMut(&[u8], SocketAddr),
) -> io::Result<usize> {
    let size = room.len() / AT_ONCE;
    let mut senders: [_; AT_ONCE] = std::array::from_fn(|_| socket2::SockAddrStorage::zeroed());
    // SAFETY: all-zero bytes are valid for these C structures: null pointers and lengths of zero.
    #[allow(unsafe_code)]
    let (mut parts, mut headers) =
        unsafe { (std::mem::zeroed::<[libc::iovec; AT_ONCE]>(), std::mem::zeroed::<[libc::mmsghdr; AT_ONCE]>()) };
    for (((header, part), sender), slot) in
        headers.iter_mut().zip(&mut parts).zip(&mut senders).zip(room.chunks_exact_mut(size.max(1)))
    {
        *part = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
        header.msg_hdr.msg_name = std::ptr::from_mut(sender).cast();
        header.msg_hdr.msg_namelen = sender.size_of();
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: every header points to a sender, a part and a slot of `room` of its own, with their true lengths, and all of them
    // outlive the call; the kernel writes within them.
    #[allow(unsafe_code)]
    let count = unsafe {
        let flags = libc::MSG_DONTWAIT as _;
        libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), AT_ONCE as libc::c_uint, flags, std::ptr::null_mut())
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    for ((header, sender), slot) in headers.iter().zip(senders).zip(room.chunks_exact(size.max(1))).take(count) {
        // SAFETY: the kernel has written an address of this length there.
        #[allow(unsafe_code)]
        let sender = unsafe { socket2::SockAddr::new(sender, header.msg_hdr.msg_namelen) };
        if let (Some(sender), Some(bytes)) = (sender.as_socket(), slot.get(..header.msg_len as usize)) {
            each(bytes, sender);
        }
    }
    Ok(count)
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
