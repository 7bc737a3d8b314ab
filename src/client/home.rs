//! The keys of a session that is on one of several shards.
//!
//! Guarantees: a list of which one command is refused is refused whole, and what comes out is what is sent. Leaves to others: where a key
//! is (shard).

use crate::error::Result;
use crate::resp::encode;
use crate::resp::list;

/// Knows the keys of the shard on which a session is.
pub(crate) trait Home: Send + Sync {
    /// A command with its keys as they are stored; `None`: as it was given. An error: it does not belong on this shard.
    fn stored<'a>(&self, args: &[&'a [u8]]) -> Result<Option<Vec<&'a [u8]>>>;
}

/// Commands with their keys as they are stored; `None`: as they were given. What is not well formed is left to those who refuse it.
pub(super) fn stored(home: &dyn Home, commands: &[u8]) -> Result<Option<Vec<u8>>> {
    let Ok(list) = list::parse(commands) else { return Ok(None) };
    let (mut bytes, mut changed) = (Vec::new(), false);
    for (at, command) in list.commands().enumerate().filter(|(_, command)| !command.name().is_empty()) {
        let args: Vec<&[u8]> = command.args().collect();
        let stored = home.stored(&args).map_err(|error| match list.len() {
            1 => error,
            count => error.in_context(format_args!("command {} of {count}", at + 1)),
        })?;
        match stored {
            Some(args) => {
                if !changed {
                    encode::try_encoded(&mut bytes, &commands[..command.range().start])?;
                }
                changed = true;
                encode::try_command(&mut bytes, &args)?;
            }
            None if changed => encode::try_encoded(&mut bytes, command.bytes())?,
            None => {}
        }
    }
    Ok(changed.then_some(bytes))
}
