//! Configuration under arbitrary text: nothing panics, no password is shown, addresses survive being written and read.

use proptest::prelude::*;
use vigie::config::{Config, Endpoint, Settings};

/// The middle of a password; no message of the library contains this text otherwise.
const MARK: &str = "Zq7Zq7";

/// Text with many of the characters that have a meaning in a URI or a list.
fn soup(most: usize) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-z0-9]{1,4}".prop_map(String::from),
        4 => "[:/@,?#&=%. \\[\\]]{1,2}".prop_map(String::from),
        1 => prop::sample::select(vec!["redis://", "rediss://", "redis-sentinel://", "::1", "%41", "%ff", "unix:/", "db=2"])
            .prop_map(String::from),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..most).prop_map(|pieces| pieces.concat())
}

/// The same without characters that begin an entry of their own.
fn password() -> impl Strategy<Value = String> {
    let part = || soup(4).prop_map(|text| text.replace("://", ":/"));
    (part(), part()).prop_map(|(before, behind)| format!("{before}{MARK}{behind}"))
}

fn keys() -> Vec<&'static str> {
    Config::new().describe().iter().map(|row| row.key).collect()
}

/// All messages of the library about this option and value.
fn said(key: &str, value: &str) -> String {
    let mut config = Config::new();
    let mut said = match config.set(key, value) {
        Ok(()) => String::new(),
        Err(error) => format!("{error} {error:?}"),
    };
    match config.settings() {
        Ok(settings) => said += &format!("{:?}", settings.with("db", "1").map(|changed| changed.sentinel)),
        Err(error) => said += error.message(),
    }
    said + &format!("{config:?} {:?}", config.describe())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_for_any_option_is_taken_or_refused(key in prop::sample::select(keys()), value in soup(12)) {
        let mut config = Config::new();
        if let Err(error) = config.set(key, &value) {
            prop_assert!(error.message().contains(key), "{}", error.message());
            prop_assert!(error.message().len() < 1000);
        }
        let _ = config.settings();
        let _ = Settings::default().with(key, &value);
    }

    #[test]
    fn any_text_as_a_key_is_taken_or_refused(key in soup(6), value in soup(3)) {
        let _ = Config::new().set(&key, &value);
    }

    #[test]
    fn any_uri_is_taken_or_refused(tail in soup(20)) {
        said("uri", &format!("redis-sentinel://{tail}"));
        said("uri", &format!("redis://{tail}"));
    }

    #[test]
    fn a_uri_never_shows_its_password(user in "[a-z]{0,3}", password in password(), hosts in soup(4), tail in soup(8)) {
        for scheme in ["redis-sentinel", "redis"] {
            let uri = format!("{scheme}://{user}:{password}@{hosts}{tail}");
            let said = said("uri", &uri);
            prop_assert!(!said.contains(MARK), "{uri}\n{said}");
        }
    }

    #[test]
    fn a_list_never_shows_its_passwords(before in soup(3), password in password(), behind in soup(6)) {
        let before = before.replace("://", ":/");
        for text in [format!("redis://:{password}@h{behind}"), format!("{before},redis://u:{password}@{behind}")] {
            let said = said("sentinel.addrs", &text);
            prop_assert!(!said.contains(MARK), "{text}\n{said}");
        }
    }

    #[test]
    fn a_secret_option_never_shows_its_value(key in prop::sample::select(vec!["auth.password", "sentinel.password"]), password in password()) {
        let direct = said(key, &password);
        prop_assert!(!direct.contains(MARK), "{direct}");
        let in_uri = said("uri", &format!("redis-sentinel://h/m?{key}={password}"));
        prop_assert!(!in_uri.contains(MARK), "{in_uri}");
    }

    #[test]
    fn an_endpoint_survives_being_written_and_read(text in soup(5), port in 1u16..) {
        if let Ok(endpoint) = Endpoint::parse(&text, port) {
            prop_assert_eq!(Endpoint::parse(&endpoint.to_string(), 1).unwrap(), endpoint);
        }
    }

    #[test]
    fn good_endpoints_are_accepted(address in any::<std::net::IpAddr>(), name in "[a-zA-Z][a-z0-9-]{0,20}(\\.[a-z]{1,9}){0,3}", port in 1u16..) {
        for host in [address.to_string(), name] {
            let endpoint = Endpoint::tcp(&host, port).unwrap();
            prop_assert_eq!(Endpoint::parse(&endpoint.to_string(), 1).unwrap(), endpoint);
        }
    }
}
