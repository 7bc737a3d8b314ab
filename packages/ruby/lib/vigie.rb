# Redis and Valkey under Sentinel: blocking clients for all threads, and fibers of a scheduler, over the C extension.
#
# A call runs on the caller's thread. Nothing is retried here: the library does that where it is right, within the timeout of the call.
module Vigie
end

require 'vigie/version'
begin
  # The gem for a platform has the extension of each Ruby that it serves; the one from source has compiled its own.
  require "vigie/#{RUBY_VERSION[/\d+\.\d+/]}/vigie"
rescue LoadError => error
  raise unless error.path.to_s.end_with?('/vigie')

  require 'vigie/vigie'
end
require 'vigie/errors'
require 'vigie/values'
require 'vigie/fibers'
require 'vigie/client'
require 'vigie/messages'
require 'vigie/work'
require 'vigie/logging'

module Vigie
  unless Core.version.split('.').first(2) == VERSION.split('.').first(2)
    raise LoadError, "the gem vigie is of version #{VERSION}, its extension of #{Core.version}: install the gem again"
  end

  # A client: Vigie.connect("redis-sentinel://host,host/service"). The keywords are those of Client.new; with a block it is closed behind it.
  def self.connect(uri, **settings)
    client = Client.new(uri, **settings)
    return client unless block_given?

    begin
      yield client
    ensure
      client.close
    end
  end
end
