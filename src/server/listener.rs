//! Accepts connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::server::connection;
use crate::server::door::{Door, Peer};
use crate::server::lane::{self, Lane};

/// What the system holds back for a host on this machine, of which it makes twice as much. By itself it comes to megabytes, which
/// a line needs that is long; here nothing is on its way, and both sides sleep and wake less if they keep in step.
const NEIGHBOUR_BYTES: usize = 192 * 1024;
/// How long to wait when the system has no descriptor left for another connection.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// Why nothing can be accepted at an address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", hint(.source))]
pub struct CannotListen {
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    pub source: io::Error,
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "; another program has that port, choose another or stop it",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

/// Binds an address. `[::]` means every address, and is `0.0.0.0` where there is no IPv6.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, CannotListen> {
    let bound = match TcpListener::bind(address).await {
        Err(error) if address.ip().is_unspecified() && address.is_ipv6() && error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(|source| CannotListen { address, source })
}

/// Accepts hosts.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What connections share.
    pub door: Arc<Door>,
    /// The certificate of new connections.
    pub tls: Arc<ArcSwap<ServerConfig>>,
    /// Ends the accepting, and connections after their request under way.
    pub stop: CancellationToken,
    /// The connections.
    pub connections: TaskTracker,
    /// Turns to be connected.
    pub turns: Arc<Semaphore>,
}

/// Sets up a connection.
fn prepare(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    be_patient_with(stream, patience)?;
    let (own, peer) = (stream.local_addr()?.ip(), stream.peer_addr()?.ip());
    if own == peer || peer.to_canonical().is_loopback() {
        rustix::net::sockopt::set_socket_send_buffer_size(stream, NEIGHBOUR_BYTES)?;
    }
    Ok(())
}

/// Has the system break a connection whose host takes nothing for so long: it acknowledges nothing, or its window stays
/// closed. We could not tell, since the system buffers megabytes for a host: long after our last write it may still be
/// taking what was written before, and however slow it is, it stays if it moves.
fn be_patient_with(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    let millis = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, millis)?)
}

impl Listener {
    /// Accepts at one address until it is stopped. When there are as many connections as may be, hosts wait in the
    /// system's queue.
    pub async fn run(self, socket: TcpListener) {
        loop {
            let turn = async {
                let turn = Arc::clone(&self.turns).acquire_owned().await.ok()?;
                Some((turn, socket.accept().await))
            };
            let (turn, accepted) = tokio::select! {
                () = self.stop.cancelled() => return,
                Some(accepted) = turn => accepted,
                else => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let listener = self.clone();
                    self.connections.spawn(async move {
                        listener.serve(stream, address).await;
                        drop(turn);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
                }
            }
        }
    }

    async fn serve(self, stream: TcpStream, address: SocketAddr) {
        // It works all the same, if less well.
        if let Err(error) = prepare(&stream, self.door.bounds.write_timeout) {
            tracing::debug!(%address, %error, "a connection could not be set up");
        }
        let peer = Peer { address: address.ip(), is_tls: false };
        match lane::serve(&self.door, &stream, peer, &self.stop).await {
            Ok(Lane::Taken) => return,
            Ok(Lane::NotTaken) => {}
            Err(error) => return tracing::debug!(%address, %error, "a connection ended before its time"),
        }
        let tls = self.tls.load_full();
        if let Err(error) = connection::serve(self.door, stream, peer, tls, self.stop).await {
            tracing::debug!(%address, %error, "a connection ended before its time");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::server::listener::{NEIGHBOUR_BYTES, prepare};

    #[tokio::test]
    async fn little_is_held_back_for_a_host_on_this_machine() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (host, accepted) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        let (stream, _host) = (accepted.unwrap().0, host.unwrap());
        prepare(&stream, Duration::from_secs(9)).unwrap();
        assert_eq!(rustix::net::sockopt::socket_send_buffer_size(&stream).unwrap(), 2 * NEIGHBOUR_BYTES);
        assert_eq!(rustix::net::sockopt::tcp_user_timeout(&stream).unwrap(), 9000);
        assert!(stream.nodelay().unwrap());
    }
}
