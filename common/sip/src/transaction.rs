//! SKELETON: becomes `transaction/{invite_client,invite_server,client,server}.rs` (RFC 3261 17, RFC 6026).
