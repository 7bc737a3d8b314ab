# Lists of jobs: each job is done at least once, whatever dies.
module Vigie
  # Takes jobs of a list: acknowledge each with ack, or hand it back.
  class Worker
    def initialize(client, name, worker, lease)
      @client = client
      @jobs = Core::Jobs.new(client, name, worker, lease)
    end

    # The next job; nil if there was none within so many seconds (nil: the option timeout.call; Float::INFINITY: no limit).
    def take(timeout = nil)
      told = @jobs.run('take', nil, timeout)
      told && Job.new(told['id'], told['payload'], told['redelivered'])
    end

    # It is done, and is removed. After an error acknowledge it again: it is still in hand.
    def ack(job, timeout: nil) = @jobs.run('ack', id_of(job), timeout)

    # It comes behind those that wait, marked, for any worker.
    def give_back(job, timeout: nil) = @jobs.run('return', id_of(job), timeout)

    # Renews the lease, for a job that takes longer than that.
    def renew(timeout: nil) = @jobs.run('renew', nil, timeout)

    # Jobs that were handed out so often are put aside; 0: no limit.
    def limit_deliveries(count) = @jobs.limit(count)

    # Ends a take in another thread, and all later ones, with Cancelled.
    def stop = @jobs.stop

    # Stops, hands back what is in hand, and ends the lease.
    def close(timeout: nil) = @jobs.run('close', nil, timeout)

    private def id_of(job) = job.is_a?(Job) ? job.id : job
  end
end
