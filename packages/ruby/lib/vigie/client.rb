# The handles: Sentinel, Client, Session, Shards.
#
# One client serves all threads, and works in a forked child with connections of its own: the package sets the library's option fork to
# reopen. Ractors are refused, because the objects of the extension belong to one.
module Vigie
  # The Sentinels of a deployment, or a primary that is given; clients are made from it.
  class Sentinel
    attr_reader :handle # :nodoc:

    # uri is redis-sentinel://user:password@host:port,host:port/service?option=value, rediss-sentinel:// with TLS, or redis://host:port/db
    # without Sentinels. options are those of the library by their names; times there are in milliseconds. timeout: a Sentinel must answer
    # within so many seconds; nil: the first command asks.
    def initialize(uri = nil, options: nil, timeout: nil)
      Sentinel.refuse_ractors
      @handle = Core::Handle.new(Words.settings(uri, options), timeout)
    end

    def self.refuse_ractors # :nodoc:
      return if Ractor.current == MAIN_RACTOR

      raise Ractor::UnsafeError, 'vigie: a client belongs to the main Ractor; open it there, and send it the work of the others'
    end

    # What is known now of a service (nil: of all that were asked for), without asking anybody.
    def topology(service = nil) = @handle.topology(service)

    # Asks the Sentinels now, and answers as topology.
    def refresh(service = nil, timeout: nil) = @handle.refresh(service, timeout)

    # All services that the Sentinels watch, with their primaries. follow: they are discovered, and followed from now on.
    def services(follow: false, timeout: nil) = @handle.services(follow, timeout)

    # Runs a sub-command of SENTINEL, given without that word: at the first Sentinel that answers, at one address, or at all.
    def admin(*words, at: nil, all: false, typed: true, timeout: nil)
      @handle.admin(words, at, (all ? Words::FLAG_ALL : 0) | (typed ? Words::FLAG_TYPED : 0), timeout)
    end

    # Changes options that can change while the handle is open, all at the same moment.
    def configure(options) = @handle.configure(options)

    # What the handle and its clients have done.
    def stats = @handle.stats

    # The same figures as text for Prometheus.
    def metrics(openmetrics: false) = @handle.metrics(openmetrics)

    # What happens to the services from now on, as an Enumerable of Event.
    def events(*kinds, capacity: 4096) = Events.new(self, kinds.empty? ? Words::ALL : kinds, capacity)

    # Closes the handle and every client that was made from it; calls under way have so many seconds.
    def close(timeout: nil) = @handle.close(timeout)
  end
  MAIN_RACTOR = Ractor.current
  private_constant :MAIN_RACTOR

  # What clients and sessions share. Commands are given as to redis-client: arrays and hashes among the words are flattened, keywords become
  # flags (ex: 10, nx: true). Words are String, Symbol, Integer and Float; anything else is a TypeError.
  module Commands
    # :method: call
    # call(*words, **flags, timeout: nil, idempotent: false, retry: true, on_primary: false, slow: false, typed: false, replicas: 0)
    #
    # Runs one command and returns its reply. timeout is the whole budget in seconds, retries and failovers included: nil is the option
    # timeout.call, Float::INFINITY no limit. idempotent: it may be sent again after an unknown outcome. retry: false: sent once at most.
    # on_primary: a read goes to the primary. slow: not on a connection that other calls share. replicas: done when so many have it.
    # Raises Vigie::Error; Vigie::MaybeExecuted if it was sent and not answered.

    # :method: call_once
    # As call, and sent once at most.

    # A command that may wait at the server, such as BLPOP: it ends after so many seconds, nil or 0 for no limit.
    def blocking_call(timeout, *words, **flags, &block)
      call(*words, timeout: unlimited(timeout), **flags, &block)
    end

    # The same with the words in an array.
    def blocking_call_v(timeout, words, &block) = call_v(words, timeout: unlimited(timeout), &block)

    # Yields a list; the commands that are called on it travel together. Returns the replies; the first error of a command is raised, or with
    # exception: false errors stand in their places.
    def pipelined(exception: true, **manner)
      batch = Core::Batch.new
      yield batch
      run(batch, false, exception, manner)
    end

    # The reply of a list, with the blocks that were given with its commands.
    private def run(batch, atomic, exception, manner)
      return [] if batch.size.zero?

      replies = run_list(batch.seal, atomic, **manner)
      replies.each { |reply| raise reply if reply.is_a?(Error) } if exception
      batch.casts&.each { |place, block| replies[place] = block.call(replies[place]) unless replies[place].is_a?(Error) }
      replies
    end

    private def unlimited(timeout) = timeout.nil? || timeout.zero? ? Float::INFINITY : timeout
  end

  # Runs commands on a service, and follows its primary over failovers. One client serves all threads; forked children, too.
  class Client < Core::Link
    include Commands

    # The Sentinel that it was made from.
    attr_reader :sentinel

    # uri: as for Sentinel.new, or a Sentinel, which many clients may share. service: its name, if the URI has none or another one. read: where
    # commands that only read go: :primary, :replica (and nothing else runs), or :split (reads to replicas, the rest to the primary).
    # options: those of the library for all; overrides: for this client alone. hook: its method call is given (name, endpoint, seconds, error)
    # after each call and list, never arguments.
    def initialize(uri, service: nil, read: :primary, options: nil, overrides: {}, hook: nil)
      super()
      Sentinel.refuse_ractors
      @owns = !uri.is_a?(Sentinel)
      @sentinel = @owns ? Sentinel.new(uri, options: options) : uri
      open(read.to_s, @sentinel.handle, service, overrides)
      self.hook = hook
    end

    # A client that is pinned to one connection, for WATCH and whatever else changes a connection; with a block it is closed behind it.
    # key: on the shard of this key.
    def session(key: nil, overrides: {})
      session = Session.new(self, key, overrides)
      return session unless block_given?

      begin
        yield session
      ensure
        session.close(0)
      end
    end

    # Yields a list; its commands run as one transaction, or none of them does. Returns the replies. With watch: keys these are watched
    # first; what the block then reads, by the second argument (the session) or by any client, decides: nil is returned if a key was changed.
    def multi(watch: nil, exception: true, **manner, &block)
      unless watch && !Array(watch).empty?
        batch = Core::Batch.new
        yield batch
        return run(batch, true, exception, manner)
      end

      session(key: Array(watch).first.to_s) { |session| session.multi(watch: watch, exception: exception, **manner, &block) }
    end

    # Watches keys, calls the block with (session, list), which reads by the session and fills the list, and runs the list if no key was
    # changed. If one was, or the connection was lost before anything ran, it begins anew, for so many seconds at most. Returns the replies.
    def transaction(*keys, timeout: 5)
      finish = Process.clock_gettime(Process::CLOCK_MONOTONIC) + timeout
      begin
        session(key: keys.first&.to_s) do |session|
          session.call('WATCH', keys) unless keys.empty?
          batch = Core::Batch.new
          yield session, batch
          session.__send__(:run, batch, true, true, {})
        end
      rescue TxnAborted, Connection => error
        raise if error.maybe_executed? || error.is_a?(Timeout) || Process.clock_gettime(Process::CLOCK_MONOTONIC) >= finish

        retry
      end
    end

    # Every key that is there from the beginning to the end; one may come twice. restarts: how often a failover may begin it anew.
    # Without a block an Enumerator, as for the other scans.
    def scan(match: nil, count: nil, type: nil, restarts: 0, &block) = each_page('SCAN', nil, match, count, type, restarts, &block)

    # The fields of a hash with their values.
    def hscan(key, match: nil, count: nil, restarts: 0, &block) = each_page('HSCAN', key, match, count, nil, restarts, &block)

    # The members of a set.
    def sscan(key, match: nil, count: nil, restarts: 0, &block) = each_page('SSCAN', key, match, count, nil, restarts, &block)

    # The members of a sorted set with their scores.
    def zscan(key, match: nil, count: nil, restarts: 0, &block) = each_page('ZSCAN', key, match, count, nil, restarts, &block)

    private def each_page(command, key, match, count, type, restarts, &block)
      return to_enum(:each_page, command, key, match, count, type, restarts) unless block

      scan = Core::Scan.new(self, Words.scan(command, key, match, count, type), restarts)
      while (page = scan.next(nil))
        Words.page_items(command, page).each(&block)
      end
    end

    # Listens to channels and patterns; returns when the server has confirmed them. With a block the subscription is closed behind it.
    def subscribe(*channels, patterns: [], shard_channels: [], overrides: {}, timeout: 5)
      subscription = Subscription.new(self, overrides)
      begin
        subscription.add(*channels, patterns: patterns, shard_channels: shard_channels, timeout: timeout)
        return subscription unless block_given?
      rescue Exception # whatever it is, the subscription is closed
        subscription.close
        raise
      end
      begin
        yield subscription
      ensure
        subscription.close
      end
    end

    # A subscription as redis-client has it: call("SUBSCRIBE", ...), next_event(timeout), close.
    def pubsub(overrides: {}) = PubSub.new(self, overrides)

    # Pushes a job to a list of jobs, once; returns how many wait. After MaybeExecuted it may be there: push it with the same id.
    def push_job(name, payload, id: nil, timeout: nil) = Core.push_job(self, name, id, payload, timeout)

    # A worker of a list of jobs, each of which is done at least once. worker: its name; nil: a random one. lease: in seconds.
    def jobs(name, worker: nil, lease: nil)
      taker = Worker.new(self, name, worker, lease)
      return taker unless block_given?

      begin
        yield taker
      ensure
        taker.close
      end
    end

    # What happens to the deployment from now on, as an Enumerable of Event.
    def events(*kinds, capacity: 4096) = @sentinel.events(*kinds, capacity: capacity)

    # Yields itself, as a pool does.
    def with = yield(self)
    alias then with

    # No new calls; those under way have so many seconds (nil: the option timeout.call). A second close does nothing.
    def close(timeout = nil)
      super
      @sentinel.close(timeout: timeout) if @owns && @sentinel
    end

    # A queue for an event loop: submit calls, poll its IO, take what is done.
    def queue(capacity: 4096) = CallQueue.new(self, capacity)

    # Never the addresses or the credentials of the URI.
    def inspect = "#<#{self.class}#{' closed' if closed?}>"
  end

  # Several primaries as one client: a command goes to the shard of its key, a list is dealt out to all of them.
  class Shards < Client
    # shards: texts such as "node_1=sentinel:SERVICE" or "node_1=redis://host:port". uri: the Sentinels, if a shard is a service.
    def initialize(shards, uri: nil, options: nil, overrides: {}, hook: nil)
      Sentinel.refuse_ractors
      @owns = !uri.is_a?(Sentinel)
      @sentinel = uri && (@owns ? Sentinel.new(uri, options: options) : uri)
      open('shards', @sentinel&.handle, shards, @sentinel ? overrides : { 'fork' => 'reopen' }.merge(overrides.transform_keys(&:to_s)))
      self.hook = hook
    end
  end

  # A client that is pinned to one connection; commands run in call order. What it watches is known to that connection alone.
  class Session < Core::Link
    include Commands

    def initialize(client, key, overrides)
      super()
      @client = client
      open('session', client, key, overrides)
      self.hook = client.hook
    end

    # As Client#multi, on this connection: behind a WATCH it runs only if no key was changed.
    def multi(watch: nil, exception: true, **manner, &block)
      keys = Array(watch)
      call('WATCH', keys) unless keys.empty?
      batch = Core::Batch.new
      block.arity == 2 ? yield(batch, self) : yield(batch)
      if batch.size.zero?
        call('UNWATCH') unless keys.empty?
        return []
      end
      run(batch, true, exception, manner)
    rescue TxnAborted => error
      raise if keys.empty? || !error.retryable?

      nil
    end
  end
end
