# Completions of every kind through a packed drain, with a buffer that has to grow. Arguments: libvigie.so, URI.
require_relative 'vigie'

Vigie.load(ARGV[0])
client = Vigie::Client.new(ARGV[1])
queue = Vigie::Queue.new(client, 16, 64)
large, script = 'x' * 100_000, "return {1, {'two', {}}, false}"
commands = [
  ['SET', 'packed', large], %w[GET packed], %w[INCR packed], %w[GET packed:none], ['EVAL', script, '0'], %w[STRLEN packed],
  ['EVAL', 'return {}', '0']
]
client.submit(queue, commands.map { |words| Vigie.encode(*words) }.join, 3)
taken = []
taken.concat(queue.drain(5000)) while taken.size < commands.size
token, error = taken.delete_at(2)
abort "got #{error.inspect}" unless [token, error.status, error.code] == [5, -400, 'ERR'] && error.message.start_with?('ERR ')
wanted = [[3, 'OK'], [4, large], [6, nil], [7, [1, ['two', []], nil]], [8, large.size], [9, []]]
abort 'other values came' unless taken == wanted && queue.drain == []
queue.close
client.close
puts 'ok'
