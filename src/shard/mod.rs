//! Several primaries behind one handle: which shard a key is on, what a command becomes on its way there, and running it.
//!
//! `spec` reads what shards there are, `tags` which part of a key counts and how it is stored, `hash` which shard that part is on, and
//! `map` puts them together: from a whole command to the shard or shards of its keys. `pipeline` does the same for a list of commands.
//! `nodes` has a client for each shard. A command for one shard is a call of its client. For several, `commands` says which operation it
//! becomes (`gather`, `sets`, `moves`, `rename`, `setnx`, `scan`, `split` for lists; `confirmed` for those of several steps), and `task` asks all shards at the same time.
//!
//! Guarantees: the same key is on the same shard in every process that was given the same shards and options; a failover of one shard
//! touches only its keys; what cannot be done right over several shards is refused before anything is sent. Leaves to others: where the
//! keys of a command are (resp/table), and the calls to each shard (client).

mod commands;
mod confirmed;
mod gather;
mod handle;
pub mod hash;
#[cfg(test)]
mod hash_tests;
pub mod map;
#[cfg(test)]
mod map_tests;
mod moves;
mod nodes;
pub mod pipeline;
#[cfg(test)]
mod pipeline_tests;
mod rename;
mod scan;
mod session;
mod setnx;
mod sets;
pub mod spec;
#[cfg(test)]
mod spec_tests;
mod split;
mod subscription;
pub mod tags;
#[cfg(test)]
mod tags_tests;
mod task;

pub use handle::Shards;
pub use hash::{Hash, OwnHash, Placement};
pub use map::{Group, Located, Map, Placed, Route, Where};
pub use nodes::{fixed_settings, map_of};
pub use pipeline::{Apart, Part, Step, deal};
pub use spec::{Fixed, MOST_SHARDS, Shard, Spec, Target};
pub use subscription::ShardedSubscription;
pub use tags::{Tagged, Tags};
