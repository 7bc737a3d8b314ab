//! The lock on a target: one run at a time writes there.
//!
//! Guarantees: it is held only while its own text stands in it, is renewed while the run lives, and ends by itself after a crash. A run
//! that finds it lost stops before its next batch. Leaves to others: what is done under it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vigie::client::Client;
use vigie::error::{Result, Status};

use crate::layout::OWN;
use crate::outcome::{Outcome, cannot};
use crate::place::{List, Place};

/// The lock of one target.
pub struct Lock {
    place: Arc<Place>,
    /// The database in which it stands, and to which it belongs.
    db: u32,
    token: String,
    over: Arc<AtomicBool>,
    lost: Arc<AtomicBool>,
    renewal: Option<JoinHandle<()>>,
}

pub fn key() -> Vec<u8> {
    [OWN, b"lock"].concat()
}

impl Lock {
    pub fn take(place: &Arc<Place>, db: u32, token: &str, time: Duration) -> Outcome<Self> {
        let (client, ms) = (place.client(db)?, time.as_millis().to_string());
        place.command(&client, &[b"SET", &key(), token.as_bytes(), b"PX", ms.as_bytes(), b"NX"])?;
        // Whether it was set, at once or when an answer was lost and it was sent again, is what stands there.
        let holder = place.command(&client, &[b"GET", &key()])?;
        if holder.bytes(0) != Some(token.as_bytes()) {
            let left = place.command(&client, &[b"PTTL", &key()])?.int(0).unwrap_or_default().max(0);
            return cannot(format!(
                "another run writes to {}: wait for its end; if it was killed, its lock ends by itself in {} s",
                place.name,
                left.div_euclid(1000) + 1
            ));
        }
        let (over, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut lock = Self { place: Arc::clone(place), db, token: token.to_owned(), over, lost, renewal: None };
        lock.renewal = Some(lock.renew(time));
        Ok(lock)
    }

    fn renew(&self, time: Duration) -> JoinHandle<()> {
        let (place, db, token) = (Arc::clone(&self.place), self.db, self.token.clone());
        let (over, lost) = (Arc::clone(&self.over), Arc::clone(&self.lost));
        std::thread::spawn(move || {
            let mut renewed = Instant::now();
            while !over.load(Ordering::Acquire) {
                std::thread::park_timeout(Duration::from_millis(100));
                if renewed.elapsed() < time / 3 || over.load(Ordering::Acquire) {
                    continue;
                }
                match extend(&place, db, &token, time) {
                    Ok(true) => renewed = Instant::now(),
                    Ok(false) => return lost.store(true, Ordering::Release),
                    // Out of reach: it is lost when its time is over.
                    Err(_) if renewed.elapsed() >= time => return lost.store(true, Ordering::Release),
                    Err(_) => {}
                }
            }
        })
    }

    /// Whether it may go on.
    pub fn check(&self) -> Outcome<()> {
        match self.lost.load(Ordering::Acquire) {
            false => Ok(()),
            true => {
                cannot(format!("the lock on {} was lost: another run may write there; run it again", self.place.name))
            }
        }
    }
}

/// A session that watches the lock; `None`: it is not ours.
fn watched(place: &Place, db: u32, token: &str) -> Result<Option<Arc<Client>>> {
    let session = place.session(db)?;
    let mut look = List::default();
    look.add(&[b"WATCH", &key()]);
    look.add(&[b"GET", &key()]);
    let seen = place.once(&session, &look)?;
    let is_ours = seen.child(0, 1).and_then(|node| seen.bytes(node)) == Some(token.as_bytes());
    Ok(is_ours.then_some(session))
}

/// Renews the lock if it is still ours.
fn extend(place: &Place, db: u32, token: &str, time: Duration) -> Result<bool> {
    let Some(session) = watched(place, db, token)? else { return Ok(false) };
    let mut list = List::default();
    list.add(&[b"PEXPIRE", &key(), time.as_millis().to_string().as_bytes()]);
    match place.atomic(&session, &list) {
        Ok(_) => Ok(true),
        Err(error) if error.status() == Status::TxnAborted => Ok(false),
        Err(error) => Err(error),
    }
}

fn free(place: &Place, db: u32, token: &str) -> Result<()> {
    let Some(session) = watched(place, db, token)? else { return Ok(()) };
    let mut list = List::default();
    list.add(&[b"DEL", &key()]);
    place.atomic(&session, &list).map(drop)
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(renewal) = self.renewal.take() {
            renewal.thread().unpark();
            // A renewal that panicked has nothing to say any more.
            let _ = renewal.join();
        }
        // What cannot be freed ends by itself.
        let _ = free(&self.place, self.db, &self.token);
    }
}
