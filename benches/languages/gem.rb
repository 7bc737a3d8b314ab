# GET of 64 bytes through the gem vigie beside redis-client, one thread. Arguments: the directory of the gem's lib, URI, host, port. Prints
# rows for scripts/bench-languages. redis-client is taken from build/ruby-gems, if it is there (scripts/setup).
$LOAD_PATH.unshift(*ARGV[0].split(':'))
Dir["#{__dir__}/../../build/ruby-gems/gems/{redis-client,connection_pool}-*/lib"].each { |path| $LOAD_PATH << path }
require 'vigie'

begin
  require 'redis_client'
  NAME = "redis-client #{RedisClient::VERSION}, Ruby driver"
  OWN = RedisClient.config(host: ARGV[2], port: ARGV[3].to_i, driver: :ruby).new_client
rescue LoadError
  NAME = 'redis-client: not installed'
  OWN = nil
end

ROUNDS, CALLS, LISTS, SIZE = 9, 5_000, 100, 256
KEY, VALUE = 'bench:ruby', 'x' * 64
CLIENT = Vigie::Client.new(ARGV[1])
CLIENT.call('SET', KEY, VALUE)

def expect(value)
  abort "a wrong answer: #{value.inspect}" unless value == VALUE
end

def calls(client, count) = count.times { expect client.call('GET', KEY) }

def lists(client, count)
  (count / SIZE).times do
    client.pipelined { |list| SIZE.times { list.call('GET', KEY) } }.each { |value| expect value }
  end
end

def clock(id) = Process.clock_gettime(id, :float_microsecond)

def measured(work, client, count)
  wall, cpu = clock(Process::CLOCK_MONOTONIC), clock(Process::CLOCK_PROCESS_CPUTIME_ID)
  send(work, client, count)
  [(clock(Process::CLOCK_MONOTONIC) - wall) / count, (clock(Process::CLOCK_PROCESS_CPUTIME_ID) - cpu) / count]
end

# Rounds in turn, so that what disturbs one disturbs the other.
def compare(how, work, count)
  clients = [CLIENT, OWN].compact
  clients.each { |client| send(work, client, 2 * SIZE) }
  rows = clients.to_h { |client| [client, []] }
  ROUNDS.times { |turn| (turn.odd? ? clients : clients.reverse).each { |client| rows[client] << measured(work, client, count) } }
  figures = clients.flat_map { |client| rows[client].transpose.map { |column| format('%.2f', column.sort[ROUNDS / 2]) } }
  puts ['Ruby, gem', how, NAME, *figures].join("\t")
end

compare('call', :calls, CALLS)
compare('list', :lists, LISTS * SIZE)
