# What is opened is given back: 1,000 opens and closes with flat memory and descriptors, and objects that are forgotten without a close.
require_relative 'kit'

class ResourcesTest < Minitest::Test
  ROUNDS = Kit::QUICK ? 100 : 1000

  # A leak grows in every fifth of the rounds; a heap that settles does not. Descriptors are as many at the end as after the first fifth.
  def check(slack_kb = 1024)
    sizes, descriptors = [], nil
    5.times do
      (ROUNDS / 5).times { yield }
      GC.start
      sizes << Kit.resident_kb
      descriptors ||= Kit.descriptors
    end
    Kit.wait_until('the descriptors to be given back') { GC.start || Kit.descriptors <= descriptors }
    assert_operator sizes.each_cons(2).map { |before, after| after - before }.min, :<=, slack_kb, sizes.inspect
  end

  def test_clients_are_opened_and_closed
    check do
      client = Vigie::Client.new(Kit.small.uri)
      client.call('PING')
      client.close
    end
  end

  def test_clients_sessions_and_subscriptions_are_forgotten_without_a_close
    sentinel = Vigie::Sentinel.new(Kit.small.uri)
    check do
      client = Vigie::Client.new(sentinel)
      client.session.call('PING')
      client.subscribe('news')
      client.pipelined { |list| list.call('PING') }
      GC.start
    end
    sentinel.close
  end

  def test_errors_interrupts_and_large_replies_leave_nothing
    client = Vigie::Client.new(Kit.small.uri)
    client.call('SET', 'large', 'x' * 100_000)
    check do
      client.call('GET', 'large')
      assert_raises(Vigie::Server) { client.call('LPUSH', 'large', 1) }
      assert_raises(TypeError) { client.pipelined { |list| list.call('GET', nil) } }
      Thread.new { client.blocking_call(0, 'BLPOP', 'none', 0) }.tap { |thread| Thread.pass while thread.status == 'run' }.kill.join
    end
    client.close
  end

  def test_a_stress_of_the_garbage_collector_breaks_no_value
    client = Vigie::Client.new(Kit.small.uri)
    words = Array.new(Kit::QUICK ? 8 : 40) { |n| "word #{n} #{'y' * n}" }
    GC.stress = true
    begin
      client.call('DEL', 'gc')
      client.call('RPUSH', 'gc', words)
      assert_equal words, client.call('LRANGE', 'gc', 0, -1)
      assert_equal [words, Vigie::WrongType], [client.call('LRANGE', 'gc', 0, -1), client.pipelined(exception: false) { |list| list.call('GET', 'gc') }[0].class]
    ensure
      GC.stress = false
    end
    client.close
  end
end
