# What the tests start: a deployment of real servers and Sentinels, and the server that answers with given bytes.
#
# Both end with this process, because their standard input ends with it.
require 'json'
require 'minitest'
require 'timeout'
require 'vigie'

module Kit
  PACKAGES = File.join(ENV.fetch('VIGIE_ROOT'), 'packages')
  QUICK = ENV['VIGIE_QUICK'] == '1'

  # A program of the test kit, which speaks JSON line by line.
  class Program
    attr_reader :told

    def initialize(*command)
      @pipe = IO.popen(command, 'r+')
      @told = read
    end

    def ask(command)
      @pipe.puts(command)
      read
    end

    def end
      @pipe.close unless @pipe.closed?
    end

    def uri = @told['uri']

    private def read
      line = @pipe.gets or raise 'the test kit has ended'
      told = JSON.parse(line)
      raise told['error'] if told['error']

      told
    end
  end

  module_function

  def deployment(replicas = 2, sentinels = 3) = Program.new("#{PACKAGES}/testkit/deployment", replicas.to_s, sentinels.to_s)

  # A deployment that tests share, of one server and one Sentinel.
  def small = @small ||= deployment(0, 1).tap { |it| Minitest.after_run { it.end } }

  def scripted(*options) = Program.new("#{PACKAGES}/testkit/scripted", *options)

  def vectors(name) = JSON.parse(File.read("#{PACKAGES}/vectors/#{name}.json"))

  # Waits for a condition; only a fault lasts for so long.
  def wait_until(what, seconds = 60)
    finish = Vigie.clock + seconds
    until (value = yield)
      raise "waited #{seconds} s in vain for #{what}" if Vigie.clock > finish

      sleep 0.005
    end
    value
  end

  def descriptors = Dir.children('/proc/self/fd').size

  def resident_kb = File.read('/proc/self/status')[/VmRSS:\s+(\d+)/, 1].to_i

  # Runs a block in a forked child; its process id. A child that fails ends with 1.
  def in_child
    fork do
      status = 1
      begin
        yield
        status = 0
      rescue Exception => error # the child ends with it
        $stderr.puts("child: #{error.full_message}")
      ensure
        exit!(status)
      end
    end
  end

  def statuses(pids) = pids.map { |pid| Process.wait2(pid)[1].exitstatus }
end
