# Money from one account to another, or nothing: ruby examples/transaction.rb URI.
require 'vigie'

Vigie.connect(ARGV.fetch(0)) do |redis|
  redis.call('MSET', { alice: 100, bob: 0 })
  replies = redis.transaction('alice', 'bob') do |session, list|
    next unless session.call('GET', 'alice').to_i >= 30

    list.call('DECRBY', 'alice', 30)
    list.call('INCRBY', 'bob', 30)
  end
  puts "alice and bob have #{replies.join(' and ')}"
rescue Vigie::MaybeExecuted => error
  puts "look at the accounts before you do it again: #{error.message}"
end
