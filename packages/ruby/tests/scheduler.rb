# The smallest scheduler of fibers that the tests need: IO.select over what waits, and a table of what sleeps.
class Scheduler
  def initialize
    @readable, @timed, @ready, @blocked, @lock = {}, {}, [], {}.compare_by_identity, Mutex.new
    @wake_reader, @wake_writer = IO.pipe
  end

  def run
    step until @readable.empty? && @timed.empty? && @ready.empty? && @blocked.empty?
  end
  alias close run

  def io_wait(io, _events, timeout)
    @readable[io] = Fiber.current
    @timed[Fiber.current] = now + timeout if timeout
    Fiber.yield ? IO::READABLE : nil
  ensure
    @readable.delete(io)
    @timed.delete(Fiber.current)
  end

  def kernel_sleep(seconds = nil) = block(:sleep, seconds)

  def block(_blocker, timeout = nil)
    @blocked[Fiber.current] = true
    @timed[Fiber.current] = now + timeout if timeout
    Fiber.yield
  ensure
    @blocked.delete(Fiber.current)
    @timed.delete(Fiber.current)
  end

  def unblock(_blocker, fiber)
    @lock.synchronize { @ready << [fiber, true] }
    @wake_writer.write_nonblock('.')
  end

  def fiber(&block) = Fiber.new(blocking: false, &block).tap(&:resume)

  private def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

  private def step
    due = @timed.values.min
    wait = @ready.empty? ? due && [due - now, 0].max : 0
    readable, = IO.select([@wake_reader, *@readable.keys], nil, nil, wait)
    @wake_reader.read_nonblock(1000, exception: false) if readable&.delete(@wake_reader)
    readable&.each { |io| @readable[io]&.resume(true) }
    ready = @lock.synchronize { @ready.shift(@ready.size) }
    ready.each { |fiber, value| fiber.resume(value) if fiber.alive? }
    @timed.select { |_, at| at <= now }.each_key { |fiber| fiber.resume(false) if fiber.alive? }
  end
end
