/// @file
/// Settings, the Sentinels of a deployment, clients and sessions.
///
/// Guarantees: a handle is moved, not copied, frees itself, and may go in any order. Leaves to others: calls (calls.hpp), scans,
/// subscriptions and jobs (scan.hpp, pubsub.hpp, jobs.hpp).
#ifndef VIGIE_SENTINEL_HPP
#define VIGIE_SENTINEL_HPP

#include "calls.hpp"

namespace vigie {
VIGIE_HPP_BEGIN

class session;
class sentinel;

/// Settings as keys and values; CONFIGURATION.md lists the keys, and "uri" is one of them. One thread at a time changes it.
class config {
public:
  /// No settings. Ownership: frees itself, and wipes its passwords. Blocks: no. Throws: nothing.
  config() noexcept : owned_(vigie_config_new()) {}
  /// Sets one option. Ownership: copies both. Blocks: no. Errors: VIGIE_ERR_CONFIG: unknown, or a bad value; VIGIE_ERR_INVALID_ARG.
  result<void> try_set(const std::string &key, const std::string &text) {
    return detail::done([&](vigie_error **err) { return vigie_config_set(get(), key.c_str(), text.c_str(), err); });
  }
  /// Every option, with its value, default, type, range and text. Ownership: the caller's. Blocks: no. Errors: VIGIE_ERR_INVALID_STATE.
  result<reply> try_describe() const {
    return detail::made<reply, vigie_reply>([&](vigie_reply **out, vigie_error **err) { return vigie_config_describe(get(), out, err); });
  }
#if VIGIE_HPP_EXCEPTIONS
  /// Settings from a URI. Blocks: no. Throws the errors of try_set().
  explicit config(const std::string &uri) : config() { set("uri", uri); }
  /// Settings from pairs: `config{{"uri", "..."}, {"timeout.call", "250ms"}}`. Blocks: no. Throws the errors of try_set().
  config(std::initializer_list<std::pair<const char *, const char *>> options) : config() {
    for (const auto &[key, text] : options) set(key, text);
  }
  /// As try_set(); throws its errors.
  config &set(const std::string &key, const std::string &text) {
    unwrap(try_set(key, text));
    return *this;
  }
  /// As try_describe(); throws its errors.
  reply describe() const { return unwrap(try_describe()); }
#endif
  /// For vigie.h. Ownership: stays here. Blocks: no. Throws: nothing.
  vigie_config *get() const noexcept { return owned_.get(); }

private:
  detail::owned<vigie_config, vigie_config_free> owned_;
};

namespace detail {
/// A configuration that may be left out.
inline const vigie_config *raw(const config *overrides) noexcept { return overrides == nullptr ? nullptr : overrides->get(); }
/// A name that is left out when it is empty.
inline const char *name_or_null(const std::string &name) noexcept { return name.empty() ? nullptr : name.c_str(); }
/// Texts as C has them. Throws std::bad_alloc.
template <class Texts> std::vector<const char *> c_texts(const Texts &texts) {
  std::vector<const char *> raw;
  for (const auto &text : texts) raw.push_back(text.c_str());
  return raw;
}
} // namespace detail

/// Runs commands on a service: its primary, its replicas or both, or several shards. Any thread may use it, also several at a time.
class client : public calls<client> {
public:
  /// Takes over a client of the C interface. Ownership: frees it. Blocks: no. Throws: nothing.
  explicit client(vigie_client *taken) noexcept : owned_(taken) {}

  /// A session: a client pinned to one connection of its own, for WATCH, SELECT, MULTI by hand. On a client of shards it is on the shard of
  /// `key`. Ownership: goes on without this client. Blocks: no. Errors: vigie_session_for().
  result<vigie::session> try_session(std::string_view key = {}, const config *overrides = nullptr) const;
#if VIGIE_HPP_EXCEPTIONS
  /// As try_session(); throws its errors.
  vigie::session session(std::string_view key = {}, const config *overrides = nullptr) const;
  /// A transaction over watched keys: WATCH, then `build(session &, pipeline &)` reads with the session and adds to the list, then MULTI and
  /// EXEC. When a watched key was changed meanwhile, or the connection was lost before EXEC, it begins again, `attempts` times in all.
  ///
  /// Ownership: the reply is the caller's: one value for each command. Blocks: up to the budget for each call. Errors: txn_aborted_error after
  /// the last attempt; as call(); what `build` throws.
  template <class Build> reply transaction(std::initializer_list<std::string_view> keys, Build &&build, int attempts = 16) const;
#endif

  /// What this client knows of its service: TOPOLOGY.md. Ownership: the caller's. Blocks: no. Errors: vigie_client_topology().
  result<reply> try_topology() const { return asked([&](auto out, auto err) { return vigie_client_topology(get(), out, err); }); }
  /// What this client has done: STATISTICS.md. Ownership: the caller's. Blocks: no. Errors: vigie_client_stats().
  result<reply> try_stats() const { return asked([&](auto out, auto err) { return vigie_client_stats(get(), out, err); }); }
  /// The same as text for Prometheus, or OpenMetrics. Ownership: the caller's. Blocks: no. Errors: vigie_client_metrics().
  result<reply> try_metrics(bool openmetrics = false) const {
    std::uint32_t form = openmetrics ? std::uint32_t{VIGIE_METRICS_OPENMETRICS} : 0u;
    return asked([&](auto out, auto err) { return vigie_client_metrics(get(), form, out, err); });
  }
  /// Closes idle connections, and busy ones when their calls end. Blocks: no. Errors: VIGIE_ERR_CLOSED, VIGIE_ERR_FORKED.
  result<void> try_disconnect() {
    return detail::done([&](vigie_error **err) { return vigie_client_disconnect(get(), err); });
  }
  /// Refuses new calls, lets those that run finish for `time`, then ends them. The destructor does not wait: it needs no close. Blocks: up to
  /// `time` and 100 ms. Errors: VIGIE_ERR_TIMEOUT: calls had to be ended (it is closed all the same).
  result<void> try_close(budget time = {}) {
    return detail::done([&](vigie_error **err) { return vigie_client_close(get(), time.ms(), err); });
  }
  /// Gives a client of shards other shards. Ownership: copies the texts. Blocks: as sentinel::try_shards(). Errors: vigie_shards_set().
  result<void> try_set_shards(const std::vector<std::string> &shards) {
    auto raw = detail::c_texts(shards);
    return detail::done([&](vigie_error **err) { return vigie_shards_set(get(), raw.data(), raw.size(), err); });
  }
#if VIGIE_HPP_EXCEPTIONS
  /// As try_topology(); throws its errors.
  reply topology() const { return unwrap(try_topology()); }
  /// As try_stats(); throws its errors.
  reply stats() const { return unwrap(try_stats()); }
  /// As try_metrics(); throws its errors.
  std::string metrics(bool openmetrics = false) const { return unwrap(try_metrics(openmetrics)).as<std::string>(); }
  /// As try_disconnect(); throws its errors.
  void disconnect() { unwrap(try_disconnect()); }
  /// As try_close(); throws its errors.
  void close(budget time = {}) { unwrap(try_close(time)); }
  /// As try_set_shards(); throws its errors.
  void set_shards(const std::vector<std::string> &shards) { unwrap(try_set_shards(shards)); }
#endif
  /// Whether it was closed. Blocks: no. Throws: nothing.
  bool is_closed() const noexcept { return vigie_client_is_closed(get()) != 0; }
  /// The place of the shard of a key, from 0; -1 without shards. Blocks: no. Throws: nothing.
  std::int32_t shard_of(std::string_view key) const noexcept { return vigie_client_shard_of(get(), key.data(), key.size()); }

  /// Sets a tracing hook for the calls of this object, and of what it makes from then on. Set it before other threads use the client.
  /// Ownership: keeps the hook. Blocks: no. Throws: std::bad_alloc.
  void trace(trace_hook hook) { hook_ = std::make_shared<const trace_hook>(std::move(hook)); }
  /// For the calls. Ownership: a view. Blocks: no. Throws: nothing.
  detail::target target() const noexcept { return {get(), hook_.get(), nullptr, 0, VIGIE_TIMEOUT_DEFAULT}; }
  /// For vigie.h. Ownership: stays here. Blocks: no. Throws: nothing.
  vigie_client *get() const noexcept { return owned_.get(); }

private:
  template <class Call> static result<reply> asked(Call call) { return detail::made<reply, vigie_reply>(call); }
  detail::owned<vigie_client, vigie_client_free> owned_;
  std::shared_ptr<const trace_hook> hook_;
};

/// A client pinned to one connection, from client::session(). Calls run in call order. When its connection is lost it is of no use any more:
/// make a new one.
class session : public client {
public:
  /// Takes over a session of the C interface. Ownership: frees it. Blocks: no. Throws: nothing.
  explicit session(vigie_client *taken) noexcept : client(taken) {}
  /// WATCH: multi() gives VIGIE_ERR_TXN_ABORTED if one of the keys is changed until then. Blocks: up to the budget. Errors: as call().
  template <class... Keys> result<reply> try_watch(const Keys &...keys) { return try_call("WATCH", keys...); }
#if VIGIE_HPP_EXCEPTIONS
  /// As try_watch(); throws its errors.
  template <class... Keys> void watch(const Keys &...keys) { call("WATCH", keys...); }
  /// UNWATCH. Blocks: up to the budget. Throws the errors of call().
  void unwatch() { call("UNWATCH"); }
#endif
};

inline result<session> client::try_session(std::string_view key, const config *overrides) const {
  auto made = detail::made<vigie::session, vigie_client>([&](vigie_client **out, vigie_error **err) {
    return vigie_session_for(get(), key.data(), key.size(), detail::raw(overrides), out, err);
  });
  if (made) static_cast<client &>(*made).hook_ = hook_;
  return made;
}

#if VIGIE_HPP_EXCEPTIONS
inline session client::session(std::string_view key, const config *overrides) const { return unwrap(try_session(key, overrides)); }

template <class Build> reply client::transaction(std::initializer_list<std::string_view> keys, Build &&build, int attempts) const {
  command watch("WATCH");
  watch.add_all(keys);
  std::optional<vigie::session> on;
  for (int attempt = 1;; attempt++) {
    if (!on) on.emplace(session(keys.size() == 0 ? std::string_view() : *keys.begin()));
    on->call(watch);
    vigie::pipeline list = on->multi();
    build(*on, list);
    result<reply> outcome = list.try_exec();
    if (outcome) return *std::move(outcome);
    const error &why = outcome.error();
    if (why.status() != VIGIE_ERR_TXN_ABORTED || attempt >= attempts) why.raise();
    // Without this flag the connection of the session is gone.
    if (!why.retryable()) on.reset();
  }
}
#endif

/// The Sentinels of a deployment: clients are made from it. Any thread may use it. Clients go on when it is gone.
class sentinel {
public:
  /// Takes over a sentinel of the C interface. Ownership: frees it. Blocks: no. Throws: nothing.
  explicit sentinel(vigie_sentinel *taken) noexcept : owned_(taken) {}
  /// Checks the settings and starts with them. With a `time` above 0 a Sentinel must answer within it; default_time does not wait.
  /// Ownership: copies the settings. Blocks: up to `time`. Errors: vigie_sentinel_create().
  static result<sentinel> try_open(const config &settings, budget time = {}) {
    if (vigie_version_number() >> 8 != VIGIE_VERSION_NUMBER >> 8) {
      return failure(error(VIGIE_ERR_UNSUPPORTED, std::string("vigie.hpp of another version was compiled in than the library that runs, ") + vigie_version()));
    }
    return detail::made<sentinel, vigie_sentinel>(
        [&](vigie_sentinel **out, vigie_error **err) { return vigie_sentinel_create(settings.get(), time.ms(), out, err); });
  }
  /// A client for the primary of a service; "" is the one of the settings. It follows the primary over failovers. Ownership: copies all.
  /// Blocks: no, unless pool.eager is set. Errors: vigie_primary_for().
  result<client> try_primary(const std::string &service = {}, const config *overrides = nullptr) const {
    return client_of(vigie_primary_for, service, overrides);
  }
  /// A client that reads from the replicas. Ownership, blocks, errors: as try_primary().
  result<client> try_replica(const std::string &service = {}, const config *overrides = nullptr) const {
    return client_of(vigie_replica_for, service, overrides);
  }
  /// A client that reads from the replicas and writes to the primary. Ownership, blocks, errors: as try_primary().
  result<client> try_split(const std::string &service = {}, const config *overrides = nullptr) const {
    return client_of(vigie_split_for, service, overrides);
  }
  /// A client over several primaries: "node_1=sentinel:SERVICE", "node_2=redis://host:port". Ownership: copies all. Blocks: up to
  /// timeout.call. Errors: vigie_shards_for().
  result<client> try_shards(const std::vector<std::string> &shards, const config *overrides = nullptr) const {
    return shards_of(get(), shards, overrides);
  }
  /// The same without Sentinels. Ownership, blocks, errors: as try_shards().
  static result<client> try_shards_alone(const std::vector<std::string> &shards, const config *overrides = nullptr) {
    return shards_of(nullptr, shards, overrides);
  }
  /// The same with a hash function of the program. Ownership: `hash` and `user` are used until the client is gone and no call runs; an
  /// exception must not leave `hash`. Blocks: as try_shards(). Errors: vigie_shards_for_hash().
  result<client> try_shards(const std::vector<std::string> &shards, vigie_shard_hash hash, void *user, const config *overrides = nullptr) const {
    auto raw = detail::c_texts(shards);
    return detail::made<client, vigie_client>([&](vigie_client **out, vigie_error **err) {
      return vigie_shards_for_hash(get(), raw.data(), raw.size(), hash, user, detail::raw(overrides), out, err);
    });
  }

  /// What is known of a service, or of all ("") : TOPOLOGY.md. Ownership: the caller's. Blocks: no. Errors: vigie_sentinel_topology().
  result<reply> try_topology(const std::string &service = {}) const {
    return asked([&](auto out, auto err) { return vigie_sentinel_topology(get(), detail::name_or_null(service), out, err); });
  }
  /// Asks the Sentinels now. Ownership: the caller's. Blocks: up to `time`. Errors: vigie_sentinel_refresh().
  result<reply> try_refresh(const std::string &service = {}, budget time = {}) const {
    return asked([&](auto out, auto err) { return vigie_sentinel_refresh(get(), detail::name_or_null(service), time.ms(), out, err); });
  }
  /// All services of the deployment; with `follow` each is discovered and followed. Ownership: the caller's. Blocks: up to `time`. Errors:
  /// vigie_sentinel_services().
  result<reply> try_services(bool follow = false, budget time = {}) const {
    std::uint32_t how = follow ? std::uint32_t{VIGIE_SERVICES_FOLLOW} : 0u;
    return asked([&](auto out, auto err) { return vigie_sentinel_services(get(), how, time.ms(), out, err); });
  }
  /// What the handle and its clients have done: STATISTICS.md. Ownership: the caller's. Blocks: no. Errors: vigie_sentinel_stats().
  result<reply> try_stats() const { return asked([&](auto out, auto err) { return vigie_sentinel_stats(get(), out, err); }); }
  /// The same as text for Prometheus, or OpenMetrics. Ownership: the caller's. Blocks: no. Errors: vigie_sentinel_metrics().
  result<reply> try_metrics(bool openmetrics = false) const {
    std::uint32_t form = openmetrics ? std::uint32_t{VIGIE_METRICS_OPENMETRICS} : 0u;
    return asked([&](auto out, auto err) { return vigie_sentinel_metrics(get(), form, out, err); });
  }

  /// A command at the first Sentinel that answers, without the word SENTINEL: `try_command("FAILOVER", "mymaster")`. Ownership: the reply is
  /// the caller's. Blocks: up to timeout.call. Errors: vigie_sentinel_exec().
  template <class... Args> result<reply> try_command(const Args &...args) const { return at_sentinels(0, default_time, args...); }
  /// The same at every Sentinel: a map from addresses to replies. Ownership, blocks, errors: as try_command().
  template <class... Args> result<reply> try_command_all(const Args &...args) const {
    return at_sentinels(VIGIE_CALL_ALL, default_time, args...);
  }
  /// The same at one Sentinel, by its address, with a budget. Ownership: the reply is the caller's. Blocks: up to `time`. Errors:
  /// vigie_sentinel_exec_at().
  template <class... Args> result<reply> try_command_at(const std::string &address, budget time, const Args &...args) const {
    return detail::with_arguments(
        [&](std::size_t argc, const char *const *argv, const std::size_t *lengths) {
          return asked([&](auto out, auto err) { return vigie_sentinel_exec_at(get(), address.c_str(), argc, argv, lengths, 0, time.ms(), out, err); });
        },
        args...);
  }
  /// The first without waiting: one completion with this token. Ownership: copies. Blocks: no. Errors: vigie_sentinel_submit().
  template <class... Args> result<void> try_submit(queue &to, std::uint64_t token, const Args &...args) const {
    return detail::with_arguments(
        [&](std::size_t argc, const char *const *argv, const std::size_t *lengths) {
          return detail::done([&](vigie_error **err) {
            return vigie_sentinel_submit(get(), argc, argv, lengths, 0, VIGIE_TIMEOUT_DEFAULT, to.get(), token, err);
          });
        },
        args...);
  }
  /// Events of these kinds (VIGIE_EVENT_* bits) arrive on the queue with this token from now on; 0 ends that. Ownership: the watch ends with
  /// the queue. Blocks: no. Errors: vigie_sentinel_watch().
  result<void> try_watch(queue &to, std::uint64_t token = 0, std::uint32_t kinds = VIGIE_EVENT_ALL) const {
    return detail::done([&](vigie_error **err) { return vigie_sentinel_watch(get(), kinds, to.get(), token, err); });
  }
  /// Changes an option while it runs. Ownership: copies. Blocks: no. Errors: vigie_sentinel_configure().
  result<void> try_configure(const std::string &key, const std::string &text) {
    return detail::done([&](vigie_error **err) { return vigie_sentinel_configure(get(), key.c_str(), text.c_str(), err); });
  }
  /// Changes all options that are set, at the same moment. Ownership: copies. Blocks: no. Errors: vigie_sentinel_configure_all().
  result<void> try_configure(const config &settings) {
    return detail::done([&](vigie_error **err) { return vigie_sentinel_configure_all(get(), settings.get(), err); });
  }
  /// Closes it with all its clients. The destructor does not wait, and ends no client. Blocks: up to `time`, and 100 ms for each client. Errors:
  /// VIGIE_ERR_TIMEOUT: calls had to be ended (it is closed all the same).
  result<void> try_close(budget time = {}) {
    return detail::done([&](vigie_error **err) { return vigie_sentinel_close(get(), time.ms(), err); });
  }

#if VIGIE_HPP_EXCEPTIONS
  /// As try_open(); throws its errors.
  explicit sentinel(const config &settings, budget time = {}) : sentinel(unwrap(try_open(settings, time))) {}
  /// From a URI: redis-sentinel://host:port,host:port/service?key=value, or redis://host:port without Sentinels. Throws as try_open().
  explicit sentinel(const std::string &uri, budget time = {}) : sentinel(config(uri), time) {}
  /// From a URI in a literal. Throws as try_open().
  explicit sentinel(const char *uri, budget time = {}) : sentinel(std::string(uri), time) {}
  /// As try_primary(); throws its errors.
  client primary(const std::string &service = {}, const config *overrides = nullptr) const { return unwrap(try_primary(service, overrides)); }
  /// As try_replica(); throws its errors.
  client replica(const std::string &service = {}, const config *overrides = nullptr) const { return unwrap(try_replica(service, overrides)); }
  /// As try_split(); throws its errors.
  client split(const std::string &service = {}, const config *overrides = nullptr) const { return unwrap(try_split(service, overrides)); }
  /// As try_shards(); throws its errors.
  client shards(const std::vector<std::string> &shards, const config *overrides = nullptr) const { return unwrap(try_shards(shards, overrides)); }
  /// As try_shards_alone(); throws its errors.
  static client shards_alone(const std::vector<std::string> &shards, const config *overrides = nullptr) {
    return unwrap(try_shards_alone(shards, overrides));
  }
  /// As try_topology(); throws its errors.
  reply topology(const std::string &service = {}) const { return unwrap(try_topology(service)); }
  /// As try_refresh(); throws its errors.
  reply refresh(const std::string &service = {}, budget time = {}) const { return unwrap(try_refresh(service, time)); }
  /// As try_services(); throws its errors.
  reply services(bool follow = false, budget time = {}) const { return unwrap(try_services(follow, time)); }
  /// As try_stats(); throws its errors.
  reply stats() const { return unwrap(try_stats()); }
  /// As try_metrics(); throws its errors.
  std::string metrics(bool openmetrics = false) const { return unwrap(try_metrics(openmetrics)).as<std::string>(); }
  /// As try_command(); throws its errors.
  template <class... Args> reply command(const Args &...args) const { return unwrap(try_command(args...)); }
  /// As try_command_all(); throws its errors.
  template <class... Args> reply command_all(const Args &...args) const { return unwrap(try_command_all(args...)); }
  /// As try_watch(); throws its errors.
  void watch(queue &to, std::uint64_t token = 0, std::uint32_t kinds = VIGIE_EVENT_ALL) const { unwrap(try_watch(to, token, kinds)); }
  /// As try_configure(); throws its errors.
  void configure(const std::string &key, const std::string &text) { unwrap(try_configure(key, text)); }
  /// As try_configure(); throws its errors.
  void configure(const config &settings) { unwrap(try_configure(settings)); }
  /// As try_close(); throws its errors.
  void close(budget time = {}) { unwrap(try_close(time)); }
#endif
  /// For vigie.h. Ownership: stays here. Blocks: no. Throws: nothing.
  vigie_sentinel *get() const noexcept { return owned_.get(); }

private:
  using maker = vigie_status (*)(vigie_sentinel *, const char *, const vigie_config *, vigie_client **, vigie_error **);
  result<client> client_of(maker make, const std::string &service, const config *overrides) const {
    return detail::made<client, vigie_client>([&](vigie_client **out, vigie_error **err) {
      return make(get(), detail::name_or_null(service), detail::raw(overrides), out, err);
    });
  }
  static result<client> shards_of(vigie_sentinel *of, const std::vector<std::string> &shards, const config *overrides) {
    auto raw = detail::c_texts(shards);
    return detail::made<client, vigie_client>([&](vigie_client **out, vigie_error **err) {
      return vigie_shards_for(of, raw.data(), raw.size(), detail::raw(overrides), out, err);
    });
  }
  template <class Call> static result<reply> asked(Call call) { return detail::made<reply, vigie_reply>(call); }
  template <class... Args> result<reply> at_sentinels(std::uint32_t how, budget time, const Args &...args) const {
    return detail::with_arguments(
        [&](std::size_t argc, const char *const *argv, const std::size_t *lengths) {
          return asked([&](auto out, auto err) { return vigie_sentinel_exec(get(), argc, argv, lengths, how | VIGIE_CALL_TYPED, time.ms(), out, err); });
        },
        args...);
  }
  detail::owned<vigie_sentinel, vigie_sentinel_free> owned_;
};

VIGIE_HPP_END
} // namespace vigie

#endif
