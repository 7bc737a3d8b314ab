# A subscriber that lives through failovers and says where messages may be missing: ruby examples/subscriber.rb URI [COUNT].
require 'vigie'

Vigie.connect(ARGV.fetch(0)) do |redis|
  redis.subscribe('news') do |subscription|
    redis.call('PUBLISH', 'news', 'the first') if ARGV[1]
    subscription.first(Integer(ARGV.fetch(1, 1_000_000))).each do |item|
      case item
      when Vigie::Message then puts "#{item.channel}: #{item.data}"
      when Vigie::Gap then puts "a failover: messages of #{item.seconds} s may be missing"
      when Vigie::Dropped then puts "too slow: #{item.count} messages are lost"
      end
    end
  end
end
