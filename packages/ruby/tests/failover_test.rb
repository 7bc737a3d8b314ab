# Failovers under load, a planned one and SIGKILL of the primary: no acknowledged write is lost, and every error is one of the package.
#
# A write counts as acknowledged when its reply was read. At SIGKILL replication is what keeps it, so writes ask for a replica there.
require_relative 'kit'

class FailoverTest < Minitest::Test
  def setup
    skip 'a deployment of its own' if Kit::QUICK && name.include?('subscription')
    @servers = Kit.deployment
    @client = Vigie::Client.new(@servers.uri)
    @acknowledged, @errors, @stop = [], [], false
  end

  def teardown
    @client&.close(0)
    @servers&.end
  end

  def write(name, manner)
    number = 0
    until @stop
      key = "#{name}:#{number += 1}"
      begin
        @client.call('SET', key, key, timeout: 10, **manner)
        @acknowledged << key
      rescue StandardError => error
        @errors << error
      end
    end
  end

  def more_writes(count)
    wanted = @acknowledged.size + count
    Kit.wait_until("#{count} more writes") { @acknowledged.size >= wanted }
  end

  def under_load(manner = {})
    threads = Array.new(16) { |n| Thread.new { write("t#{n}", manner) } }
    (Kit::QUICK ? 1 : 2).times do
      more_writes(200)
      yield
      more_writes(200)
    end
  ensure
    @stop = true
    threads.each(&:join)
  end

  def check
    lost = @acknowledged.each_slice(1000).flat_map do |keys|
      values = @client.pipelined { |list| keys.each { |key| list.call('GET', key) } }
      keys.zip(values).reject { |key, value| key == value }
    end
    assert_empty lost
    assert_empty @errors.reject { |error| error.is_a?(Vigie::Error) }
    @errors.each { |error| assert_equal error.maybe_executed?, error.is_a?(Vigie::MaybeExecuted) }
  end

  def test_a_planned_failover_loses_nothing
    under_load { @servers.ask('failover') }
    check
  end

  def test_sigkill_of_the_primary_loses_no_write_that_a_replica_had_and_tells_what_may_have_run
    under_load(replicas: 1) do
      @servers.ask('kill primary')
      @servers.ask('wait')
      @servers.ask('restart') unless Kit::QUICK
    end
    check
    # The primary is killed while 16 writers have calls in flight: of some nobody knows whether they ran.
    assert(@errors.any?(Vigie::MaybeExecuted))
  end

  def test_a_subscription_is_made_anew_and_the_switch_is_an_event
    events = @client.events(:topology)
    @client.subscribe('news') do |subscription|
      @client.call('PUBLISH', 'news', 'before')
      assert_equal 'before', subscription.get(60).data
      told = @servers.ask('failover')
      assert_instance_of Vigie::Gap, subscription.get(60)
      @client.call('PUBLISH', 'news', 'behind')
      assert_equal 'behind', subscription.get(60).data
      event = events.get(60)
      assert_equal [:topology, "127.0.0.1:#{told['primary']}"], [event.kind, event.data['to']]
    end
    events.close
  end
end
