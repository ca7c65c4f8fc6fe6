//! A network between a client and a server that does what it is told to.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Nothing.
    Fair = 0,
    /// Connections are closed as they come.
    Down = 1,
    /// Requests arrive, answers never do.
    Stalled = 2,
    /// Answers are cut after some bytes.
    Cut = 3,
    /// The server is overloaded and says so.
    Busy = 4,
    /// Every second connection finds the server overloaded.
    Patchy = 5,
}

const ALL: [Weather; 6] = [
    Weather::Fair,
    Weather::Down,
    Weather::Stalled,
    Weather::Cut,
    Weather::Busy,
    Weather::Patchy,
];

/// Bytes of an answer that pass when it is cut: the head of it, and not all of its body.
const CUT_AFTER: usize = 400;

pub(crate) struct Proxy {
    address: SocketAddr,
    weather: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    pub(crate) fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let weather = Arc::new(AtomicU8::new(0));
        let open = Arc::new(Mutex::new(Vec::new()));
        let (now, streams, server) = (Arc::clone(&weather), Arc::clone(&open), server.to_owned());
        thread::spawn(move || {
            for (count, client) in listener.incoming().enumerate() {
                let Ok(client) = client else { return };
                let now = Arc::clone(&now);
                let server = server.clone();
                if let Ok(clone) = client.try_clone() {
                    streams.lock().expect("not poisoned").push(clone);
                }
                thread::spawn(move || pass(client, &server, &now, count));
            }
        });
        Self {
            address,
            weather,
            open,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, also for connections that are open: those are closed.
    pub(crate) fn set(&self, weather: Weather) {
        self.weather.store(weather as u8, Ordering::SeqCst);
        for stream in self.open.lock().expect("not poisoned").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pass(mut client: TcpStream, server: &str, now: &AtomicU8, count: usize) {
    let weather = ALL[now.load(Ordering::SeqCst) as usize];
    match weather {
        Weather::Down => return,
        Weather::Busy => return refuse(&mut client),
        Weather::Patchy if count.is_multiple_of(2) => return refuse(&mut client),
        _ => {}
    }
    let Ok(server) = TcpStream::connect(server) else {
        return;
    };
    let (Ok(mut up), Ok(mut from)) = (server.try_clone(), client.try_clone()) else {
        return;
    };
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut up);
        let _ = up.shutdown(Shutdown::Write);
    });
    let mut server = server;
    let mut passed = 0;
    let mut buffer = [0; 1 << 14];
    while let Ok(read) = server.read(&mut buffer) {
        if read == 0 {
            break;
        }
        if weather == Weather::Stalled {
            // Until the weather changes, which closes the connection.
            thread::sleep(Duration::from_secs(60));
            break;
        }
        let room = if weather == Weather::Cut {
            CUT_AFTER - passed
        } else {
            read
        };
        if client.write_all(&buffer[..read.min(room)]).is_err()
            || read >= room && weather == Weather::Cut
        {
            break;
        }
        passed += read;
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// Reads the request's head and says no.
fn refuse(client: &mut TcpStream) {
    let mut buffer = [0; 1 << 14];
    let _ = client.read(&mut buffer);
    let _ = client
        .write_all(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let _ = client.shutdown(Shutdown::Both);
}
