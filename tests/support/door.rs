//! What every scripted server does with a new connection: HELLO, AUTH, CLIENT, PING, QUIT.

use super::client::Login;
use super::resp::Value;
use super::scripted::{Act, Call};

/// How a scripted server greets connections.
#[derive(Clone, Debug)]
pub struct Door {
    /// The login that it wants; none if it wants no login. Without a user it is that of `default`.
    pub login: Option<Login>,
    /// Knows HELLO (and AUTH with a user); servers before 6.0 do not.
    pub hello: bool,
    /// Knows CLIENT SETINFO and CLIENT NO-TOUCH; servers before 7.2 do not.
    pub setinfo: bool,
    /// `standalone` or `sentinel`, as HELLO says.
    pub mode: &'static str,
    pub version: String,
}

impl Door {
    pub fn open(mode: &'static str) -> Door {
        Door { login: None, hello: true, setinfo: true, mode, version: "7.0.15".into() }
    }

    /// The answer; `None` if the command is for the server behind it.
    pub fn answer(&self, role: &str, call: &mut Call) -> Option<Act> {
        let command = call.word(0);
        let reply = match command.as_str() {
            "HELLO" if !self.hello => {
                Value::error(format!("ERR unknown command `HELLO`, with args beginning with: `{}`, ", call.text(1)))
            }
            "HELLO" => self.hello(role, call),
            "AUTH" => self.auth(call),
            "QUIT" => return Some(Act::Last(Value::ok())),
            _ if self.login.is_some() && !call.session.logged_in => Value::error("NOAUTH Authentication required."),
            "CLIENT" => self.client(call),
            "PING" if call.args.len() > 1 => Value::bulk(&call.args[1]),
            "PING" => Value::Simple("PONG".into()),
            _ => return None,
        };
        Some(Act::Reply(reply))
    }

    fn admits(&self, user: &str, password: &str) -> bool {
        self.login.as_ref().is_none_or(|login| {
            login.user.as_deref().unwrap_or("default") == user && login.password.as_deref() == Some(password)
        })
    }

    fn auth(&self, call: &mut Call) -> Value {
        if self.login.is_none() && call.args.len() == 2 {
            return Value::error(
                "ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            );
        }
        let (user, password) = match call.args.len() {
            2 => ("default".to_string(), call.text(1)),
            3 if self.hello => (call.text(1), call.text(2)),
            _ => return Value::error("ERR wrong number of arguments for 'auth' command"),
        };
        self.log_in(call, &user, &password).unwrap_or_else(Value::ok)
    }

    fn log_in(&self, call: &mut Call, user: &str, password: &str) -> Option<Value> {
        if self.admits(user, password) {
            call.session.logged_in = true;
            return None;
        }
        Some(Value::error(match self.hello {
            true => "WRONGPASS invalid username-password pair or user is disabled.",
            false => "ERR invalid password",
        }))
    }

    fn hello(&self, role: &str, call: &mut Call) -> Value {
        let protocol = match call.text(1).as_str() {
            "" => call.session.protocol,
            "2" => 2,
            "3" => 3,
            _ => return Value::error("NOPROTO unsupported protocol version"),
        };
        let mut at = 2;
        while at < call.args.len() {
            match call.word(at).as_str() {
                "AUTH" => {
                    let (user, password) = (call.text(at + 1), call.text(at + 2));
                    if let Some(refused) = self.log_in(call, &user, &password) {
                        return refused;
                    }
                    at += 3;
                }
                "SETNAME" => {
                    call.session.name = call.text(at + 1);
                    at += 2;
                }
                option => return Value::error(format!("ERR Syntax error in HELLO option '{option}'")),
            }
        }
        if self.login.is_some() && !call.session.logged_in {
            return Value::error(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
                 <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
                 the same time",
            );
        }
        call.session.protocol = protocol;
        let number = |number| Value::Int(number);
        let fields = [
            ("server", Value::bulk("redis")),
            ("version", Value::bulk(&self.version)),
            ("proto", number(protocol.into())),
            ("id", number(call.conn as i64)),
            ("mode", Value::bulk(self.mode)),
            ("role", Value::bulk(role)),
            ("modules", Value::Array(Vec::new())),
        ];
        Value::Map(fields.into_iter().map(|(key, value)| (Value::bulk(key), value)).collect())
    }

    fn client(&self, call: &mut Call) -> Value {
        match call.word(1).as_str() {
            "SETNAME" => {
                call.session.name = call.text(2);
                Value::ok()
            }
            "GETNAME" => Value::bulk(&call.session.name),
            "ID" => Value::Int(call.conn as i64),
            "NO-EVICT" => Value::ok(),
            "SETINFO" | "NO-TOUCH" if self.setinfo => Value::ok(),
            word => Value::error(format!("ERR unknown subcommand '{word}'. Try CLIENT HELP.")),
        }
    }
}

/// A server's answer to an unknown command.
pub fn unknown(call: &Call) -> Act {
    Act::Reply(Value::error(format!("ERR unknown command '{}', with args beginning with: ", call.text(0))))
}
