//! A unit on a connection of its own.
//!
//! Guarantees: a connection on which anything went wrong is discarded; under a lease no byte is handed to the kernel once the lease
//! is over. Leaves to others: which calls have such a connection (blocking, session).

use std::io::IoSlice;
use std::sync::Arc;

use crate::error::{Error, Status};
use crate::lane::{Bytes, Failure, Outcome, Unit, transaction};
use crate::pool::Loan;
use crate::resp::Want;
use crate::time::{Deadline, Instant, WriteLease};

/// Sends a unit on a loan and receives its replies. After a failure the connection is discarded.
pub(crate) fn run(loan: Loan, unit: Unit<'_>, deadline: Deadline) -> Outcome {
    let meter = Arc::clone(loan.pool().meter());
    let begun = Instant::now();
    let outcome = run_untimed(loan, unit, deadline);
    if outcome.is_ok() {
        meter.answered(begun.elapsed());
    }
    outcome
}

/// As [`run`], for a unit that blocks: how long it takes says nothing about the server.
pub(crate) fn run_untimed(mut loan: Loan, unit: Unit<'_>, deadline: Deadline) -> Outcome {
    let outcome = exchange(&mut loan, unit, deadline);
    if outcome.is_err() {
        loan.discard();
    }
    outcome
}

/// Asks whether the connection carries transactions, unless it is known that it does. The gate is to
/// be passed after that, because the answer may take long.
pub(crate) fn prepare_transaction(loan: &mut Loan, deadline: Deadline) -> Result<(), Failure> {
    if loan.conn().is_none_or(|conn| conn.carries_transactions()) {
        return Ok(());
    }
    // A transaction that it leaves open is ended below: a session must not lose its connection by the question.
    let replies = ask(loan, Unit { atomic: false, ..transaction::question() }, deadline)?;
    if transaction::is_left_open(&replies) {
        let exec = Unit { list: None, atomic: false, bytes: Bytes::Args(&[b"EXEC"]), ..transaction::question() };
        let reply = ask(loan, exec, deadline)?;
        if reply.error_line(0).is_some_and(|line| !line.starts_with(b"EXECABORT")) {
            close(loan);
        }
    }
    transaction::carries(&replies, loan.pool().name()).map_err(Failure::unsent)?;
    loan.conn().iter_mut().for_each(|conn| conn.note_transactions(true));
    Ok(())
}

/// Sends a question. A failure means that nothing of the transaction was sent, and the connection is discarded.
fn ask(loan: &mut Loan, unit: Unit<'_>, deadline: Deadline) -> Outcome {
    exchange(loan, unit, deadline).map_err(|failure| {
        loan.discard();
        Failure { sent: 0, ..failure }
    })
}

/// Closes a connection on which whatever is sent next would be queued.
fn close(loan: &mut Loan) {
    loan.conn().iter().for_each(|conn| conn.socket().shutdown());
    loan.discard();
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
    if unit.atomic && outcome.as_ref().is_ok_and(transaction::is_left_open) {
        close(loan);
    }
    outcome.map_err(|failed| {
        // An end that is our own says nothing about the unit.
        let ours = lease.is_some_and(WriteLease::is_over) || loan.pool().is_retired();
        // No other unit is on this connection.
        let at_head = failed.sent > 0 && !ours && matches!(failed.error.status(), Status::Io | Status::Protocol);
        Failure { sent: failed.sent, error: failed.error, at_head }
    })
}
