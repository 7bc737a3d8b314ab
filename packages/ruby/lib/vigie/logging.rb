# A bridge from the library's log to Ruby's Logger. It is off until a program asks for it.
#
# A thread of its own takes the lines, so that no call waits for a logger.
module Vigie
  # Hands the lines of one handle to a logger until it is closed.
  class LogBridge
    def initialize(sentinel, logger, level)
      @sentinel, @logger, @inbox = sentinel, logger, Inbox.new(4096)
      sentinel.configure('log.level' => level.to_s)
      sentinel.handle.watch(@inbox.queue, Words::LOG, 0)
      @thread = Thread.new { run }
      @thread.name = 'vigie-log'
    end

    # Ends the bridge; lines that are on their way are dropped.
    def close
      @sentinel.handle.watch(@inbox.queue, 0, 0)
      @inbox.close
      @thread.join
    end

    private def run
      while (kind, _, _, line = @inbox.take(nil))
        if kind == Words::LOG then pass_on(line)
        elsif kind == Words::DROPPED then @logger.warn("#{line} lines of the log were dropped")
        end
      end
    end

    private def pass_on(line)
      severity = { 'error' => 3, 'warning' => 2, 'info' => 1, 'debug' => 0 }.fetch(line['level'], 1)
      @logger.add(severity, "#{line['target']}: #{line['message']}", 'vigie')
    end
  end

  # Hands the library's log lines of a client or a Sentinel to a Logger. level is the library's: error, warning, info or debug.
  def self.log_to(source, logger, level = :warning)
    LogBridge.new(source.is_a?(Client) ? source.sentinel : source, logger, level)
  end
end
