//! One call's life: when it may be sent, what its outcome means, and whether it is sent again (rules 5 to 8, 10 to 18).
//!
//! Guarantees: a call returns at its deadline; what may have run is sent again only if the rules allow it, and the caller is told;
//! a call waits while its service has no primary. Leaves to others: which node it goes to (route), connections (pool, lane), calls
//! without a waiting thread (submit).
//!
//! `judge`, `gate_wait` and `attempt` are pure: `attempt` is the one engine that decides what follows a failed attempt, for a
//! blocking call, a submitted call and a session. `gate` waits for the fence and the majority, `way` prepares and concludes an
//! attempt, `transaction` reads the replies to MULTI and EXEC, `blocking` runs attempts on the caller's thread, `durable` adds WAIT, `loaned` runs a unit on a connection of its own.

mod attempt;
pub(crate) mod blocking;
pub(crate) mod durable;
pub(crate) mod gate;
mod gate_wait;
pub(crate) mod judge;
pub(crate) mod loaned;
pub(crate) mod transaction;
mod way;

pub(crate) use attempt::{Attempt, Facts, Leg, Next, Step, refused_wait};
pub(crate) use gate_wait::GateWait;
pub(crate) use way::{Way, apply, conclude, end, is_logged_out, logged_out, prepare, without_sentinels};
