//! The configuration as a whole: the table against the settings, checks across options, secrets.

use std::collections::HashSet;
use std::time::Duration;

use super::*;

/// A good value for each option that differs from its default.
fn other_value(key: &str) -> &'static str {
    match key {
        "uri" => "redis-sentinel://ann:pw@h9/other?db=3",
        "service" => "mymaster",
        "sentinel.addrs" => "h7,h8:1",
        "sentinel.username" | "auth.username" => "ann",
        "sentinel.password" | "auth.password" => "hunter2",
        "protocol" => "3",
        "client.name" => "worker-1",
        "client.no_evict" | "client.no_touch" | "pool.eager" | "retry.noreplicas" | "retry.misconf" => "true",
        "submit.max_bytes" | "sub.max_bytes" => "4096",
        "sub.overflow" => "disconnect",
        "sub.ping" => "777",
        "lane.share_at" => "7.5",
        "replica.pick" => "latency",
        "replica.fallback" => "error",
        "replica.preferred" | "replica.addrs" => "r1,r2:2",
        "primary.addr" => "p2:7",
        "address.map" => "a:1=b:2",
        "tcp.keepalive_idle" | "tcp.keepalive_interval" => "7s",
        "tcp.user_timeout" | "pool.idle" | "pool.lifetime" | "pool.wait" => "77",
        key if key.starts_with("timeout.") || key.starts_with("retry.backoff") || key == "lane.silent" => "77",
        "reply.max_bytes" => "2048",
        "monitor" => "disconnect",
        "monitor.interval" | "failover.fence_max" => "777",
        "failover.fence" | "script.cache" => "off",
        "tls" | "sentinel.tls" | "write.aof" => "on",
        key if key.ends_with("tls.min_version") => "1.3",
        key if key.ends_with("tls.verify") => "ca",
        "failover.probe" => "eager",
        "shard.hash" => "rendezvous",
        "shard.tags" => "none",
        "shard.default_node" => "node_2",
        "shard.primaries_only" | "shard.degraded" => "on",
        "write.majority_ms" => "30s",
        "log.level" => "info",
        "log.format" => "json",
        "fork" => "reopen",
        _ => "2",
    }
}

fn config(options: &[(&str, &str)]) -> Result<Config> {
    let mut config = Config::new();
    options.iter().try_for_each(|(key, value)| config.set(key, value)).map(|()| config)
}

fn settings(options: &[(&str, &str)]) -> Result<Settings> {
    let mut all = vec![("sentinel.addrs", "h1")];
    all.extend_from_slice(options);
    config(&all)?.settings()
}

fn message(options: &[(&str, &str)]) -> String {
    let error = settings(options).unwrap_err();
    assert_eq!(error.status(), Status::Config, "{error:?}");
    error.message().to_owned()
}

#[test]
fn the_table_and_the_typed_defaults_agree() {
    for option in OPTIONS {
        if matches!(option.kind, OptionKind::Uri | OptionKind::Sentinels(_)) {
            assert_eq!(option.default, "");
            continue;
        }
        let mut settings = Settings::default();
        option.put(&mut settings, option.default).unwrap();
        if settings.client.lane.wanted.take() == Some(Settings::default().client.lane.max) {
            assert_eq!(option.key, "lane.max");
        }
        assert_eq!(settings, Settings::default(), "{}", option.key);
    }
}

#[test]
fn every_option_is_accepted_and_changes_the_settings() {
    for option in OPTIONS {
        // What it needs besides.
        let needed: &[_] = match option.key {
            key if key.starts_with("sentinel.tls.") => {
                &[("sentinel.tls", "on"), ("sentinel.tls.cert", "file"), ("sentinel.tls.key", "file")]
            }
            key if key.starts_with("tls.") => &[("tls", "on"), ("tls.cert", "file"), ("tls.key", "file")],
            _ => &[("auth.password", "a"), ("sentinel.password", "b")],
        };
        let is_fixed = matches!(option.key, "primary.addr" | "replica.addrs");
        let base = [needed, if is_fixed { &[("primary.addr", "p1")] } else { &[("sentinel.addrs", "h1")] }].concat();
        let before = config(&base).unwrap().settings().unwrap();
        let after =
            config(&[&base[..], &[(option.key, other_value(option.key))]].concat()).unwrap().settings().unwrap();
        assert_ne!(after, before, "{}", option.key);
    }
}

#[test]
fn every_option_writes_a_place_of_its_own() {
    let before = settings(&[]).unwrap();
    let mut seen = HashSet::new();
    for option in OPTIONS.iter().filter(|option| !matches!(option.kind, OptionKind::Uri)) {
        let mut after = before.clone();
        option.put(&mut after, other_value(option.key)).unwrap();
        let changed = format!("{after:?}");
        assert_ne!(changed, format!("{before:?}"), "{}", option.key);
        assert!(seen.insert(changed), "{} writes the place of another option", option.key);
    }
}

#[test]
fn keys_are_unique_and_rows_are_complete() {
    let mut keys = HashSet::new();
    for row in Config::new().describe() {
        assert!(keys.insert(row.key), "{}", row.key);
        assert!(row.text.ends_with('.') && !row.since.is_empty(), "{}", row.key);
        assert_eq!(row.value, row.default, "{}", row.key);
    }
}

#[test]
fn an_unknown_option_is_named_with_the_nearest_known_one() {
    let error = Config::new().set("tcp_keepalive", "1").unwrap_err();
    assert_eq!(error.status(), Status::Config);
    assert_eq!(error.message(), "unknown option \"tcp_keepalive\": did you mean \"tcp.keepalive_idle\"?");
    let error = Config::new().set("pool.size", "8").unwrap_err();
    assert_eq!(error.message(), "unknown option \"pool.size\": did you mean \"pool.max\"?");
    for (key, known) in [("sentinels", "sentinel.addrs"), ("master", "service"), ("password", "auth.password")] {
        let error = Config::new().set(key, "1").unwrap_err();
        assert_eq!(error.message(), format!("unknown option {key:?}: did you mean {known:?}?"));
    }
}

#[test]
fn tls_is_for_both_sides_apart_and_what_is_left_out_for_the_sentinels_is_as_for_the_nodes() {
    let settings = |options: &[(&str, &str)]| {
        let given = [&[("sentinel.addrs", "h")], options].concat();
        config(&given).unwrap().settings().map(|settings| (settings.client.tls, settings.sentinel.tls))
    };
    let (nodes, sentinels) = settings(&[("tls", "true")]).unwrap();
    assert!(nodes.on && !sentinels.on);
    let pair = [("tls.ca", "/ca"), ("tls.cert", "/c"), ("tls.key", "/k"), ("tls.verify", "ca")];
    let (nodes, sentinels) = settings(&[&[("sentinel.tls", "on")], &pair[..]].concat()).unwrap();
    assert!(!nodes.on && sentinels.on && sentinels.verify == TlsVerify::Full && nodes.verify == TlsVerify::Ca);
    let files = [&sentinels.ca, &sentinels.cert, &sentinels.key].map(|file| file.as_deref().unwrap_or_default());
    assert_eq!(files, ["/ca", "/c", "/k"]);
    let own = [("sentinel.tls", "on"), ("sentinel.tls.ca", "system"), ("tls.ca", "/ca")];
    assert_eq!(settings(&own).unwrap().1.ca.as_deref(), Some("system"));
}

#[test]
fn tls_options_that_would_have_no_effect_are_refused() {
    let refused = |options: &[(&str, &str)]| {
        let given = [&[("sentinel.addrs", "h")], options].concat();
        config(&given).unwrap().settings().unwrap_err().message().to_owned()
    };
    for (options, word) in [
        (&[("tls.ca", "/ca")][..], "\"tls.ca\" is set and \"tls\" is off"),
        (&[("tls.verify", "ca")], "\"tls.verify\" is set"),
        (&[("tls", "on"), ("sentinel.tls.ca", "/ca")], "\"sentinel.tls.ca\" is set and \"sentinel.tls\" is off"),
        (&[("tls", "on"), ("tls.cert", "/c")], "\"tls.cert\" is set without \"tls.key\""),
        (&[("tls", "on"), ("tls.key", "/k")], "\"tls.key\" is set without \"tls.cert\""),
    ] {
        let text = refused(options);
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn secrets_are_neither_described_nor_printed() {
    let uri = "redis-sentinel://ann:hunter2@h/m?sentinel.password=hunter2";
    let config = config(&[("uri", uri), ("sentinel.addrs", "redis://:hunter2@h2")]).unwrap();
    let all = format!("{config:?} {:?} {:?}", config.describe(), config.settings().unwrap());
    assert!(!all.contains("hunter2"), "{all}");
    let described = config.describe();
    let value = |key| described.iter().find(|row| row.key == key).map(|row| row.value.as_str());
    assert_eq!(value("auth.password"), Some("***"));
    assert_eq!(value("sentinel.password"), Some("***"));
    assert_eq!(value("auth.username"), Some("ann"));
    assert_eq!(value("sentinel.addrs"), Some("h2:26379"));
    assert_eq!(value("uri"), Some(""));
}

#[test]
fn the_uri_is_applied_where_it_is_set() {
    let uri = ("uri", "redis-sentinel://:pw@h1,h2/m?timeout.call=250");
    let settings = config(&[("timeout.call", "100"), uri, ("service", "other")]).unwrap().settings().unwrap();
    assert_eq!(settings.client.timeout_call, Duration::from_millis(250));
    assert_eq!(settings.service.as_deref(), Some("other"));
    assert_eq!(settings.client.auth.password, Some(Secret::new("pw")));
    assert_eq!(settings.sentinel.auth, Credentials::default());
}

#[test]
fn a_fixed_primary_stands_in_place_of_sentinels() {
    let uri = ("uri", "redis://:pw@h:7/3?replica.addrs=r1,r2:8");
    let fixed = config(&[uri]).unwrap().settings().unwrap();
    let at = |text: &str| Endpoint::parse(text, DATA_PORT).unwrap();
    assert_eq!(
        fixed.fixed,
        FixedSettings { primary: Some(at("h:7")), replicas: vec![at("r1"), at("r2:8")], asks_for_replicas: false }
    );
    assert_eq!((fixed.client.db, fixed.sentinel.addrs.len()), (3, 0));
    assert_eq!(fixed.client.auth.password, Some(Secret::new("pw")));
    // The service needs no name, and keeps the one that it is given.
    assert_eq!(fixed.service.as_deref(), Some("h:7"));
    let named = config(&[uri, ("service", "orders")]).unwrap().settings().unwrap();
    assert_eq!(named.service.as_deref(), Some("orders"));
    let on_a_socket = config(&[("primary.addr", "unix:/run/r.sock")]).unwrap().settings().unwrap();
    assert_eq!(on_a_socket.fixed.primary, Some(at("unix:/run/r.sock")));
    // A program's other settings stay as they are, those about Sentinels included.
    let is_other = |key: &str| !matches!(key, "uri" | "sentinel.addrs") && !key.starts_with("tls.");
    for option in OPTIONS.iter().filter(|option| is_other(option.key)) {
        let others = [uri, ("sentinel.password", "b"), (option.key, other_value(option.key))];
        assert!(config(&others).unwrap().settings().is_ok(), "{}", option.key);
    }
    let strict = [uri, ("failover.fence", "off"), ("write.replicas", "1"), ("write.majority_ms", "300")];
    assert!(config(&strict).unwrap().settings().is_ok());
}

#[test]
fn a_uri_of_one_kind_replaces_the_other() {
    let (sentinels, primary) = (("uri", "redis-sentinel://h1/m"), ("uri", "redis://h2?replica.addrs=r"));
    let last = config(&[sentinels, primary]).unwrap().settings().unwrap();
    assert!(last.sentinel.addrs.is_empty() && last.fixed.primary.is_some());
    let last = config(&[primary, sentinels]).unwrap().settings().unwrap();
    assert_eq!((last.sentinel.addrs.len(), last.fixed), (1, FixedSettings::default()));
    // Replicas that were set before belong to the primary of the URI.
    let apart = config(&[("replica.addrs", "r"), ("uri", "redis://h2")]).unwrap().settings().unwrap();
    assert_eq!(apart.fixed.replicas.len(), 1);
}

#[test]
fn a_primary_and_sentinels_together_are_refused() {
    for (options, word) in [
        (&[("primary.addr", "p")][..], "\"primary.addr\" and \"sentinel.addrs\" are both set"),
        (&[("replica.addrs", "r")], "\"replica.addrs\" needs \"primary.addr\""),
    ] {
        assert!(message(options).contains(word), "{}", message(options));
    }
    let same = config(&[("uri", "redis://h?replica.addrs=r,h:6379")]).unwrap().settings().unwrap_err();
    assert!(same.message().contains("names the primary (h:6379)"), "{same}");
    let list = Config::new().set("primary.addr", "a,b").unwrap_err();
    assert!(list.message().contains("one address, without a comma"), "{list}");
}

#[test]
fn a_refused_uri_changes_nothing() {
    let mut config = config(&[("sentinel.addrs", "h1"), ("db", "1")]).unwrap();
    let before = config.settings().unwrap();
    for uri in ["redis-sentinel://h2/m?db=2&db=x", "redis-sentinel://h2/m?nosuch=1"] {
        assert!(config.set("uri", uri).is_err());
        assert_eq!(config.settings().unwrap(), before);
    }
}

#[test]
fn an_unescaped_ampersand_shows_no_piece_of_a_password() {
    let error = Config::new().set("uri", "redis-sentinel://h/m?auth.password=ab&hunter2=1").unwrap_err();
    assert!(!error.message().contains("hunter2") && error.message().contains("%26"), "{error}");
}

#[test]
fn a_clone_is_independent_of_what_it_came_from() {
    let first = config(&[("sentinel.addrs", "h1"), ("db", "1")]).unwrap();
    let mut second = first.clone();
    second.set("db", "2").unwrap();
    assert_eq!(first.settings().unwrap().client.db, 1);
    assert_eq!(second.settings().unwrap().client.db, 2);
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for (options, word) in [
        (&[("pool.min", "17")][..], "\"pool.min\" (17) is above \"pool.max\" (16)"),
        (&[("lane.max", "4"), ("pool.max", "4")], "\"lane.max\" (4) must be below \"pool.max\" (4)"),
        (&[("retry.backoff_min", "501")], "\"retry.backoff_min\" (501) is above"),
        (&[("write.replicas", "1"), ("failover.fence", "off")], "needs \"failover.fence\" on"),
        (&[("write.majority_ms", "5000")], "at least twice \"monitor.interval\" (5000)"),
        (&[("write.majority_ms", "30s"), ("monitor", "off")], "needs \"monitor\" on"),
        (&[("replica.pick", "preferred")], "\"replica.preferred\" names no address"),
        (&[("auth.username", "ann")], "without \"auth.password\""),
        (&[("sentinel.username", "ann")], "without \"sentinel.password\""),
        (&[("sentinel.min_others", "3"), ("sentinel.max_peers", "2")], "no more than 2 others"),
    ] {
        assert!(message(options).contains(word), "{}", message(options));
    }
    let error = Config::new().settings().unwrap_err();
    assert!(error.message().contains("no Sentinel is given"), "{error}");
}

#[test]
fn values_out_of_range_are_refused_where_they_are_set() {
    for (key, value, word) in [
        ("pool.max", "0", "\"0\" is out of range: 2 to 10000"),
        ("pool.max", "-1", "\"-1\" is not a whole number"),
        ("db", "2147483648", "out of range"),
        ("timeout.call", "0", "out of range: 1 to 86400000 milliseconds"),
        ("timeout.call", "off", "is not a duration"),
        ("tcp.keepalive_idle", "1500", "whole number of seconds"),
        ("protocol", "4", "is none of: auto, 2, 3"),
        ("client.name", "a b", "printable ASCII without blanks"),
        ("client.name", "a\nb", "printable ASCII without blanks"),
        ("service", "my master", "without blanks"),
        ("pool.eager", "maybe", "neither true nor false"),
        ("write.replicas", "300", "out of range: 0 to 255, or all"),
        ("monitor", "maybe", "is none of: on, off, disconnect"),
        ("failover.probe", "true", "is none of: "),
        ("lane.share_at", "NaN", "not a decimal number"),
        ("replica.preferred", "unix:/r.sock", "cannot stand here"),
        ("replica.preferred", "r1,", "entry 2 is empty"),
        ("sentinel.addrs", "", "the list is empty"),
    ] {
        let error = Config::new().set(key, value).unwrap_err();
        assert_eq!(error.status(), Status::Config);
        assert!(error.message().starts_with(&format!("option {key:?}: ")), "{error}");
        assert!(error.message().contains(word), "{error}");
    }
}

#[test]
fn words_that_are_a_switch_take_all_its_spellings() {
    for (text, on) in [("true", true), ("yes", true), ("1", true), ("false", false), ("no", false), ("0", false)] {
        let settings = settings(&[("monitor", text), ("failover.fence", text)]).unwrap().sentinel;
        assert_eq!(settings.monitor.mode == MonitorMode::On, on, "{text}");
        assert_eq!(settings.monitor.mode == MonitorMode::Off, !on, "{text}");
        assert_eq!(settings.failover.fence, on, "{text}");
    }
}

#[test]
fn off_is_the_absence_of_a_limit() {
    let off = [("pool.idle", "off"), ("pool.wait", "off"), ("tcp.user_timeout", "off")];
    let settings_off = settings(&off).unwrap();
    assert_eq!(settings_off.client.pool.idle, None);
    assert_eq!(settings_off.client.pool.wait, None);
    assert_eq!(settings_off.client.tcp.user_timeout, Duration::ZERO);
    assert_eq!(settings(&[("pool.wait", "0")]).unwrap().client.pool.wait, Some(Duration::ZERO));
}

#[test]
fn a_default_lane_limit_yields_to_a_small_pool_and_comes_back() {
    let small = settings(&[("pool.max", "3")]).unwrap().client;
    assert_eq!(small.lane.max, 2);
    assert_eq!(config(&[("pool.max", "16")]).unwrap().overlay(&small).unwrap().lane.max, 4);
    let explicit = settings(&[("lane.max", "4")]).unwrap().client;
    assert!(config(&[("pool.max", "3")]).unwrap().overlay(&explicit).is_err());
}

#[test]
fn a_client_overrides_only_what_is_its_own() {
    let base = settings(&[("auth.password", "pw"), ("pool.max", "8")]).unwrap().client;
    let over = config(&[("pool.min", "2"), ("replica.fallback", "error")]).unwrap().overlay(&base).unwrap();
    assert_eq!((over.pool.min, over.pool.max, over.replica.fallback), (2, 8, Fallback::Error));
    assert_eq!(over.auth, base.auth);
    for option in OPTIONS.iter().filter(|option| !matches!(option.kind, OptionKind::Uri)) {
        let result = config(&[(option.key, other_value(option.key))]).unwrap().overlay(&base);
        assert_eq!(result.is_ok(), option.per_client, "{}", option.key);
        if let Err(error) = result {
            assert!(error.message().contains(option.key) && error.message().contains("sentinel handle"), "{error}");
        }
    }
}

#[test]
fn only_dynamic_options_change_while_running() {
    let base = settings(&[("auth.password", "a"), ("sentinel.password", "b")]).unwrap();
    for option in OPTIONS {
        let result = base.with(option.key, other_value(option.key));
        assert_eq!(result.is_ok(), option.dynamic, "{}", option.key);
        if let Ok(changed) = result {
            assert_ne!(changed, base, "{}", option.key);
        }
    }
    let fixed = config(&[("uri", "redis://h")]).unwrap().settings().unwrap();
    assert_eq!(fixed.with("db", "2").unwrap().service, fixed.service);
    let dynamic: Vec<_> = OPTIONS.iter().filter(|option| option.dynamic).map(|option| option.key).collect();
    let wanted = ["db", "sentinel.username", "sentinel.password", "auth.username", "auth.password", "address.map"];
    assert_eq!(dynamic, [&wanted[..], &["log.level", "log.fd", "log.format"]].concat());
}

#[test]
fn a_change_while_running_reaches_both_sides_and_is_checked() {
    let base = settings(&[]).unwrap();
    let mapped = base.with("address.map", "a=b").unwrap();
    assert_eq!(mapped.sentinel.address_map, mapped.client.address_map);
    assert!(!mapped.sentinel.address_map.is_empty());
    assert!(base.with("auth.username", "ann").is_err());
    let with_password = base.with("auth.password", "pw").unwrap();
    assert!(with_password.with("auth.username", "ann").is_ok());
}

#[test]
fn both_sides_share_sockets_limits_and_name() {
    let all = settings(&[("tcp.keepalive_count", "5"), ("reply.max_depth", "9"), ("client.name", "n")]).unwrap();
    assert_eq!(all.sentinel.tcp, all.client.tcp);
    assert_eq!(all.sentinel.limits.max_depth, 9);
    assert_eq!(all.sentinel.client_name.as_deref(), Some("n"));
}

/// Not even for as long as a URI takes to be read: another thread may show what a server says at that moment.
#[test]
fn what_is_no_password_is_never_a_secret() {
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3000 {
                Config::new().set("uri", "redis-sentinel://h/qyv-service?replica.fallback=primary").unwrap();
            }
            over.store(true, std::sync::atomic::Ordering::Release);
        });
        while !over.load(std::sync::atomic::Ordering::Acquire) {
            assert_eq!(crate::error::clean("qyv-service"), "qyv-service");
        }
    });
}

/// A program may keep its configuration: what it set there is no secret in what servers say, unless it is one.
#[test]
fn values_that_may_be_shown_are_not_taken_for_secrets() {
    let mut kept = Config::new();
    kept.set("uri", "redis-sentinel://qzc-user:qzc-password@qzc-host/qzc-service?replica.fallback=primary").unwrap();
    let said = "qzc-service and qzc-user at qzc-host:26379: the primary and qzc-password";
    assert_eq!(crate::error::clean(said), said.replace("qzc-password", "***"));
    drop(kept);
    assert_eq!(crate::error::clean(said), said);
}
