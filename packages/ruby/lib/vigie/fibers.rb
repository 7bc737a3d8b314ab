# Calls that do not keep their thread: a queue for event loops, and calls of fibers under a scheduler.
#
# Guarantees: every call that was submitted is completed once, also after it was cancelled. Leaves to others: running loops.
require 'io/wait'

module Vigie
  # Calls whose outcomes are taken later. Poll to_io for reading, then take; each outcome is [token, error or nil, reply].
  class CallQueue
    def initialize(client, capacity)
      @client, @queue, @token, @blocks = client, Core::Queue.new(capacity), 0, {}
    end

    # Begins a command. Returns its token; a block is called with (error, reply) by take instead of an entry there.
    def call(*words, timeout: nil, **flags, &block)
      batch = Core::Batch.new
      batch.call(*words, **flags)
      begin_call(batch.resp, timeout, &block)
    end

    # The descriptor as an IO, for IO.select, nio4r, async and the like. It is readable when take has something.
    def to_io = @io ||= IO.for_fd(@queue.fileno, autoclose: false)

    # What is done. Waits so many seconds for the first; nil: without a limit, 0: not at all.
    def take(timeout = 0)
      @queue.drain(timeout).filter_map do |_, token, error, reply|
        block = @blocks.delete(token)
        next [token, error, reply] unless block

        block.call(error, reply)
        nil
      end
    end

    # Cancels a call; its outcome still comes, and says whether it was sent.
    def cancel(token) = @queue.cancel(token)

    private def begin_call(list, timeout, &block)
      token = @token += 1
      @blocks[token] = block if block
      milliseconds = timeout.nil? ? -2_147_483_648 : (timeout >= 2_147_483 ? 2_147_483_647 : (timeout * 1000).ceil)
      @client.submit(list, @queue, token, Words::EACH, milliseconds)
      token
    rescue StandardError
      @blocks.delete(token)
      raise
    end
  end

  # The calls of the fibers of one thread on one client: they wait for one descriptor, and a fiber of its own hands out what comes.
  class FiberCalls # :nodoc:
    def initialize(client)
      @client, @queue, @waiting, @token, @pid = client, Core::Queue.new(4096), {}, 0, Process.pid
      @io = IO.for_fd(@queue.fileno, autoclose: false)
      @scheduler = nil
    end

    def usable? = @pid == Process.pid

    def run(list, flags, timeout)
      token = @token += 1
      slot = Thread::Queue.new
      # Not every scheduler keeps a fiber that is blocked from the garbage collector.
      @waiting[token] = [slot, Fiber.current]
      begin
        @client.submit(list, @queue, token, flags, timeout)
      rescue StandardError
        @waiting.delete(token)
        raise
      end
      pump
      finish(token, slot)
    end

    private def finish(token, slot)
      error, reply = slot.pop
      done = true
      raise error if error

      reply
    ensure
      # A fiber that is stopped waits for the outcome of its call, which comes at once.
      unless done
        @queue.cancel(token)
        slot.pop if @waiting.key?(token)
      end
    end

    private def pump
      return if @scheduler.equal?(Fiber.scheduler)

      @scheduler = Fiber.scheduler
      Fiber.schedule do
        until @waiting.empty?
          @io.wait_readable
          @queue.drain(0).each { |_, token, error, reply| @waiting.delete(token)&.first&.push([error, reply]) }
        end
      ensure
        @scheduler = nil
      end
    end
  end

  class Core::Link
    # Called by the extension in a fiber of a scheduler; the thread goes on with other fibers meanwhile.
    def call_in_fiber(list, flags, timeout) # :nodoc:
      @fiber_calls ||= {}
      calls = @fiber_calls[Thread.current]
      unless calls&.usable?
        @fiber_calls.delete_if { |thread, _| !thread.alive? }
        @fiber_calls[Thread.current] = calls = FiberCalls.new(self)
      end
      calls.run(list, flags, timeout)
    end
  end
end
