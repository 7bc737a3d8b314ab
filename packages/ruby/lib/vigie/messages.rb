# What comes without being asked for: messages of channels, events of a deployment.
#
# Order is kept, and what is lost is told: a Gap after a failover, Dropped if nobody took the messages in time.
module Vigie
  def self.clock = Process.clock_gettime(Process::CLOCK_MONOTONIC) # :nodoc:

  # What waits on a queue of the library. A thread waits without the lock of the interpreter; a fiber of a scheduler waits for the descriptor.
  class Inbox # :nodoc:
    attr_reader :queue

    def initialize(capacity)
      @queue, @taken, @open = Core::Queue.new(capacity), [], true
    end

    # The next event in its raw form; nil when the time is over (nil: no limit) or it is closed.
    def take(timeout)
      finish = timeout && (Vigie.clock + timeout)
      while @open && @taken.empty?
        left = finish && [finish - Vigie.clock, 0].max
        @taken.concat(drain(left))
        break if left&.zero?
      end
      @open ? @taken.shift : nil
    end

    def put_back(raw) = @taken.concat(raw)

    def close
      @open = false
      @queue.wakeup
    end

    def open? = @open

    private def drain(left)
      return @queue.drain(left) unless Fiber.scheduler && !Fiber.current.blocking?

      @io ||= IO.for_fd(@queue.fileno, autoclose: false)
      @queue.drain(0).then { |events| events.empty? && @io.wait_readable(left) ? @queue.drain(0) : events }
    end
  end

  # What all subscriptions have.
  module Subscribed
    # Ends the subscription. A thread that waits for its next event gets nil.
    def close
      return unless @inbox.open?

      @sub.close
      @inbox.close
    end
  end
  private_constant :Subscribed

  # Messages of channels, in order, over failovers. Iteration gives Message, Gap and Dropped, until it is closed.
  class Subscription
    include Enumerable
    include Subscribed

    def initialize(client, overrides)
      @inbox = Inbox.new(16)
      @sub = Core::Sub.new(client, @inbox.queue, 1, overrides)
      @client = client
    end

    # Listens to more; returns when the server has confirmed all of it, and raises if it refuses one.
    def add(*channels, patterns: [], shard_channels: [], timeout: 5)
      waiting = 0
      { 'SUBSCRIBE' => channels, 'PSUBSCRIBE' => patterns, 'SSUBSCRIBE' => shard_channels }.each do |word, names|
        next if (names = Array(names)).empty?

        @sub.exec([word, *names])
        waiting += names.uniq.size
      end
      await_answers(waiting, timeout)
    end

    # Listens to less; messages that are on their way still come.
    def remove(*channels, patterns: [], shard_channels: [])
      { 'UNSUBSCRIBE' => channels, 'PUNSUBSCRIBE' => patterns, 'SUNSUBSCRIBE' => shard_channels }.each do |word, names|
        @sub.exec([word, *names]) unless Array(names).empty?
      end
    end

    # The next message; nil when the time is over (nil: no limit), or when it is closed. Raises if a channel is refused.
    def get(timeout = nil)
      finish = timeout && (Vigie.clock + timeout)
      while (raw = @inbox.take(finish && [finish - Vigie.clock, 0].max))
        item = Words.pushed(raw)
        return item if item
      end
    end

    # Yields every message until it is closed.
    def each
      return to_enum unless block_given?

      while (item = get)
        yield item
      end
    rescue Closed
      nil
    end

    private def await_answers(waiting, timeout)
      finish = Vigie.clock + timeout
      aside = []
      while waiting.positive?
        raw = @inbox.take([finish - Vigie.clock, 0].max)
        raise Errors.make(-103, 1, "#{waiting} channels were not confirmed within #{timeout} s; they are asked for further on", '', '', -1, 0, nil) unless raw
        raise raw[2] if raw[2]

        if raw[0] == Words::MESSAGE && raw[3][0].to_s.end_with?('subscribe') then waiting -= 1
        else aside << raw
        end
      end
    ensure
      @inbox.put_back(aside)
    end
  end

  # A subscription as redis-client has it. After a failover an event ["gap", seconds] stands where messages may be missing.
  class PubSub
    include Subscribed

    def initialize(client, overrides)
      @inbox = Inbox.new(16)
      @sub = Core::Sub.new(client, @inbox.queue, 1, overrides)
      @client = client
    end

    # SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE and their opposites, PING. The answers come by next_event.
    def call(*words) = @sub.exec(words) && nil

    # The same with the words in an array.
    def call_v(words) = @sub.exec(words) && nil

    # The next event as an array, such as ["message", channel, text]; nil when the time is over (nil: no limit). Raises if one is refused.
    def next_event(timeout = nil)
      kind, _, error, value = @inbox.take(timeout)
      raise error if error

      case kind
      when Words::SUB_GAP then ['gap', value['gap_ms'] / 1000.0]
      when Words::DROPPED then ['dropped', value]
      else value
      end
    end
  end

  # Events of a deployment: iterate, or take one with get.
  class Events
    include Enumerable

    def initialize(sentinel, kinds, capacity)
      @sentinel, @inbox = sentinel, Inbox.new(capacity)
      sentinel.handle.watch(@inbox.queue, Words.mask_of(kinds), 0)
    end

    # The next event; nil when the time is over (nil: no limit) or the watch is closed.
    def get(timeout = nil)
      raw = @inbox.take(timeout)
      raw && Words.event_of(raw)
    end

    # Yields every event until it is closed.
    def each
      return to_enum unless block_given?

      while (event = get)
        yield event
      end
    end

    # Ends the watch. A thread that waits in get returns nil.
    def close
      return unless @inbox.open?

      @sentinel.handle.watch(@inbox.queue, 0, 0)
      @inbox.close
    end
  end
end
