# A loop of one's own around a queue: ruby examples/event_loop.rb URI. With async or another Fiber scheduler call alone does it.
require 'vigie'

Vigie.connect(ARGV.fetch(0)) do |redis|
  queue = redis.queue
  left = 10
  10.times do |n|
    queue.call('ECHO', n) do |error, reply|
      left -= 1
      puts error || "answered: #{reply}"
    end
  end
  while left.positive?
    readable, = IO.select([queue.to_io], nil, nil, 1)
    queue.take if readable
  end
end
