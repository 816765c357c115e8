//! What a socket of the running system is, as maps see it: for front ends whose callers have such.

use std::os::fd::AsFd;

use rustix::net::{SocketAddr, getpeername, getsockname, sockopt};

use crate::map::object::Socket;

/// What maps ask of a socket; none if it is something else.
pub(crate) fn describe(socket: impl AsFd) -> Option<Socket> {
    let socket = socket.as_fd();
    let domain = sockopt::socket_domain(socket).ok()?.as_raw();
    let kind = sockopt::socket_type(socket).ok()?.as_raw();
    let protocol = sockopt::socket_protocol(socket).ok()?;
    let protocol = protocol.map_or(0, |protocol| protocol.as_raw().get());
    let bound = getsockname(socket).is_ok_and(|name| match SocketAddr::try_from(name) {
        Ok(SocketAddr::V4(addr)) => addr.port() != 0,
        Ok(SocketAddr::V6(addr)) => addr.port() != 0,
        // Nothing asks that of others.
        _ => false,
    });
    Some(Socket {
        bound,
        listening: sockopt::socket_acceptconn(socket).unwrap_or(false),
        connected: getpeername(socket).is_ok(),
        reuseport: sockopt::socket_reuseport(socket).unwrap_or(false),
        cookie: sockopt::socket_cookie(socket).unwrap_or(0),
        ..Socket::made(domain.into(), kind.cast_signed(), protocol.cast_signed())
    })
}
