//! A unit on a connection of its own.
//!
//! Guarantees: a connection on which anything went wrong is discarded; under a lease no byte is handed to the kernel once the lease
//! is over. Leaves to others: which calls have such a connection (blocking, session).

use std::io::IoSlice;

use crate::error::{Error, Status};
use crate::lane::{Bytes, Failure, Outcome, Unit};
use crate::pool::Loan;
use crate::resp::Want;
use crate::time::{Deadline, WriteLease};

/// Sends a unit on a loan and receives its replies. After a failure the connection is discarded.
pub(crate) fn run(mut loan: Loan, unit: Unit<'_>, deadline: Deadline) -> Outcome {
    let outcome = exchange(&mut loan, unit, deadline);
    if outcome.is_err() {
        loan.discard();
    }
    outcome
}

/// As [`run`], on a loan that is kept, even after a failure.
pub(crate) fn exchange(loan: &mut Loan, unit: Unit<'_>, deadline: Deadline) -> Outcome {
    let Some(conn) = loan.conn() else {
        return Err(Failure::unsent(Error::new(Status::Internal, "a loan without a connection")));
    };
    let (want, lease) = (unit.list.map_or(Want::One, Want::List), unit.lease.map(|lease| &**lease));
    let outcome = match (unit.bytes, unit.bytes.pieces()) {
        (_, Some(pieces)) => {
            conn.exchange(&mut pieces.iter().map(IoSlice::new).collect::<Vec<_>>(), want, lease, deadline)
        }
        (Bytes::Raw(raw), None) => conn.exchange(&mut [IoSlice::new(raw)], want, lease, deadline),
        (args, None) => {
            let mut encoded = Vec::new();
            args.append_to(&mut encoded).map_err(Failure::unsent)?;
            conn.exchange(&mut [IoSlice::new(&encoded)], want, lease, deadline)
        }
    };
    outcome.map_err(|failed| {
        // An end that is our own says nothing about the unit.
        let ours = lease.is_some_and(WriteLease::is_over) || loan.pool().is_retired();
        // No other unit is on this connection.
        let at_head = failed.sent > 0 && !ours && matches!(failed.error.status(), Status::Io | Status::Protocol);
        Failure { sent: failed.sent, error: failed.error, at_head }
    })
}
