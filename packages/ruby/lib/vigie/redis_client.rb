# A driver for redis-client: RedisClient.config(driver: :vigie, custom: { vigie: uri }). With it redis-client, redis-rb 5, Sidekiq and Rails'
# cache follow Sentinels by this library.
#
# Guarantees: commands of all connections with one URI share one Vigie::Client; what changes a connection (WATCH, MULTI by hand, SELECT ...)
# runs in a session, as do the commands behind it. redis-client's own attempts are switched off for what may have run: such an error is a
# VigieConnection::MaybeExecutedError, which is no ConnectionError, so that nothing sends it again.
# Leaves to others: host, port, TLS and credentials in redis-client's configuration, which the URI replaces.
require 'redis_client'
require 'redis_client/connection_mixin'
require 'vigie'

class RedisClient
  # One connection of redis-client over a client of vigie.
  class VigieConnection
    # The command was sent and not answered: it may have run. Look before you send it again.
    class MaybeExecutedError < Error
      include Vigie::MaybeExecuted
    end

    # Answered here: the library makes the connections.
    PRELUDE = %w[HELLO AUTH].freeze
    STATEFUL = %w[WATCH MULTI SELECT RESET READONLY READWRITE ASKING].freeze
    STATEFUL_OF_CLIENT = %w[NO-EVICT NO-TOUCH TRACKING REPLY CACHING].freeze
    # What they did before a refusal did run.
    SCRIPTS = %w[EVAL EVALSHA FCALL].freeze
    SUBSCRIBING = %w[SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE].freeze
    # As the server's COMMAND has them: these are run outside of the list.
    BLOCKING = %w[BLPOP BRPOP BRPOPLPUSH BLMOVE BLMPOP BZPOPMIN BZPOPMAX BZMPOP WAIT WAITAOF].freeze
    CLIENTS = {}
    LOCK = Mutex.new
    private_constant :CLIENTS, :LOCK

    # The shared client of a URI, or the Vigie::Client that is given in its place, which has to speak the protocol that is asked for: redis-rb
    # asks for 2.
    def self.client_for(given, db, protocol)
      return given if given.is_a?(Vigie::Client)
      raise ArgumentError, 'the driver :vigie needs custom: { vigie: "redis-sentinel://host,host/service" } or a Vigie::Client' unless given

      options = { 'protocol' => protocol }
      options['db'] = db unless db.zero?
      LOCK.synchronize { CLIENTS[[given, options]] ||= Vigie::Client.new(given, options: options) }
    end

    def self.ssl_context(_params) = nil

    # redis-rb translates errors by a table, which has to know ours: Redis::MaybeExecutedError.
    def self.tell_redis_rb
      return if !defined?(::Redis::Client::ERROR_MAPPING) || ::Redis::Client::ERROR_MAPPING.key?(MaybeExecutedError)

      made = Class.new(::Redis::BaseError) { include Vigie::MaybeExecuted }
      ::Redis.const_set(:MaybeExecutedError, made)
      ::Redis::Client::ERROR_MAPPING[MaybeExecutedError] = made
    end

    attr_reader :config
    attr_writer :read_timeout, :write_timeout

    def initialize(config, connect_timeout:, read_timeout:, write_timeout:)
      @config, @connect_timeout, @read_timeout, @write_timeout = config, connect_timeout, read_timeout, write_timeout
      connect
    end

    def connect
      @client = translated { VigieConnection.client_for(config.custom[:vigie], config.db, config.protocol) }
      @session = @pubsub = nil
      @open = true
    end

    def reconnect
      close
      connect
    end

    def connected? = @open && !@client.closed?

    def revalidate = connected?

    # The shared client stays open for other connections.
    def close
      @open = false
      @pubsub&.close
      @session&.close(0)
      nil
    rescue Vigie::Error # the session is the parent's in a forked child, or gone
      nil
    ensure
      @session = @pubsub = nil
    end

    def call(command, timeout)
      prelude = answer_prelude(command)
      return prelude if prelude

      result = translated(command, !timeout.nil?) { target_for(command).call_v(command, timeout: budget(timeout)) }
      settle(command)
      result
    end

    # One list; a transaction that begins with MULTI and ends with EXEC goes as such, in a session behind its WATCH.
    def call_pipelined(commands, timeouts, exception: true)
      results = if transaction?(commands) then transaction(commands)
      elsif one_by_one?(commands, timeouts) then each_by_itself(commands, timeouts)
      else list(commands)
      end
      results.each_with_index { |result, at| results[at] = error_in_place(result, commands[at]) }
      first = exception && results.find { |result| result.is_a?(Error) }
      raise first if first

      results
    end

    # What PubSub sends: the subscription is the library's, and goes on over failovers.
    def write(command)
      word = command[0].to_s.upcase
      raise ConnectionError, 'the connection is closed' unless @open
      raise ArgumentError, "#{word} cannot be written by itself with the driver :vigie: use call" unless SUBSCRIBING.include?(word) || word == 'PING'

      translated(command) { (@pubsub ||= @client.pubsub).call_v(command) }
      nil
    end

    # The next message, within so many seconds (nil: the read timeout, 0: no limit). Where messages may be missing nothing is said here;
    # Vigie::Subscription tells.
    def read(timeout = nil)
      raise ConnectionError, 'the connection is closed' unless @open && @pubsub

      timeout = @read_timeout if timeout.nil?
      finish = timeout && timeout != 0 ? Vigie.clock + timeout : nil
      loop do
        event = translated { @pubsub.next_event(finish && [finish - Vigie.clock, 0].max) }
        raise @open ? ReadTimeoutError : ConnectionError, 'no message came in time' unless event
        return event unless %w[gap dropped].include?(event[0])
      end
    end

    def measure_round_trip_delay
      start = Vigie.clock
      call(['PING'], nil)
      (Vigie.clock - start) * 1000
    end

    private

    def answer_prelude(command)
      case command[0].upcase
      when 'HELLO' then { 'server' => 'redis', 'proto' => config.protocol, 'role' => 'master' }
      when 'AUTH' then 'OK'
      when 'SELECT' then 'OK' if command[1].to_i == config.db && !@session
      when 'CLIENT' then 'OK' if command[1].to_s.casecmp?('SETNAME')
      when 'ROLE' then ['master', 0, []] if config.sentinel?
      end
    end

    # nil: the option timeout.call of the URI decides, because it covers a failover, and redis-client's second does not.
    def budget(timeout)
      return nil if timeout.nil?

      timeout.zero? ? Float::INFINITY : timeout + @read_timeout.to_f
    end

    def target_for(command)
      word = command[0].upcase
      stateful = STATEFUL.include?(word) || (word == 'CLIENT' && STATEFUL_OF_CLIENT.include?(command[1].to_s.upcase))
      @session ||= @client.session if stateful
      @session || @client
    end

    # A session that has nothing to remember any more is given back.
    def settle(command)
      return unless @session && %w[EXEC DISCARD UNWATCH].include?(command[0].upcase)

      @session.close(0)
      @session = nil
    end

    def transaction?(commands) = commands[0][0] == 'MULTI' && commands[-1][0] == 'EXEC'

    # MULTI and EXEC are the library's; their answers stand in the places that redis-client looks at.
    def transaction(commands)
      body = commands[1...-1]
      return ['OK', []] if body.empty?

      batch = batch_of(body)
      replies = translated(body[0]) { (@session || @client).run_list(batch.seal, true) }
      ['OK', *(['QUEUED'] * body.size), replies.map { |reply| reply.is_a?(Vigie::Error) ? command_error(reply) : reply }]
    rescue TransactionChanged
      ['OK', *(['QUEUED'] * body.size), nil]
    ensure
      settle(['EXEC'])
    end

    def one_by_one?(commands, timeouts)
      @session || timeouts&.any? || commands.any? { |command| by_itself?(command) }
    end

    def by_itself?(command)
      word = command[0].upcase
      BLOCKING.include?(word) || STATEFUL.include?(word) || PRELUDE.include?(word) || word == 'CLIENT' ||
        (word == 'ROLE' && config.sentinel?)
    end

    # The results of commands that are no list of the library, with a server's errors in their places. Behind the first command nothing may
    # look like a connection that is to be made again, because redis-client would send all of them again.
    def each_by_itself(commands, timeouts)
      commands.each_with_index.map do |command, at|
        call(command, timeouts && timeouts[at])
      rescue CommandError => error
        error
      rescue ConnectionError => error
        raise if at.zero? && !error.is_a?(ReadTimeoutError)

        raise MaybeExecutedError.with_config(error.message, config)
      end
    end

    def list(commands)
      batch = batch_of(commands)
      translated { @client.run_list(batch.seal, false) }
    end

    def batch_of(commands) = Vigie::Core::Batch.new.tap { |batch| commands.each { |command| batch.call_v(command) } }

    def error_in_place(result, command)
      result = command_error(result) if result.is_a?(Vigie::Error)
      if result.is_a?(Error)
        result._set_command(command) if result.respond_to?(:_set_command)
        result._set_config(config)
      end
      result
    end

    # EXEC was answered null: redis-client gives nil for it.
    class TransactionChanged < StandardError; end
    private_constant :TransactionChanged

    # An error in a list is never one that redis-client makes a new connection for: the others of the list have run.
    def command_error(error)
      made = CommandError.parse(error.message)
      made = CommandError.new(error.message) if made.is_a?(ConnectionError)
      made.tap { |it| it._set_config(config) }
    end

    def translated(command = nil, blocking = false)
      yield
    rescue Vigie::TxnAborted => error
      raise error.retryable? ? TransactionChanged : ConnectionError.with_config(error.message, config)
    rescue Vigie::Server => error
      raise server_error(error, command)
    rescue Vigie::Error => error
      raise class_for(error, blocking).with_config(error.message, config)
    end

    def server_error(error, command)
      script = command && SCRIPTS.any? { |word| command[0].to_s.upcase.start_with?(word) }
      made = script ? command_error(error) : CommandError.parse(error.message)
      made._set_config(config)
      made._set_command(command) if command
      made
    end

    def class_for(error, blocking)
      if error.maybe_executed?
        VigieConnection.tell_redis_rb
        return error.is_a?(Vigie::Timeout) && blocking ? MaybeExecutedTimeout : MaybeExecutedError
      end

      case error.name
      when 'TIMEOUT' then ReadTimeoutError
      when 'AUTH' then AuthenticationError
      when 'PROTOCOL' then ProtocolError
      when 'POOL_TIMEOUT', 'POOL_BUSY', 'QUEUE_FULL' then CheckoutTimeoutError
      when 'CLOSED', 'FORKED' then ConnectionError
      else error.is_a?(Vigie::Connection) || error.is_a?(Vigie::Unavailable) ? CannotConnectError : CommandError
      end
    end

    # A blocking_call that the server did not answer in time: redis-client does not send those again.
    class MaybeExecutedTimeout < ReadTimeoutError
      include Vigie::MaybeExecuted
    end
  end

  register_driver(:vigie) { VigieConnection }
end
