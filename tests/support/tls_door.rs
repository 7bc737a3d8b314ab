//! A door that speaks TLS in front of a server that does not: for scripted servers, for certificates of one's choice, and for records that
//! come in pieces.

use super::certs::Pair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

pub struct TlsDoor {
    addr: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    config: Arc<ServerConfig>,
    /// How many bytes of ciphertext go to the client at once.
    piece: AtomicUsize,
    ends: AtomicBool,
    resumed: AtomicUsize,
    whole: AtomicUsize,
    /// The client's keys have to change before the next answer.
    rekey: AtomicBool,
}

impl TlsDoor {
    /// In front of this server, with this certificate.
    pub fn open(upstream: &str, pair: &Pair) -> TlsDoor {
        let certs = CertificateDer::pem_file_iter(&pair.cert).expect("a file").collect::<Result<_, _>>().expect("PEM");
        let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.expect("versions").with_no_client_auth();
        // Without rustls' own check of the certificate: some are meant to be bad.
        let key = rustls::crypto::ring::sign::any_supported_type(&key).expect("a key");
        let shown = Arc::new(rustls::sign::SingleCertAndKey::from(rustls::sign::CertifiedKey::new(certs, key)));
        let mut config = config.with_cert_resolver(shown);
        config.ticketer = rustls::crypto::ring::Ticketer::new().expect("random numbers");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound").to_string();
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            config: Arc::new(config),
            piece: AtomicUsize::new(usize::MAX),
            ends: AtomicBool::new(false),
            resumed: AtomicUsize::new(0),
            whole: AtomicUsize::new(0),
            rekey: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if theirs.ends.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&theirs);
                std::thread::spawn(move || shared.serve(client));
            }
        });
        TlsDoor { addr, shared }
    }

    pub fn addr(&self) -> String {
        self.addr.clone()
    }
    /// From now on so many bytes of ciphertext are sent at once, with a moment between.
    pub fn trickle(&self, bytes: usize) {
        self.shared.piece.store(bytes, Ordering::Relaxed);
    }
    /// Asks each client for new keys before its next answer.
    pub fn rekey(&self) {
        self.shared.rekey.store(true, Ordering::Relaxed);
    }
    /// Handshakes that resumed a session, and others.
    pub fn handshakes(&self) -> (usize, usize) {
        (self.shared.resumed.load(Ordering::Relaxed), self.shared.whole.load(Ordering::Relaxed))
    }
}

impl Drop for TlsDoor {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.addr);
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) {
        let Ok(mut server) = TcpStream::connect(&self.upstream) else { return };
        let mut tls = ServerConnection::new(Arc::clone(&self.config)).expect("a session");
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
            let _ = stream.set_nonblocking(true);
        }
        let mut counted = false;
        let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; 64 * 1024];
        while !self.ends.load(Ordering::Relaxed) {
            let mut is_over = false;
            match client.read(&mut buffer) {
                Ok(0) => is_over = true,
                Ok(got) => {
                    let mut rest = &buffer[..got];
                    while !rest.is_empty() {
                        if tls.read_tls(&mut rest).is_err() || tls.process_new_packets().is_err() {
                            is_over = true;
                            break;
                        }
                        let mut plain = Vec::new();
                        let _ = tls.reader().read_to_end(&mut plain);
                        to_server.extend(plain);
                    }
                }
                Err(error) => is_over = error.kind() != ErrorKind::WouldBlock,
            }
            if !counted && !tls.is_handshaking() {
                counted = true;
                let resumed = tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
                if resumed { &self.resumed } else { &self.whole }.fetch_add(1, Ordering::Relaxed);
            }
            if to_client.len() < 1 << 20 && !tls.is_handshaking() {
                match server.read(&mut buffer) {
                    Ok(0) => {
                        tls.send_close_notify();
                        is_over = true;
                    }
                    Ok(got) => {
                        if self.rekey.load(Ordering::Relaxed) {
                            let _ = tls.refresh_traffic_keys();
                        }
                        tls.set_buffer_limit(None);
                        tls.writer().write_all(&buffer[..got]).expect("no limit");
                    }
                    Err(error) => is_over |= error.kind() != ErrorKind::WouldBlock,
                }
            }
            while tls.wants_write() {
                let _ = tls.write_tls(&mut to_client);
            }
            let piece = self.piece.load(Ordering::Relaxed);
            is_over |= !hand_over(&mut client, &mut to_client, piece) & !is_over;
            is_over |= !hand_over(&mut server, &mut to_server, usize::MAX);
            if is_over {
                // What is left is sent as far as it goes.
                let _ = client.set_nonblocking(false);
                let _ = client.set_write_timeout(Some(Duration::from_secs(2)));
                let _ = client.write_all(&to_client);
                return;
            }
            let trickles = piece < to_client.len();
            wait(
                &client,
                !to_client.is_empty() && !trickles,
                &server,
                !to_server.is_empty(),
                if trickles { 1 } else { 50 },
            );
        }
    }
}

/// Sends what can be sent. False: the connection is broken.
fn hand_over(stream: &mut TcpStream, bytes: &mut Vec<u8>, piece: usize) -> bool {
    while !bytes.is_empty() {
        match stream.write(&bytes[..bytes.len().min(piece)]) {
            Ok(sent) => drop(bytes.drain(..sent)),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
        if piece < usize::MAX {
            break;
        }
    }
    true
}

fn wait(a: &TcpStream, a_writes: bool, b: &TcpStream, b_writes: bool, ms: i32) {
    let fd = |stream: &TcpStream, writes: bool| {
        let events = libc::POLLIN | if writes { libc::POLLOUT } else { 0 };
        libc::pollfd { fd: stream.as_raw_fd(), events, revents: 0 }
    };
    let mut fds = [fd(a, a_writes), fd(b, b_writes)];
    // SAFETY: two entries on this frame; both descriptors are open.
    unsafe { libc::poll(fds.as_mut_ptr(), 2, ms) };
}
