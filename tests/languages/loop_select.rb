# 100,000 submits beside a timer in one loop around IO.select, which waits for the queue's descriptor. Arguments: libvigie.so, URI.
require 'io/wait'
require_relative 'vigie'

COMMANDS, BATCH, CAPACITY, TICK, BOUND, PATIENCE = 100_000, 256, 1000, 0.005, 2.25, 60
KEY = 'loop:ruby'

def now
  Process.clock_gettime(Process::CLOCK_MONOTONIC)
end

# Keeps the queue full, checks what comes back, and looks at the clock every 5 ms.
class Loop
  attr_reader :queue, :full, :ticks, :pause

  def initialize(client)
    @client, @queue = client, Vigie::Queue.new(client, CAPACITY)
    @told = Array.new(COMMANDS, false)
    @submitted = @seen = @full = @ticks = 0
    @pause = 0.0
  end

  def submit
    while @submitted < COMMANDS
      last = [@submitted + BATCH, COMMANDS].min
      resp = (@submitted...last).map { |i| Vigie.encode('RPUSH', KEY, i.to_s) }.join
      unless @client.submit(@queue, resp, @submitted)
        @full += 1
        return
      end
      @submitted = last
    end
  end

  def readable
    loop do
      taken = @queue.drain
      # The header promises the order in which calls start, which their values show, and not that of completions.
      taken.each do |token, value|
        abort "got #{value.inspect} for #{token}, told before: #{@told[token]}" if value != token + 1 || @told[token]
        @told[token] = true
        @seen += 1
      end
      break if taken.empty?
    end
    submit
  end

  def tick(time)
    @ticks += 1
    @pause, @last_tick = [@pause, time - @last_tick].max, time
    abort "#{@seen} of #{COMMANDS} after #{PATIENCE} s" if time - @begun > PATIENCE
  end

  def run
    @begun = @last_tick = now
    submit
    while @seen < COMMANDS
      ready, = IO.select([@queue.io], nil, nil, [@last_tick + TICK - now, 0].max)
      readable if ready
      time = now
      tick(time) if time >= @last_tick + TICK
    end
    @pause = [@pause, now - @last_tick].max
    now - @begun
  end
end

Vigie.load(ARGV[0])
client = Vigie::Client.new(ARGV[1])
turns = Loop.new(client)
seconds = turns.run
abort 'a completion too many' if turns.queue.io.wait_readable(0.05) && turns.queue.drain != []
abort 'the server has another list' if client.exec('LRANGE', KEY, '0', '-1') != (0...COMMANDS).map(&:to_s)
if turns.pause > BOUND || turns.full.zero?
  abort format('the loop stood still for %.3f s, the queue was full %d times', turns.pause, turns.full)
end
turns.queue.close
client.close
puts format('IO.select: %d commands in %.2f s, queue full %d times, %d ticks, longest pause %.1f ms, ok',
            COMMANDS, seconds, turns.full, turns.ticks, turns.pause * 1000)
