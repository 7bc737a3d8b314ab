# GET of 64 bytes through ffi beside redis-rb, one thread. Arguments: libvigie.so, URI, host, port. Prints rows for
# scripts/bench-languages.
require_relative '../../tests/languages/vigie'

begin
  require 'redis'
  driver = begin
    require 'hiredis'
    :hiredis
  rescue LoadError
    :ruby
  end
  NAME = "redis-rb #{Redis::VERSION}, #{driver} driver"
  OWN = Redis.new(host: ARGV[2], port: ARGV[3].to_i, driver: driver)
rescue LoadError
  NAME = 'redis-rb: not installed'
  OWN = nil
end

ROUNDS, CALLS, BATCHES, WINDOW = 9, 5_000, 100, 256
KEY, VALUE = 'bench:ruby', 'x' * 64

Vigie.load(ARGV[0])
CLIENT = Vigie::Client.new(ARGV[1])
QUEUE = Vigie::Queue.new(CLIENT, WINDOW)
CLIENT.exec('SET', KEY, VALUE)

def expect(value)
  abort "a wrong answer: #{value.inspect}" unless value == VALUE
end

def calls_by_vigie(count)
  count.times { expect CLIENT.exec('GET', KEY) }
end

def calls_by_own(count)
  count.times { expect OWN.get(KEY) }
end

# At most WINDOW outstanding, in batches of half of it; the drain waits and reads the socket itself.
def window_by_vigie(count)
  submitted = seen = 0
  while seen < count
    while submitted < count && submitted - seen <= WINDOW / 2
      batch = [WINDOW / 2, count - submitted].min
      CLIENT.submit(QUEUE, Array.new(batch) { Vigie.encode('GET', KEY) }.join, submitted)
      submitted += batch
    end
    taken = QUEUE.drain(5000)
    taken.each { |_, value| expect value }
    seen += taken.size
  end
end

def pipeline_by_own(count)
  (count / WINDOW).times do
    OWN.pipelined { |pipe| WINDOW.times { pipe.get(KEY) } }.each { |value| expect value }
  end
end

def list_by_vigie(count)
  (count / WINDOW).times do
    CLIENT.exec_list(Array.new(WINDOW) { Vigie.encode('GET', KEY) }.join).each { |value| expect value }
  end
end

def clock(id)
  Process.clock_gettime(id, :float_microsecond)
end

def measured(run, count)
  wall, cpu = clock(Process::CLOCK_MONOTONIC), clock(Process::CLOCK_PROCESS_CPUTIME_ID)
  send(run, count)
  [(clock(Process::CLOCK_MONOTONIC) - wall) / count, (clock(Process::CLOCK_PROCESS_CPUTIME_ID) - cpu) / count]
end

# Rounds in turn, so that what disturbs one disturbs the other.
def compare(how, count, *runs)
  runs.pop unless OWN
  runs.each { |run| send(run, 2 * WINDOW) }
  rows = runs.to_h { |run| [run, []] }
  ROUNDS.times { |turn| (turn.odd? ? runs : runs.reverse).each { |run| rows[run] << measured(run, count) } }
  figures = runs.flat_map { |run| rows[run].transpose.map { |column| format('%.2f', column.sort[ROUNDS / 2]) } }
  puts ['Ruby, ffi', how, NAME, *figures].join("\t")
end

compare('call', CALLS, :calls_by_vigie, :calls_by_own)
compare('window', BATCHES * WINDOW, :window_by_vigie, :pipeline_by_own)
compare('list', BATCHES * WINDOW, :list_by_vigie, :pipeline_by_own)
