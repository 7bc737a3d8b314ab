//! Commands that the table does not have: whether a call with them needs a connection of its own.
//!
//! Guarantees: a command that may block never holds up a connection that others share; until its server has said that it does not block, an
//! unknown command has a connection of its own. The server is asked by a worker, on a connection beside the pool. Leaves to others:
//! the answers (topology/announced).

use std::sync::Arc;

use crate::net::Conn;
use crate::plan::Plan;
use crate::pool::Pool;
use crate::resp::{Reply, Want};
use crate::time::Deadline;
use crate::topology::Service;
use crate::worker::{self, Host};

const ASK: &[u8] = b"*1\r\n$7\r\nCOMMAND\r\n";

/// Decides whether a plan needs a connection of its own. `primary`: where it will go.
pub(super) fn place(plan: &mut Plan<'_>, service: &Arc<Service>, primary: Option<&Arc<Pool>>, limit: Deadline) {
    let version = primary.map_or(0, |pool| pool.version());
    let (mut apart, mut waits) = (false, false);
    plan.each_unknown(|name| {
        let blocks = service.announced().blocks(version, name);
        apart |= blocks != Some(false);
        waits |= blocks == Some(true);
    });
    if !apart {
        return;
    }
    plan.set_apart(waits);
    // Before the first connection the version is not known.
    if let Some(pool) = primary.filter(|pool| pool.opened() > 0 && service.announced().claim(version)) {
        let (service, pool) = (Arc::clone(service), Arc::clone(pool));
        let job = {
            let service = Arc::clone(&service);
            let host = Host::of(pool.name());
            worker::dial(host, false, move || service.announced().tell(version, ask(&pool, limit).as_ref()))
        };
        if job.is_err() {
            service.announced().tell(version, None);
        }
    }
}

/// Asks a server for its commands; `None`: it has not answered.
fn ask(pool: &Pool, limit: Deadline) -> Option<Reply> {
    let mut conn: Conn = pool.open_apart(limit).ok()?;
    conn.request(ASK, Want::One, limit).ok()
}
