# The driver for redis-client, under redis-client, redis-rb and Sidekiq, as far as they are there (scripts/setup).
require_relative 'kit'

Dir["#{ENV.fetch('VIGIE_ROOT')}/build/ruby-gems/gems/*/lib{,/concurrent-ruby}"].each { |path| $LOAD_PATH << path }
DOOR = %w[redis-client redis sidekiq].to_h do |name|
  before, $VERBOSE = $VERBOSE, nil # the warnings of others
  [name, begin
    require name
  rescue LoadError
    puts "skipped: #{name} is not installed"
    false
  end]
ensure
  $VERBOSE = before
end
require 'vigie/redis_client' if DOOR['redis-client'] != false

class DoorTest < Minitest::Test
  def setup
    skip 'redis-client is not installed' unless defined?(RedisClient)
    @settings = { driver: :vigie, custom: { vigie: Kit.small.uri } }
    @redis = RedisClient.config(**@settings, id: 'door').new_client
    @redis.call('FLUSHALL')
  end

  def teardown = @redis&.close

  def test_redis_client_calls_pipelines_and_transactions
    assert_equal 'OK', @redis.call('SET', 'k', 1, ex: 100)
    assert_equal({ 'a' => '1' }, @redis.call('HSET', 'h', { a: 1 }) && @redis.call('HGETALL', 'h'))
    replies = @redis.pipelined do |list|
      list.call('INCR', 'k')
      list.call('LPUSH', 'l', 'x')
      list.call('LRANGE', 'l', 0, -1) { |items| items.map(&:upcase) }
    end
    assert_equal [2, 1, %w[X]], replies
    assert_raises(RedisClient::WrongTypeError) { @redis.pipelined { |list| list.call('LPUSH', 'k', 1) } }
    assert_instance_of RedisClient::WrongTypeError, @redis.pipelined(exception: false) { |list| list.call('LPUSH', 'k', 1) }[0]
    assert_equal [3, 4], @redis.multi { |list| 2.times { list.call('INCR', 'k') } }
    assert_equal ['OK'], @redis.multi(watch: ['k']) { |list| list.call('SET', 'k', @redis.call('GET', 'k').to_i * 2) }
    other = RedisClient.config(**@settings).new_client
    assert_nil @redis.multi(watch: ['k']) { |list| other.call('INCR', 'k') && list.call('SET', 'k', 0) }
    assert_equal '9', @redis.call('GET', 'k')
  end

  def test_redis_client_waits_scans_and_listens
    assert_nil @redis.blocking_call(0.1, 'BLPOP', 'none', 0.1)
    assert_raises(RedisClient::ReadTimeoutError) { RedisClient.config(**@settings, timeout: 0.1).new_client.blocking_call(0.1, 'BLPOP', 'none', 0) }
    @redis.pipelined { |list| 100.times { |n| list.call('SET', "s#{n}", n) } }
    assert_equal 100, @redis.scan('MATCH', 's*').to_a.uniq.size
    pubsub = @redis.pubsub
    pubsub.call('SUBSCRIBE', 'news')
    assert_equal ['subscribe', 'news', 1], pubsub.next_event(60)
    @redis.call('PUBLISH', 'news', 'hi')
    assert_equal %w[message news hi], pubsub.next_event(60)
    assert_nil pubsub.next_event(0.01)
    pubsub.close
  end

  def test_what_may_have_run_is_not_sent_again
    server = Kit.deployment(0, 1)
    settings = { driver: :vigie, custom: { vigie: "redis://127.0.0.1:#{server.told['primary']}?timeout.call=300" }, reconnect_attempts: 3 }
    redis = RedisClient.config(**settings).new_client
    redis.call('SET', 'n', 0)
    other = Vigie::Client.new("redis://127.0.0.1:#{server.told['primary']}")
    other.call('CLIENT', 'PAUSE', 60_000, 'WRITE')
    error = assert_raises(RedisClient::VigieConnection::MaybeExecutedError) { redis.call('INCR', 'n') }
    assert_kind_of Vigie::MaybeExecuted, error
    refute_kind_of RedisClient::ConnectionError, error
    assert_raises(Redis::MaybeExecutedError) { Redis.new(**settings).incr('n') } if defined?(Redis::Client)
    other.call('CLIENT', 'UNPAUSE')
    assert_equal defined?(Redis::Client) ? '2' : '1', Kit.wait_until('the writes') { (got = other.call('GET', 'n')) != '0' && got }
  ensure
    other&.close
    server&.end
  end

  def test_a_script_and_a_replicas_refusal_are_no_reason_to_connect_again
    error = assert_raises(RedisClient::CommandError) { @redis.call('EVAL', "return redis.error_reply('READONLY you may not')", 0) }
    refute_kind_of RedisClient::ConnectionError, error
  end

  def test_redis_rb_works_as_with_its_own_driver
    skip 'redis-rb is not installed' unless defined?(Redis::Client)
    redis = Redis.new(**@settings)
    redis.mapped_hmset('h', { 'a' => '1', 'b' => '2' })
    assert_equal({ 'a' => '1', 'b' => '2' }, redis.hgetall('h'))
    redis.zadd('z', [[1.5, 'm'], [3, 'n']])
    assert_equal [['m', 1.5], ['n', 3.0]], redis.zrange('z', 0, -1, with_scores: true)
    assert_equal 1.5, redis.zscore('z', 'm')
    assert_equal true, redis.set('k', 1, nx: true)
    assert_equal [2, true], redis.pipelined { |list| [list.incr('k'), list.expire('k', 10)] }
    changed = redis.watch('k') { redis.multi { |list| list.incr('k') } }
    assert_equal [3], changed
    assert_raises(Redis::CommandError) { redis.lpush('k', 1) }
    assert_equal %w[h k z], redis.scan_each.sort
    assert_equal '7', redis.eval('return ARGV[1]', argv: [7])
    assert_match(/\A\d/, redis.info['redis_version'])
    assert_nil redis.blpop('none', timeout: 0.1)
    heard = nil
    redis.subscribe_with_timeout(60, 'news') do |on|
      on.subscribe { Redis.new(**@settings).publish('news', 'hi') }
      on.message { |_, text| (heard = text) && redis.unsubscribe }
    end
    assert_equal 'hi', heard
  end

  def test_sidekiq_pushes_and_reads_its_queues
    skip 'Sidekiq is not installed' unless defined?(Sidekiq)
    Sidekiq.default_configuration.logger.level = Logger::WARN
    Sidekiq.configure_client { |config| config.redis = @settings.dup }
    id = Sidekiq::Client.push('class' => 'Mail', 'args' => [1], 'queue' => 'letters')
    require 'sidekiq/api'
    assert_equal [id], Sidekiq::Queue.new('letters').map(&:jid)
    assert_equal 1, Sidekiq::Stats.new.enqueued
  end

  # Every thread counts in a key of its own: what was acknowledged is there, and nothing was added twice, although redis-client may try again.
  def test_a_failover_under_load_loses_nothing_and_repeats_nothing
    skip 'a deployment of its own' if Kit::QUICK
    servers = Kit.deployment
    stop, counted = false, Array.new(8) { { done: 0, unknown: 0, errors: [] } }
    threads = counted.each_with_index.map do |count, n|
      Thread.new do
        redis = RedisClient.config(driver: :vigie, custom: { vigie: servers.uri }, reconnect_attempts: 3).new_client
        until stop
          begin
            redis.call('INCR', "count:#{n}")
            count[:done] += 1
          rescue Vigie::MaybeExecuted
            count[:unknown] += 1
          rescue StandardError => error
            count[:errors] << error
          end
        end
      end
    end
    [200, 200].each_with_index do |more, turn|
      wanted = counted.sum { |count| count[:done] } + more
      Kit.wait_until('more calls') { counted.sum { |count| count[:done] } >= wanted }
      servers.ask('failover') if turn.zero?
    end
    stop = true
    threads.each(&:join)
    check = Vigie::Client.new(servers.uri)
    counted.each_with_index do |count, n|
      assert_includes count[:done]..(count[:done] + count[:unknown]), check.call('GET', "count:#{n}").to_i
      assert_empty count[:errors].reject { |error| error.is_a?(RedisClient::Error) }
    end
  ensure
    stop = true
    threads&.each(&:join)
    check&.close
    servers&.end
  end

  def test_a_child_of_a_fork_goes_on
    assert_equal 'PONG', @redis.call('PING')
    pid = Kit.in_child { raise 'no answer' unless @redis.call('ECHO', 'child') == 'child' }
    assert_equal [0], Kit.statuses([pid])
    assert_equal 'PONG', @redis.call('PING')
  end
end
