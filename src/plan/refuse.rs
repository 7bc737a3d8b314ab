//! The sentences for commands that are refused before a byte is sent.
//!
//! Guarantees: each names the command and what to do instead. Leaves to others: which commands are refused (mod).

use crate::resp::table::{self, Flags};

/// For a command that changes the state of its connection. `at`: its place in a list.
pub(super) fn of_state(name: &str, at: &str) -> String {
    const SHARED: &str = "a connection that others share";
    match name {
        "QUIT" => {
            format!(
                "{name}{at} would end {SHARED}: vigie_client_disconnect() closes the connections of a client, vigie_client_close() that of a session of vigie_session_for()"
            )
        }
        "AUTH" => format!(
            "{name}{at} changes the user of {SHARED}: set the options auth.username and auth.password, or use vigie_session_for()"
        ),
        "HELLO" => {
            format!("{name}{at} changes the protocol of {SHARED}: set the option protocol, or use vigie_session_for()")
        }
        _ => format!("{name}{at} changes the state of {SHARED}: use vigie_session_for()"),
    }
}

/// For a command that gets more or fewer replies than one.
pub(super) fn of_unpaired(name: &str, at: &str) -> String {
    if table::lookup(name.as_bytes()).is_some_and(|spec| spec.flags.has(Flags::SUBSCRIBE)) {
        return format!(
            "{name}{at} is not answered with exactly one reply: a subscription is made by vigie_sub_for(), and told by \
             vigie_sub_exec() what to listen to"
        );
    }
    format!(
        "{name}{at} is not answered with exactly one reply, and this version runs no such command: use another client \
         library for it (vigie_client_topology() tells where the servers are)"
    )
}

/// For a command that cannot be part of a transaction.
pub(super) fn of_atomic(name: &str, at: &str, what: Flags) -> String {
    let why = match name {
        "WATCH" | "UNWATCH" => {
            "keys are watched before a transaction begins: send it in a session of vigie_session_for(), then this list there"
        }
        _ if what.has(Flags::TXN) => "VIGIE_CALL_ATOMIC puts MULTI and EXEC around the list itself: leave it out",
        _ if what.has(Flags::SCAN) => "a scan has to stay with its node: send it by itself",
        _ if what.has(Flags::SUBSCRIBE) => "it is not answered with exactly one reply",
        _ => "it changes the state of the connection: send it by itself, in a session of vigie_session_for()",
    };
    format!("commands: {name}{at} cannot be part of a transaction (VIGIE_CALL_ATOMIC): {why}")
}

/// The form of a command that only reads, if there is one.
pub(super) fn reading_form(name: &str) -> Option<String> {
    let form = format!("{name}_RO");
    table::lookup(form.as_bytes()).filter(|spec| spec.flags.has(Flags::READ)).map(|_| form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_reading_form_is_told_of_it() {
        for name in ["SORT", "GEORADIUS", "GEORADIUSBYMEMBER", "EVAL", "EVALSHA", "FCALL", "BITFIELD"] {
            assert_eq!(reading_form(name), Some(format!("{name}_RO")));
        }
        assert_eq!((reading_form("SET"), reading_form("")), (None, None));
    }

    #[test]
    fn each_sentence_says_what_helps() {
        for (name, remedy) in [
            ("QUIT", "vigie_client_disconnect()"),
            ("AUTH", "auth.password"),
            ("HELLO", "protocol"),
            ("SELECT", "vigie_session_for()"),
        ] {
            assert!(of_state(name, "").contains(remedy), "{name}");
        }
        assert!(!of_state("QUIT", "").contains("use vigie_session_for()"));
    }
}
