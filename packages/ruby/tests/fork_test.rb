# A prefork server: clients are made before fork, and parent and children go on with them, each with connections of its own.
require_relative 'kit'

class ForkTest < Minitest::Test
  WORKERS = 4
  CALLS = Kit::QUICK ? 300 : 3000

  def setup
    @client = Vigie::Client.new(Kit.small.uri)
  end

  def teardown = @client.close(0)

  def echo(name)
    CALLS.times do |n|
      got = @client.call('ECHO', "#{name}:#{n}")
      raise "#{name}:#{n} was answered with #{got}" unless got == "#{name}:#{n}"
    end
  end

  def test_a_prefork_server_under_load_mixes_no_replies
    id = @client.call('CLIENT', 'ID')
    threads = Array.new(4) { |n| Thread.new { echo("thread#{n}") } }
    pids = Array.new(WORKERS) { |n| Kit.in_child { echo("child#{n}") } }
    threads.each(&:join)
    assert_equal [0] * WORKERS, Kit.statuses(pids)
    assert_equal id, @client.call('CLIENT', 'ID')
  end

  def test_children_write_through_a_failover_and_lose_nothing
    skip 'a deployment of its own' if Kit::QUICK
    servers = Kit.deployment
    client = Vigie::Client.new(servers.uri)
    client.call('PING')
    reader, writer = IO.pipe
    pids = Array.new(WORKERS) do |worker|
      Kit.in_child do
        (CALLS * 2).times do |n|
          key = "#{worker}:#{n}"
          client.call('SET', key, key, timeout: 20)
          writer.syswrite("#{key}\n")
        rescue Vigie::Error
          next
        end
      end
    end
    writer.close
    lines = Thread.new { reader.read.split }
    Kit.wait_until('the children to write') { client.call('DBSIZE') > 20 }
    servers.ask('failover')
    assert_equal [0] * WORKERS, Kit.statuses(pids)
    keys = lines.value
    refute_empty keys
    found = client.pipelined { |list| keys.each { |key| list.call('GET', key) } }
    assert_empty keys.zip(found).reject { |key, value| key == value }
  ensure
    client&.close(0)
    servers&.end
  end

  def test_what_is_one_conversation_says_that_it_is_the_parents
    session = @client.session
    session.call('PING')
    subscription = @client.subscribe('news')
    pid = Kit.in_child do
      [-> { session.call('PING') }, -> { subscription.get(1) }].each do |use|
        use.call
        raise 'no Forked'
      rescue Vigie::Forked
        next
      end
      raise 'no PONG' unless @client.call('PING') == 'PONG'
    end
    assert_equal [0], Kit.statuses([pid])
    assert_equal 'PONG', session.call('PING')
    session.close
    subscription.close
  end

  def test_a_child_that_only_ends_leaves_the_parents_connections
    id = @client.call('CLIENT', 'ID')
    assert_equal [0] * 20, Kit.statuses(Array.new(20) { Kit.in_child { nil } })
    assert_equal id, @client.call('CLIENT', 'ID')
  end
end
