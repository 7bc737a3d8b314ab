# A handler of Rack that counts visits: ruby examples/web.rb URI. One client, made before the server forks or starts threads.
require 'vigie'

REDIS = Vigie::Client.new(ARGV.fetch(0))
APP = lambda do |env|
  visits = REDIS.call('INCR', "visits:#{env['PATH_INFO']}", timeout: 2)
  [200, { 'content-type' => 'text/plain' }, ["visit #{visits}\n"]]
rescue Vigie::MaybeExecuted
  [200, { 'content-type' => 'text/plain' }, ["counted, perhaps\n"]]
rescue Vigie::Error => error
  [503, { 'content-type' => 'text/plain', 'retry-after' => '1' }, ["#{error.name}\n"]]
end

2.times { puts APP.call('PATH_INFO' => '/')[2] } if $PROGRAM_NAME == __FILE__
