//! The thread that hears of changes made by other replicas.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use postgres::fallible_iterator::FallibleIterator as _;

use super::Shared;
use super::connection::Connection;
use super::writer::understood;

/// How often a silent connection is asked whether it is still there.
const PING: Duration = Duration::from_secs(1);
/// Pauses between attempts to connect again: from, to.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// Listens until the store is dropped. Between two connections nothing is read from the cache, and a new
/// one begins with an empty cache.
pub(super) fn run(shared: &Shared) {
    let mut pause = PAUSES[0];
    while !shared.stopping.load(Ordering::Acquire) {
        let heard = listen(shared, &mut pause);
        shared.listening.store(false, Ordering::Release);
        shared.forget_all();
        if heard.is_err() {
            sleep(shared, pause);
            pause = (pause * 2).min(PAUSES[1]);
        }
    }
}

fn listen(shared: &Shared, pause: &mut Duration) -> Result<(), postgres::Error> {
    let mut connection = Connection::open(&shared.config)?;
    // Lowercase letters, digits and '_', so that quotes are enough.
    let listen = format!("LISTEN \"{}\"", shared.channel);
    connection.client.batch_execute(&listen)?;
    // From here on every change is heard of; what was read before may miss one.
    shared.forget_all();
    shared.listening.store(true, Ordering::Release);
    *pause = PAUSES[0];
    while !shared.stopping.load(Ordering::Acquire) {
        let mut notifications = connection.client.notifications();
        let mut news = notifications.timeout_iter(PING);
        while let Some(notification) = news.next()? {
            let own = shared.own().contains(&notification.process_id());
            let understood = understood(notification.payload());
            match understood {
                // What our own writers change they forget before they acknowledge it.
                Some(_) if own => {}
                Some((true, user)) => {
                    shared.forget_erased(&user);
                    if let Some(forget) = shared.erased.get() {
                        forget(&user);
                    }
                }
                Some((false, user)) => shared.forget(&user),
                // From a later version of the program: to be on the safe side.
                None => shared.forget_all(),
            }
            if shared.stopping.load(Ordering::Acquire) {
                return Ok(());
            }
        }
        drop(news);
        drop(notifications);
        connection.client.batch_execute("SELECT 1")?;
    }
    Ok(())
}

/// Sleeps in short pieces, so that a store that is dropped meanwhile does not wait.
fn sleep(shared: &Shared, pause: Duration) {
    let until = Instant::now() + pause;
    while !shared.stopping.load(Ordering::Acquire) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left.min(Duration::from_millis(50)));
    }
}
