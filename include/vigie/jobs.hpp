/// @file
/// Lists of jobs for workers, each of which is done at least once: docs/jobs.md.
///
/// Guarantees: those of the library. Leaves to others: what a job does; it may run twice.
#ifndef VIGIE_JOBS_HPP
#define VIGIE_JOBS_HPP

#include "sentinel.hpp"

namespace vigie {
VIGIE_HPP_BEGIN

/// A job that was taken. It owns the reply that its texts point into.
class job {
public:
  /// From the reply of a take. Ownership: takes it. Blocks: no. Throws: nothing.
  explicit job(reply &&from) noexcept : reply_(std::move(from)) {}
  /// For ack() and give_back(). Ownership: the job's. Blocks: no. Throws: nothing.
  std::string_view id() const noexcept { return reply_[std::string_view("id")].text(); }
  /// What was pushed. Ownership: the job's. Blocks: no. Throws: nothing.
  std::string_view payload() const noexcept { return reply_[std::string_view("payload")].text(); }
  /// Above 0: it may have been handed out before. Blocks: no. Throws: nothing.
  std::int64_t redelivered() const noexcept { return reply_[std::string_view("redelivered")].try_as<std::int64_t>().value_or(0); }

private:
  reply reply_;
};

/// A worker of a list of jobs. Any thread may use it, and one at a time takes.
class jobs {
public:
  /// A worker; `worker` "" is a random name, `lease` default_time is 30 s. Ownership: keeps the client's inner part. Blocks: no. Errors:
  /// vigie_jobs_for().
  static result<jobs> try_open(const client &of, const std::string &name, const std::string &worker = {}, budget lease = {}) {
    return detail::made<jobs, vigie_jobs>([&](vigie_jobs **out, vigie_error **err) {
      return vigie_jobs_for(of.get(), name.c_str(), detail::name_or_null(worker), lease.ms(), out, err);
    });
  }
  /// Takes over a worker of the C interface. Ownership: frees it. Blocks: no. Throws: nothing.
  explicit jobs(vigie_jobs *taken) noexcept : owned_(taken) {}
  /// Pushes a job; it is never pushed twice. `id` "" is a random one. Ownership: only reads. Blocks: up to `time`. Errors: vigie_jobs_push();
  /// after maybe_executed it may be there or not.
  static result<void> try_push(const client &of, const std::string &name, std::string_view payload, const std::string &id = {}, budget time = {}) {
    return detail::done([&](vigie_error **err) {
      return vigie_jobs_push(of.get(), name.c_str(), detail::name_or_null(id), payload.data(), payload.size(), time.ms(), err);
    });
  }
  /// The next job, or nullopt if there was none in the time. Ownership: the caller's. Blocks: up to `time` and timeout.call. Errors:
  /// vigie_jobs_take(); VIGIE_ERR_CANCELLED after stop().
  result<std::optional<job>> try_take(budget time = {}) {
    auto outcome = detail::made<reply, vigie_reply>([&](vigie_reply **out, vigie_error **err) { return vigie_jobs_take(get(), time.ms(), out, err); });
    if (!outcome) return failure(outcome.error());
    if (!*outcome) return std::optional<job>();
    return std::optional<job>(job(*std::move(outcome)));
  }
  /// The job is done. Ownership: only reads. Blocks: up to `time`. Errors: vigie_jobs_ack().
  result<void> try_ack(const job &which, budget time = {}) { return with_id(vigie_jobs_ack, which, time); }
  /// Hands the job back, for any worker. Ownership: only reads. Blocks: up to `time`. Errors: vigie_jobs_return().
  result<void> try_give_back(const job &which, budget time = {}) { return with_id(vigie_jobs_return, which, time); }
  /// Renews the lease, for a job that takes longer. Blocks: up to `time`. Errors: vigie_jobs_renew().
  result<void> try_renew(budget time = {}) {
    return detail::done([&](vigie_error **err) { return vigie_jobs_renew(get(), time.ms(), err); });
  }
  /// A job that was handed out so often goes to {name}:failed; 0: no limit. Blocks: no. Errors: VIGIE_ERR_FORKED.
  result<void> try_limit_deliveries(std::uint32_t most) {
    return detail::done([&](vigie_error **err) { return vigie_jobs_limit_deliveries(get(), most, err); });
  }
  /// Ends the take under way, and all later ones, with VIGIE_ERR_CANCELLED. For any thread. Blocks: no. Errors: VIGIE_ERR_FORKED.
  result<void> try_stop() {
    return detail::done([&](vigie_error **err) { return vigie_jobs_stop(get(), err); });
  }
  /// Stops, hands back what is in hand, and ends the lease. The destructor does none of that. Blocks: up to `time`. Errors: vigie_jobs_close().
  result<void> try_close(budget time = {}) {
    return detail::done([&](vigie_error **err) { return vigie_jobs_close(get(), time.ms(), err); });
  }
  /// As try_take(), without waiting: the job is the reply of one completion; vigie::job takes it. Blocks: no. Errors: vigie_jobs_take_submit().
  result<void> try_take_submit(queue &to, std::uint64_t token, budget time = {}) {
    return detail::done([&](vigie_error **err) { return vigie_jobs_take_submit(get(), time.ms(), to.get(), token, err); });
  }
  /// As try_ack(), without waiting: one completion without a reply. Blocks: no. Errors: vigie_jobs_ack_submit().
  result<void> try_ack_submit(queue &to, std::uint64_t token, const job &which, budget time = {}) {
    std::string id(which.id());
    return detail::done([&](vigie_error **err) { return vigie_jobs_ack_submit(get(), id.c_str(), time.ms(), to.get(), token, err); });
  }
#if VIGIE_HPP_EXCEPTIONS
  /// As try_open(); throws its errors.
  jobs(const client &of, const std::string &name, const std::string &worker = {}, budget lease = {}) : jobs(unwrap(try_open(of, name, worker, lease))) {}
  /// As try_push(); throws its errors.
  static void push(const client &of, const std::string &name, std::string_view payload, const std::string &id = {}, budget time = {}) {
    unwrap(try_push(of, name, payload, id, time));
  }
  /// As try_take(); throws its errors.
  std::optional<job> take(budget time = {}) { return unwrap(try_take(time)); }
  /// As try_ack(); throws its errors.
  void ack(const job &which, budget time = {}) { unwrap(try_ack(which, time)); }
  /// As try_give_back(); throws its errors.
  void give_back(const job &which, budget time = {}) { unwrap(try_give_back(which, time)); }
  /// As try_renew(); throws its errors.
  void renew(budget time = {}) { unwrap(try_renew(time)); }
  /// As try_limit_deliveries(); throws its errors.
  void limit_deliveries(std::uint32_t most) { unwrap(try_limit_deliveries(most)); }
  /// As try_stop(); throws its errors.
  void stop() { unwrap(try_stop()); }
  /// As try_close(); throws its errors.
  void close(budget time = {}) { unwrap(try_close(time)); }
#endif
  /// For vigie.h. Ownership: stays here. Blocks: no. Throws: nothing.
  vigie_jobs *get() const noexcept { return owned_.get(); }

private:
  result<void> with_id(vigie_status (*act)(vigie_jobs *, const char *, std::int64_t, vigie_error **), const job &which, budget time) {
    std::string id(which.id());
    return detail::done([&](vigie_error **err) { return act(get(), id.c_str(), time.ms(), err); });
  }
  detail::owned<vigie_jobs, vigie_jobs_free> owned_;
};

VIGIE_HPP_END
} // namespace vigie

#endif
