//! The order of all locks, and what a thread may do while it holds one.
//!
//! Guarantees: in debug builds a thread that takes a lock out of order panics before it waits for the lock, and a thread that begins to
//! wait for anything else under a lock panics, too; in a release build nothing of this is left. Leaves to others: the locks (sync).
//! ARCHITECTURE.md shows the table; tests/layering.rs compares the two.

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The rank.
    pub rank: Rank,
    /// Its name in the sources.
    pub name: &'static str,
    /// The lock: its type and field, and the file.
    pub lock: &'static str,
    /// What the lock guards.
    pub guards: &'static str,
    /// Only the holder of a role takes it, so no thread waits for it, and its holder may wait.
    pub is_role: bool,
}

macro_rules! ranks {
    (@is_role role) => { true };
    (@is_role state) => { false };
    ($($rank:ident $kind:ident $lock:literal $guards:literal)*) => {
        /// The place of a lock in the order of all locks: a thread takes only locks that stand below those that it holds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rank {
            $(#[doc = $guards] $rank,)*
        }

        impl Rank {
            /// All ranks, from the first that may be taken to the last.
            pub const TABLE: &'static [Row] =
                &[$(Row { rank: Self::$rank, name: stringify!($rank), lock: $lock, guards: $guards, is_role: ranks!(@is_role $kind) },)*];
        }
    };
}

ranks! {
    Jobs            state "Worker.ledger (jobs)"                  "what a worker knows of its processing list"
    JobsTake        state "Worker.submitted (jobs)"               "the latest take of a worker by submit"
    SessionState    role  "Session.pinned (client/session)"       "a session's connection and its state, for the thread whose turn it is"
    CallHandle      state "CallHandle.state (client/call_handle)" "the call of a call handle"
    ScanLoop        state "ScanLoop.position (client/scan)"       "where a scan loop is"
    Shards          state "Shards.old (shard/handle)"             "the shards before the last change, while calls are running there"
    ShardedSub      state "ShardedSubscription.subs (shard/subscription)" "the subscriptions to the shards"
    Rounds          state "Rounds (shard/task)"                   "queues for rounds over several shards"
    Steps           state "Steps.state (client/steps)"            "a submitted operation of several calls"
    Configuring     state "Sentinel.configuring (topology/sentinel)" "one change of the settings at a time"
    Services        state "Sentinel.services (topology/sentinel)" "the services of a sentinel handle"
    Children        state "Shared.children (topology/shared)"     "the clients of a sentinel handle"
    AdminCalls         state "AdminCalls.list (topology/admin_call)"        "the commands to the Sentinels that were submitted"
    AdminCall          state "AdminCall.state (topology/admin_call)"        "one submitted command to the Sentinels"
    Renewal         state "Router.renewal (route/router)"         "one new view of a service at a time"
    Scans           state "Router.scans (route/router)"           "which node gave which cursor"
    Discovery       state "Service.state (topology/service)"      "a service's discovery and its fence"
    Following       state "Following (topology/follow)"           "what was found of each replica"
    Monitor         state "Monitor (topology/monitor)"            "what the thread that watches the Sentinels is to do"
    LogLines        state "Log.order (log)"                        "the order of the lines of a log"
    Watchers        state "Watchers.list (topology/watch)"         "the queues that are told of changes"
    Pool            state "Pool.inner (pool)"                     "the connections to one node"
    Pauses          state "Pauses.known (topology/pauses)"        "the pauses of a service's nodes"
    Pause           state "Pause.state (net/pause)"               "until when a node is not dialled"
    Sweep           state "Sweep (pool/sweep)"                    "the pools that are looked after"
    Poller          state "Poller.registry (pool/submit_lane)"    "the lanes that the poller drives"
    Pending         state "PendingQueue.state (submit/pending)"   "submitted calls that cannot start at once"
    LaneReader      role  "Lane.reader (lane)"                    "the decoder of a connection, for the thread with the reader's role"
    Lane            state "Lane.state (lane)"                     "the units in flight on a connection, and its roles"
    Call            state "Call.state (submit/call)"              "one submitted call"
    Question        state "Question.asked (submit/pending)"       "for which call a lane was asked whether it carries transactions"
    Subscriptions   state "Subscriptions.list (pubsub)"           "the subscriptions of a client"
    Subscription    state "Subscription.state (pubsub/subscription)" "what a subscription hears, and its connection"
    FeedOut         state "Feed.output (pubsub/feed)"             "what a subscription sends"
    Feeds           state "Poller.registry (pubsub/poller)"       "the connections of subscriptions that the poller drives"
    Replica         state "ReplicaTarget.failure (route/view)"    "why a replica failed last"
    Queue           state "Queue.state (queue)"                   "a queue's events and those who wait for them"
    Blocking        state "Life.blocking (route/context)"         "the sockets of a client's blocking commands"
    Idle            state "Life.idle (route/context)"             "the sleep of a close until a client's calls are over"
    Turns           state "Turns.now (client/session)"            "whose turn it is on a session"
    SessionLine     state "Line.state (client/line)"              "the submitted calls of a session"
    SessionCall     state "LineCall.state (client/line)"          "one submitted call of a session"
    Scripts         state "Scripts.known (script)"                "the scripts that were sent"
    Announced       state "Announced.answers (topology/announced)" "what servers say of their commands"
    Census          state "Census.numbers (pool/census)"          "the numbers that a server gave its connections"
    Members         state "SentinelList.entries (topology/peers)"         "the Sentinels that are known"
    Deaf            state "Shared.deaf (topology/shared)"         "the Sentinels whose events may not be heard"
    Connectors      state "Registry.connectors (net/tls/connector)" "the TLS settings that are in use"
    Certificates    state "Connector.loaded (net/tls/connector)"  "the certificates and keys that were read"
    TlsOut          state "Tls.out (net/tls/channel)"             "a connection's ciphertext on its way to the kernel"
    TlsSession      state "Tls.session (net/tls/channel)"         "the TLS session of a connection"
    CallTimes       state "Times (submit/times)"                    "where the time of a call with a call handle goes"
    News            state "Shared.news (topology/shared)"         "connections that are to be told of"
    Buried          state "Shared.buried (topology/shared)"       "what clients had counted that are gone"
    Nodes           state "Nodes (route/nodes)"                     "the meters of a client's nodes"
    Meter           state "NodeMeter.parts (meter/node)"          "what the connections to a node count"
    Log             state "Outlet.state (log/outlet)"            "lines on their way to the program's descriptor"
    Resolver        state "Resolver.state (net/resolve)"          "the names that are being resolved"
    Resolution      state "Resolution.progress (net/resolve)"     "the answer for one name"
    Workers         state "Workers.state (worker)"                "jobs and timers"
    Threads         state "HANDLES (sys/thread)"                  "the handles of the library's threads"
    Word            state "Word.count (sys/futex)"                "a word that stands for a futex where there is none"
    Replacing       state "REPLACING (sys/fork)"                  "the moment in which a forked child puts a value of its own in the place of its parent's"
}

#[cfg(all(debug_assertions, not(loom)))]
pub use checked::may_wait;
#[cfg(all(debug_assertions, not(loom)))]
pub(super) use checked::{Held, Place, forget_held};
#[cfg(not(all(debug_assertions, not(loom))))]
pub use unchecked::may_wait;
#[cfg(not(all(debug_assertions, not(loom))))]
pub(super) use unchecked::{Held, Place, forget_held};

#[cfg(all(debug_assertions, not(loom)))]
mod checked {
    use std::cell::Cell;
    use std::thread::panicking;

    use super::{Rank, Row};

    const _: () = assert!(Rank::TABLE.len() <= u64::BITS as usize);

    thread_local! {
        /// One bit for each rank that the thread holds. It needs no destructor, so it is there as long as the thread.
        static HELD: Cell<u64> = const { Cell::new(0) };
    }

    /// What a lock knows of its place.
    pub(in crate::sys) struct Place(Rank);

    /// That this thread holds a lock.
    pub(in crate::sys) struct Held(Rank);

    fn bit(rank: Rank) -> u64 {
        1 << rank as u32
    }

    fn row(rank: Rank) -> &'static Row {
        &Rank::TABLE[rank as usize]
    }

    /// The last of these.
    fn last(ranks: u64) -> Option<&'static Row> {
        ranks.checked_ilog2().map(|at| &Rank::TABLE[at as usize])
    }

    impl Place {
        pub(in crate::sys) const fn new(rank: Rank) -> Self {
            Self(rank)
        }

        /// The lock is about to be taken. A destructor that runs in a panic is not held to the order: a second panic would end the process.
        #[track_caller]
        pub(in crate::sys) fn enter(&self) -> Held {
            if let Some(held) = last(HELD.get()).filter(|held| held.rank >= self.0 && !panicking()) {
                let wanted = row(self.0);
                panic!(
                    "a thread that holds {} ({}) takes {} ({}), which does not stand below it in sys/rank.rs",
                    held.name, held.lock, wanted.name, wanted.lock
                );
            }
            HELD.set(HELD.get() | bit(self.0));
            Held(self.0)
        }
    }

    impl Held {
        /// The lock is let go for a sleep.
        #[track_caller]
        pub(in crate::sys) fn may_sleep(&self) {
            check(HELD.get() & !bit(self.0), "a condition");
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            HELD.set(HELD.get() & !bit(self.0));
        }
    }

    /// This thread begins to wait for something that is no lock. Every function that can wait says so first.
    #[track_caller]
    pub fn may_wait(what: &str) {
        check(HELD.get(), what);
    }

    #[track_caller]
    fn check(held: u64, what: &str) {
        let roles = Rank::TABLE.iter().filter(|row| row.is_role).fold(0, |roles, row| roles | bit(row.rank));
        if let Some(held) = last(held & !roles).filter(|_| !panicking()) {
            panic!("a thread that holds {} ({}) waits for {what}", held.name, held.lock);
        }
    }

    /// A forked child begins with one thread, which holds nothing: the locks of the parent are not touched any more.
    pub(in crate::sys) fn forget_held() {
        HELD.set(0);
    }
}

#[cfg(not(all(debug_assertions, not(loom))))]
mod unchecked {
    use super::Rank;

    pub(in crate::sys) struct Place;

    pub(in crate::sys) struct Held;

    impl Place {
        #[inline(always)]
        pub(in crate::sys) const fn new(_rank: Rank) -> Self {
            Self
        }

        #[inline(always)]
        pub(in crate::sys) fn enter(&self) -> Held {
            Held
        }
    }

    impl Held {
        #[inline(always)]
        #[cfg(not(loom))]
        pub(in crate::sys) fn may_sleep(&self) {}
    }

    /// This thread begins to wait for something that is no lock. Every function that can wait says so first.
    #[inline(always)]
    pub fn may_wait(_what: &str) {}

    #[inline(always)]
    pub(in crate::sys) fn forget_held() {}
}
