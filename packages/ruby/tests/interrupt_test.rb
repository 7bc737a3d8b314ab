# Thread#kill, Thread#raise, Timeout.timeout and Ctrl-C end what waits; a trap that returns ends nothing.
require_relative 'kit'

class InterruptTest < Minitest::Test
  # Of the best of three, so that a machine that is busy for a moment says nothing.
  SOON = 0.2

  # A server of its own, and no Sentinels asked: they would consider a primary down that is paused.
  def self.server = @server ||= Kit.deployment(0, 1).tap { |it| Minitest.after_run { it.end } }

  def setup
    @uri = "redis://127.0.0.1:#{InterruptTest.server.told['primary']}"
    @client = Vigie::Client.new(@uri)
  end

  def teardown = @client.close

  def at_server?(command) = @client.call('CLIENT', 'LIST').include?("cmd=#{command}")

  # Seconds from the interrupt of a thread that waits to its end, the best of three.
  def best_of_three(wait, ready, interrupt)
    Array.new(3) do
      thread = Thread.new { wait.call }
      thread.report_on_exception = false
      Kit.wait_until('the wait') { ready.call(thread) }
      begun = Vigie.clock
      interrupt.call(thread)
      thread.join rescue nil
      Vigie.clock - begun
    end.min
  end

  def blpop = -> { @client.blocking_call(0, 'BLPOP', 'none', 0) }
  def waiting = ->(_) { at_server?('blpop') }
  def asleep = ->(thread) { thread.status == 'sleep' }

  def test_kill_and_raise_end_a_blocking_command
    assert_operator best_of_three(blpop, waiting, :kill.to_proc), :<, SOON
    assert_operator best_of_three(blpop, waiting, ->(thread) { thread.raise('enough') }), :<, SOON
    assert_equal 'PONG', @client.call('PING')
    assert_equal 1, @client.call('LPUSH', 'none', 1)
    assert_equal %w[none 1], @client.blocking_call(1, 'BLPOP', 'none', 0)
  end

  def test_the_outcome_of_what_was_ended_is_the_cause
    thread = Thread.new { blpop.call }
    thread.report_on_exception = false
    Kit.wait_until('the wait') { at_server?('blpop') }
    thread.raise('enough')
    error = assert_raises(RuntimeError) { thread.join }
    assert_instance_of Vigie::Cancelled, error.cause
  end

  def test_timeout_ends_a_blocking_command
    over = Array.new(3) do
      begun = Vigie.clock
      assert_raises(Timeout::Error) { Timeout.timeout(0.1) { blpop.call } }
      Vigie.clock - begun - 0.1
    end
    assert_operator over.min, :<, SOON
  end

  def test_a_command_of_a_session_ends_too
    @client.session do |session|
      assert_operator best_of_three(-> { session.call('BLPOP', 'none', 0) }, waiting, :kill.to_proc), :<, SOON
    end
  end

  def test_a_call_without_an_answer_may_have_run
    other = Vigie::Client.new(@uri)
    other.call('CLIENT', 'PAUSE', 60_000, 'WRITE')
    thread = Thread.new { @client.call('SET', 'k', 1, timeout: 60) }
    thread.report_on_exception = false
    Kit.wait_until('the wait') { other.call('CLIENT', 'LIST').include?('cmd=set') }
    thread.raise('enough')
    error = assert_raises(RuntimeError) { thread.join }
    assert_kind_of Vigie::MaybeExecuted, error.cause
  ensure
    other&.call('CLIENT', 'UNPAUSE')
    other&.close
  end

  def test_messages_events_and_jobs_end
    @client.subscribe('news') do |subscription|
      assert_operator best_of_three(-> { subscription.get }, asleep, :kill.to_proc), :<, SOON
    end
    events = @client.events
    assert_operator best_of_three(-> { events.get }, asleep, :kill.to_proc), :<, SOON
    events.close
    @client.jobs('empty') do |worker|
      assert_operator best_of_three(-> { worker.take(Float::INFINITY) }, asleep, :kill.to_proc), :<, SOON
    end
  end

  def test_ctrl_c_ends_a_wait_of_the_main_thread
    # A shell has programs in the background ignore it, and Ruby leaves it so.
    before = trap(:INT, 'DEFAULT')
    sender = Thread.new do
      Kit.wait_until('the wait') { at_server?('blpop') }
      Process.kill(:INT, Process.pid)
    end
    error = assert_raises(Interrupt) { blpop.call }
    assert_instance_of Vigie::Cancelled, error.cause
    sender.join
  ensure
    trap(:INT, before || 'DEFAULT')
  end

  def test_a_trap_that_returns_ends_no_call
    traps = 0
    before = trap(:USR1) { traps += 1 }
    sender = Thread.new do
      Kit.wait_until('the wait') { at_server?('blpop') }
      3.times do |n|
        Process.kill(:USR1, Process.pid)
        Kit.wait_until('the trap') { traps > n }
      end
      @client.call('LPUSH', 'later', 'value')
    end
    assert_equal %w[later value], @client.blocking_call(0, 'BLPOP', 'later', 0)
    sender.join
    assert_equal 3, traps
  ensure
    trap(:USR1, before || 'DEFAULT')
  end

  def test_a_thousand_interrupted_calls_give_no_answer_to_another
    count = Kit::QUICK ? 100 : 1000
    @client.call('SET', 'own', 'own')
    count.times do |n|
      thread = Thread.new { @client.call('ECHO', "killed:#{n}") }
      Thread.pass if n.odd?
      thread.kill
      assert_equal "asked:#{n}", @client.call('ECHO', "asked:#{n}")
      thread.join
    end
  end

  def test_other_threads_run_while_one_waits
    thread = Thread.new { @client.blocking_call(0, 'BLPOP', 'none', 0) }
    Kit.wait_until('the wait') { at_server?('blpop') }
    assert_equal 100, Array.new(100) { @client.call('PING') }.size
    thread.kill.join
  end
end
