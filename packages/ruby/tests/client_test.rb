# Calls, lists, transactions, scans, messages, jobs: what a program uses every day.
require_relative 'kit'

class ClientTest < Minitest::Test
  def setup
    @client = Vigie::Client.new(Kit.small.uri)
    @client.call('FLUSHALL')
  end

  def teardown = @client.close

  def test_words_are_flattened_and_keywords_become_flags
    assert_equal 'OK', @client.call('SET', 'k', 'v', ex: 100, nx: true, xx: nil, get: false)
    assert_includes 1..100, @client.call('TTL', 'k')
    assert_equal 2, @client.call('HSET', 'h', { a: 1, 'b' => 2.5 })
    assert_equal({ 'a' => '1', 'b' => '2.5' }, @client.call('HGETALL', 'h'))
    assert_equal ['v', nil], @client.call(:mget, %w[k none])
    assert_equal %w[v], @client.call_v(['MGET', 'k'])
    assert_equal 2, @client.call('GET', 'h2') { 2 }
  end

  def test_what_is_no_word_is_a_type_error
    [nil, true, Object.new, Time.now, [[1]], Float::NAN].each do |value|
      assert_raises(TypeError) { @client.call('SET', 'k', value) }
    end
    assert_raises(ArgumentError) { @client.call }
    assert_raises(ArgumentError) { @client.call_v(['GET', 'k'], ex: 1) }
  end

  def test_an_error_says_what_happened
    @client.call('SET', 'k', 1)
    error = assert_raises(Vigie::WrongType) { @client.call('LPUSH', 'k', 1) }
    assert_equal [-400, 'SERVER', 'WRONGTYPE', false], [error.status, error.name, error.code, error.maybe_executed?]
    assert_equal "127.0.0.1:#{Kit.small.told['primary']}", error.endpoint
    refute_kind_of Vigie::MaybeExecuted, error
    assert_raises(Vigie::Usage) { Vigie::Client.new('redis-sentinel://') }
  end

  def test_a_pipeline_raises_its_first_error_or_has_it_in_its_place
    fill = lambda do |list|
      list.call('SET', 'k', 1)
      list.call('LPUSH', 'k', 1)
      list.call('INCR', 'k') { |value| value * 10 }
    end
    assert_raises(Vigie::WrongType) { @client.pipelined(&fill) }
    replies = @client.pipelined(exception: false, timeout: 5, &fill)
    assert_equal ['OK', Vigie::WrongType, 20], [replies[0], replies[1].class, replies[2]]
    assert_equal [], @client.pipelined { |_| nil }
  end

  def test_a_transaction_runs_as_a_whole_or_not_at_all
    assert_equal [1, 2], @client.multi { |list| 2.times { list.call('INCR', 'n') } }
    assert_equal ['OK'], @client.multi(watch: ['n']) { |list, session| list.call('SET', 'n', session.call('GET', 'n').to_i * 2) }
    changed = @client.multi(watch: ['n']) do |list|
      @client.call('INCR', 'n')
      list.call('SET', 'n', 0)
    end
    assert_nil changed
    assert_equal '5', @client.call('GET', 'n')
    tries = 0
    replies = @client.transaction('n') do |session, list|
      value = session.call('GET', 'n').to_i
      @client.call('INCR', 'n') if (tries += 1) == 1
      list.call('SET', 'n', value + 10)
    end
    assert_equal [['OK'], 2, '16'], [replies, tries, @client.call('GET', 'n')]
    error = assert_raises(Vigie::ExecAbort) { @client.multi { |list| list.call('NO.SUCH') } }
    refute_predicate error, :maybe_executed?
  end

  def test_a_session_keeps_its_connection
    @client.session do |session|
      ids = Array.new(3) { session.call('CLIENT', 'ID') }
      assert_equal 1, ids.uniq.size
      session.call('WATCH', 'k')
      @client.call('SET', 'k', 1)
      assert_raises(Vigie::TxnAborted) { session.multi { |list| list.call('SET', 'k', 2) } }
    end
  end

  def test_scans_yield_everything_once
    @client.pipelined { |list| 500.times { |n| list.call('SET', "user:#{n}", n) } }
    @client.call('HSET', 'h', { a: 1, b: 2 })
    @client.call('SADD', 's', %w[x y])
    @client.call('ZADD', 'z', 1.5, 'm')
    assert_equal 500, @client.scan(match: 'user:*', count: 50).to_a.uniq.size
    assert_equal [%w[a 1], %w[b 2]], @client.hscan('h').sort
    assert_equal %w[x y], @client.sscan('s').sort
    assert_equal [['m', 1.5]], @client.zscan('z').to_a
  end

  def test_messages_come_in_order
    @client.subscribe('news', patterns: ['user:*']) do |subscription|
      @client.call('PUBLISH', 'news', 'one')
      @client.call('PUBLISH', 'user:7', 'two')
      got = Array.new(2) { subscription.get(60) }
      assert_equal [[:message, 'news', nil, 'one'], [:pmessage, 'user:7', 'user:*', 'two']], got.map(&:to_a)
      assert_nil subscription.get(0)
      subscription.close
      assert_equal [], subscription.each.to_a
    end
  end

  def test_pubsub_has_the_events_of_redis_client
    pubsub = @client.pubsub
    pubsub.call('SUBSCRIBE', 'a', 'b')
    assert_equal [['subscribe', 'a', 1], ['subscribe', 'b', 2]], [pubsub.next_event(60), pubsub.next_event(60)]
    @client.call('PUBLISH', 'b', 'text')
    assert_equal %w[message b text], pubsub.next_event(60)
    assert_nil pubsub.next_event(0)
    pubsub.close
  end

  def test_a_job_is_in_hand_until_it_is_acknowledged
    assert_equal 1, @client.push_job('mail', 'hello', id: 'one')
    @client.jobs('mail', worker: 'w1') do |worker|
      job = worker.take(60)
      assert_equal ['one', 'hello', 0], job.to_a
      worker.give_back(job)
      assert_operator worker.take(60).redelivered, :>, 0
      worker.renew
      worker.ack(job)
      assert_nil worker.take(0)
      worker.stop
      assert_raises(Vigie::Cancelled) { worker.take }
    end
  end

  def test_clients_share_a_sentinel_and_read_where_they_are_told
    sentinel = Vigie::Sentinel.new(Kit.small.uri, timeout: 60)
    client = Vigie::Client.new(sentinel, service: 'mymaster', read: :split, overrides: { 'timeout.call' => 4000 })
    assert_equal 'PONG', client.call('PING', on_primary: true)
    assert_equal "127.0.0.1:#{Kit.small.told['primary']}", sentinel.services['mymaster'].is_a?(Hash) ? client.topology['primary'] : nil
    assert_raises(ArgumentError) { Vigie::Client.new(sentinel, read: :anything) }
    client.close
    refute_predicate sentinel.stats, :empty?
    assert_includes sentinel.metrics, 'vigie'
    assert_match(/mymaster/, sentinel.admin('MASTERS', typed: false).to_s)
    sentinel.close
  end

  def test_shards_deal_out_commands
    second = Kit.deployment(0, 1)
    ports = [Kit.small, second].map { |servers| servers.told['primary'] }
    shards = Vigie::Shards.new(ports.each_with_index.map { |port, n| "node_#{n + 1}=redis://127.0.0.1:#{port}" })
    shards.call('MSET', (1..20).flat_map { |n| ["k#{n}", n] })
    assert_equal (1..20).map(&:to_s), shards.call('MGET', (1..20).map { |n| "k#{n}" })
    assert_equal [0, 1], (1..20).map { |n| shards.shard_of("k#{n}") }.uniq.sort
    shards.close
    second.end
  end

  def test_a_hook_is_told_of_names_and_never_of_arguments
    told = []
    @client.hook = ->(*heard) { told << heard }
    @client.call('SET', 'secret-key', 'secret')
    assert_raises(Vigie::Server) { @client.call('NO.SUCH', 'secret') }
    @client.pipelined { |list| list.call('PING') }
    @client.multi { |list| list.call('PING') }
    assert_equal %w[SET NO.SUCH PIPELINE MULTI], told.map(&:first)
    assert_equal "127.0.0.1:#{Kit.small.told['primary']}", told[0][1]
    assert(told.all? { |_, _, seconds, _| seconds.is_a?(Float) })
    assert_equal [NilClass, Vigie::Server, NilClass, NilClass], told.map { |entry| entry[3].class }
    refute_match(/secret/, told[0].inspect)
    assert_raises(TypeError) { @client.hook = 1 }
  end

  def test_the_log_goes_to_a_logger_once_it_is_asked_for
    require 'logger'
    lines = Thread::Queue.new
    logger = Logger.new($stderr)
    logger.formatter = ->(_, _, program, text) { lines << [program, text]; '' }
    bridge = Vigie.log_to(@client, logger, :debug)
    @client.session { |session| session.call('PING') }
    assert_equal 'vigie', lines.pop[0]
    bridge.close
  end

  def test_a_ractor_is_refused
    before, $VERBOSE = $VERBOSE, nil # Ruby says that Ractors are experimental
    said = Ractor.new(Kit.small.uri) do |uri|
      Vigie::Client.new(uri)
    rescue Ractor::UnsafeError => error
      error.message
    end
    assert_match(/main Ractor/, said.take)
  ensure
    $VERBOSE = before
  end

  def test_a_closed_client_says_so
    @client.close
    assert_predicate @client, :closed?
    assert_raises(Vigie::Closed) { @client.call('PING') }
    @client.close
    assert_equal '#<Vigie::Client closed>', @client.inspect
    assert_equal 1, (Vigie.connect(Kit.small.uri) { |client| client.with { |same| same.call('PING') && 1 } })
  end
end
