# A worker of a list of jobs: ruby examples/worker.rb URI [COUNT]. Each job is done at least once, whatever dies.
require 'vigie'

Vigie.connect(ARGV.fetch(0)) do |redis|
  count = Integer(ARGV.fetch(1, 3))
  count.times { |n| redis.push_job('mail', "letter #{n}") }
  redis.jobs('mail', lease: 30) do |worker|
    count.times do
      job = worker.take(Float::INFINITY)
      puts "sent: #{job.payload}#{' (perhaps once more)' if job.redelivered.positive?}"
      worker.ack(job)
    end
  end
end
