//! Several primaries behind one handle: which shard a key is on, and what a command becomes on its way there.
//!
//! `spec` reads what shards there are, `tags` which part of a key counts and how it is stored, `hash` which shard that part is on, and
//! `map` puts them together: from a whole command to the shard or shards of its keys. `pipeline` does the same for a list of commands.
//!
//! Guarantees: no I/O, no clock, no randomness; the same key is on the same shard in every process that was given the same shards and
//! options. Leaves to others: where the keys of a command are (resp/table), and running it.

pub mod hash;
#[cfg(test)]
mod hash_tests;
pub mod map;
#[cfg(test)]
mod map_tests;
pub mod pipeline;
#[cfg(test)]
mod pipeline_tests;
pub mod spec;
#[cfg(test)]
mod spec_tests;
pub mod tags;
#[cfg(test)]
mod tags_tests;

pub use hash::{Hash, Placement};
pub use map::{Group, Located, Map, Placed, Route, Where};
pub use pipeline::{Apart, Part, Step, deal};
pub use spec::{Fixed, Shard, Spec, Target};
pub use tags::{Tagged, Tags};
