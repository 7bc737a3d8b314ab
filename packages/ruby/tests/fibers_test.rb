# Fibers of a scheduler share their thread while they wait; a queue serves any other loop.
require_relative 'kit'
require_relative 'scheduler'

class FibersTest < Minitest::Test
  def setup
    @client = Vigie::Client.new(Kit.small.uri)
    @client.call('FLUSHALL')
  end

  def teardown = @client.close

  # Runs a block under a scheduler, in a thread of its own.
  def loop_of
    Thread.new do
      Fiber.set_scheduler(Scheduler.new)
      yield
    end.join
  end

  def test_fibers_wait_for_each_other_on_one_thread
    got = nil
    loop_of do
      Fiber.schedule { got = @client.blocking_call(0, 'BLPOP', 'list', 0) }
      Fiber.schedule { @client.call('LPUSH', 'list', 'from another fiber') }
    end
    assert_equal ['list', 'from another fiber'], got
  end

  def test_each_fiber_gets_its_own_answer_and_its_own_error
    answers, errors = [], []
    loop_of do
      200.times do |n|
        Fiber.schedule { answers << (@client.call('ECHO', "e#{n}") == "e#{n}") }
        Fiber.schedule { @client.call('LPUSH', 'x', 1, 2) == @client.call('NO.SUCH') rescue errors << $!.class }
      end
      Fiber.schedule { answers << (@client.pipelined { |list| 2.times { list.call('PING') } } == %w[PONG PONG]) }
      Fiber.schedule { answers << (@client.multi { |list| list.call('PING') } == %w[PONG]) }
    end
    assert_equal [202, [true]], [answers.size, answers.uniq]
    assert_equal [Vigie::Server] * 200, errors
  end

  def test_fibers_that_wait_are_kept_from_the_garbage_collector
    answers = []
    loop_of do
      100.times { |n| Fiber.schedule { answers << @client.call('ECHO', n) } }
      Fiber.schedule { 5.times { GC.start } }
    end
    assert_equal (0...100).map(&:to_s), answers.sort_by(&:to_i)
  end

  def test_messages_wait_in_a_fiber
    got = nil
    loop_of do
      Fiber.schedule do
        @client.subscribe('news') do |subscription|
          Fiber.schedule { @client.call('PUBLISH', 'news', 'hi') }
          got = subscription.get(60).data
        end
      end
    end
    assert_equal 'hi', got
  end

  def test_a_queue_serves_a_loop_of_ones_own
    queue = @client.queue
    tokens = Array.new(10) { |n| queue.call('ECHO', n) }
    called = nil
    queue.call('NO.SUCH') { |error, _| called = error.class }
    outcomes = []
    Kit.wait_until('the outcomes') do
      IO.select([queue.to_io], nil, nil, 1)
      outcomes.concat(queue.take).size == 10 && called
    end
    assert_equal tokens.zip([nil] * 10, (0..9).map(&:to_s)), outcomes.sort
    assert_equal Vigie::Server, called
    token = queue.call('BLPOP', 'none', 0, timeout: Float::INFINITY)
    queue.cancel(token)
    assert_instance_of Vigie::Cancelled, queue.take(60)[0][1]
  end
end
