# What events and messages look like, and the words of commands. Nothing here waits or sends.
module Vigie
  # What happened to a deployment. kind is a symbol such as :topology; data has the keys that the library's EVENTS.md lists.
  Event = Struct.new(:kind, :data)
  # A message of a channel. kind is :message, :pmessage or :smessage; pattern is nil but for :pmessage.
  Message = Struct.new(:kind, :channel, :pattern, :data)
  # A subscription was made anew: messages of the last `seconds` may be missing, and none after this.
  Gap = Struct.new(:seconds, :cause, :from, :to)
  # So many messages or events were lost here, because they were not taken in time.
  Dropped = Struct.new(:count)
  # A job in hand: redelivered above 0 says that it may have been handed out before.
  Job = Struct.new(:id, :payload, :redelivered)

  module Words # :nodoc:
    COMPLETION, MESSAGE, SUB_GAP, TOPOLOGY, LOG, DROPPED = 1, 2, 4, 8, 16, 32
    KINDS = {
      topology: TOPOLOGY, log: LOG, fence: 64, degraded: 128, replica: 256, sentinel: 512, notice: 1024, connection: 2048
    }.freeze
    NAMES = KINDS.invert.merge(DROPPED => :dropped).freeze
    ALL = %i[topology fence degraded replica sentinel notice].freeze
    FLAG_ALL, FLAG_TYPED, EACH = 1 << 3, 1 << 7, 1 << 5

    module_function

    # The options of a handle: those given, over the defaults of this package.
    def settings(uri, options)
      chosen = { 'fork' => 'reopen' }
      chosen['uri'] = uri if uri
      (options || {}).each { |key, value| chosen[key.to_s] = value }
      chosen
    end

    def mask_of(kinds)
      kinds.sum do |kind|
        KINDS.fetch(kind.to_sym) { raise ArgumentError, "there are no events of the kind #{kind}: #{KINDS.keys.join(', ')}" }
      end
    end

    def event_of(raw)
      kind, _, error, value = raw
      raise error if error

      Event.new(NAMES.fetch(kind, kind), value)
    end

    # What a subscription yields for an event; nil for an answer to a wish. Raises the event's error.
    def pushed(raw)
      kind, _, error, value = raw
      raise error if error
      return Gap.new(value['gap_ms'] / 1000.0, value['cause'], value['from'], value['to']) if kind == SUB_GAP
      return Dropped.new(value) if kind == DROPPED

      case value[0]
      when 'pmessage' then Message.new(:pmessage, value[2], value[1], value[3])
      when 'message', 'smessage' then Message.new(value[0].to_sym, value[1], nil, value[2])
      end
    end

    # A scan command from its beginning.
    def scan(command, key, match, count, type)
      words = [command, *key, 0]
      words.push('MATCH', match) if match
      words.push('COUNT', count) if count
      words.push('TYPE', type) if type
      words
    end

    # The elements of a page; those of HSCAN and ZSCAN come in pairs.
    def page_items(command, page)
      return page unless %w[HSCAN ZSCAN].include?(command)

      pairs = page[0].is_a?(Array) ? page : page.each_slice(2).to_a
      command == 'ZSCAN' ? pairs.map { |member, score| [member, score.to_f] } : pairs
    end
  end
end
