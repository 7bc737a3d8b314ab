# As much of a binding as an event loop needs, through ffi: open, exec, submit, drain. No callback, no thread.
#
# Replies come as Ruby values, decoded from the nodes and data that an event or a reply carries, without a call per node.
require 'ffi'

module Vigie
  extend FFI::Library
  DEFAULT = -2_147_483_648
  QUEUE_FULL = -301
  CALL_EACH = 1 << 5
  COMPLETION = 1 << 0
  # kind, status, token, reply, error, nodes, data, node_count, data_len
  EVENT = 'LlQ7'
  EVENT_BYTES = 64
  # type, flags, reserved, count, value, len
  NODE = 'CCSLqQ'
  NODE_BYTES = 24
  NULL, INT, DOUBLE, BOOL, ARRAY = 1, 5, 6, 7, 10

  # Only a call that may wait lets other threads run.
  def self.load(path)
    ffi_lib path
    attach_function :vigie_config_new, [], :pointer
    attach_function :vigie_config_set, %i[pointer string string pointer], :int32
    attach_function :vigie_config_free, [:pointer], :void
    attach_function :vigie_sentinel_create, %i[pointer int64 pointer pointer], :int32, blocking: true
    attach_function :vigie_sentinel_free, [:pointer], :void
    attach_function :vigie_primary_for, %i[pointer string pointer pointer pointer], :int32
    attach_function :vigie_client_free, [:pointer], :void
    attach_function :vigie_cmd_exec, %i[pointer size_t pointer pointer uint32 int64 pointer pointer], :int32, blocking: true
    attach_function :vigie_cmds_exec, %i[pointer buffer_in size_t uint32 int64 pointer pointer], :int32, blocking: true
    attach_function :vigie_cmds_submit, %i[pointer buffer_in size_t uint32 int64 pointer uint64 pointer], :int32
    attach_function :vigie_reply_nodes, %i[pointer pointer pointer pointer], :pointer
    attach_function :vigie_reply_free, [:pointer], :void
    attach_function :vigie_error_status, [:pointer], :int32
    attach_function :vigie_error_message, [:pointer], :string
    attach_function :vigie_error_free, [:pointer], :void
    attach_function :vigie_queue_create, %i[size_t pointer pointer], :int32
    attach_function :vigie_queue_fd, [:pointer], :int
    attach_function :vigie_queue_drain, %i[pointer int64 pointer uint32], :int32
    attach_function :vigie_queue_wait, :vigie_queue_drain, %i[pointer int64 pointer uint32], :int32, blocking: true
    attach_function :vigie_queue_free, [:pointer], :void
    attach_function :vigie_events_clear, %i[pointer size_t], :void
  end

  # What an error object said; the object stays its owner's.
  class Error < StandardError
    attr_reader :status

    def initialize(err)
      @status = Vigie.vigie_error_status(err)
      super(Vigie.vigie_error_message(err))
    end
  end

  module_function

  # One command as RESP.
  def encode(*words)
    words.each_with_object(+"*#{words.size}\r\n") { |w, to| to << "$#{w.bytesize}\r\n#{w}\r\n" }
  end

  # A reply from its flat form: the nodes and the data, how many nodes and bytes.
  def decode(nodes, count, data, data_len)
    value_of(nodes.get_bytes(0, NODE_BYTES * count).unpack(NODE * count), 0, data.get_bytes(0, data_len))
  end

  def value_of(flat, at, texts)
    kind, value = flat[at], flat[at + 4]
    case kind
    when INT, BOOL then value
    when NULL then nil
    when DOUBLE then [value].pack('q').unpack1('d')
    when ARRAY.. then Array.new(flat[at + 3]) { |i| value_of(flat, (value + i) * 6, texts) }
    else texts.byteslice(value, flat[at + 5])
    end
  end

  # A client of the primary.
  class Client
    attr_reader :handle, :err

    def initialize(uri)
      @err, @out = FFI::MemoryPointer.new(:pointer), FFI::MemoryPointer.new(:pointer)
      @count, @data, @data_len = %i[size_t pointer size_t].map { |type| FFI::MemoryPointer.new(type) }
      # Words and lengths of up to eight words.
      @argv, @lengths = FFI::MemoryPointer.new(:pointer, 8), FFI::MemoryPointer.new(:size_t, 8)
      config = Vigie.vigie_config_new
      check Vigie.vigie_config_set(config, 'uri', uri, @err)
      check Vigie.vigie_sentinel_create(config, 2000, @out, @err)
      sentinel = @out.read_pointer
      check Vigie.vigie_primary_for(sentinel, nil, nil, @out, @err)
      @handle = @out.read_pointer
      Vigie.vigie_config_free(config)
      Vigie.vigie_sentinel_free(sentinel)
    end

    # Raises what the last call left in err.
    def check(status)
      return if status.zero?

      err = @err.read_pointer
      begin
        raise Error.new(err)
      ensure
        Vigie.vigie_error_free(err)
      end
    end

    # One command and its reply; for one thread, as the out-parameters are the client's.
    def exec(*words)
      texts = words.map { |w| FFI::MemoryPointer.from_string(w) }
      @argv.write_array_of_pointer(texts)
      @lengths.write_array_of_uint64(words.map(&:bytesize))
      check Vigie.vigie_cmd_exec(@handle, words.size, @argv, @lengths, 0, DEFAULT, @out, @err)
      taken
    end

    # A list of commands and the list of their replies.
    def exec_list(resp)
      check Vigie.vigie_cmds_exec(@handle, resp, resp.bytesize, 0, DEFAULT, @out, @err)
      taken
    end

    # Decodes the reply of the last call and frees it.
    def taken
      reply = @out.read_pointer
      nodes = Vigie.vigie_reply_nodes(reply, @count, @data, @data_len)
      Vigie.decode(nodes, @count.read_uint64, @data.read_pointer, @data_len.read_uint64)
    ensure
      Vigie.vigie_reply_free(reply)
    end

    # Each command completes by itself, with token, token + 1 and so on. False: the queue is full, nothing was taken.
    def submit(queue, resp, token)
      status = Vigie.vigie_cmds_submit(@handle, resp, resp.bytesize, CALL_EACH, DEFAULT, queue.handle, token, @err)
      if status == QUEUE_FULL
        Vigie.vigie_error_free(@err.read_pointer)
        return false
      end
      check status
      true
    end

    def close
      Vigie.vigie_client_free(@handle)
    end
  end

  # Completions: [token, value], or [token, Error].
  class Queue
    attr_reader :handle, :io, :room

    def initialize(client, capacity, room)
      out = FFI::MemoryPointer.new(:pointer)
      client.check Vigie.vigie_queue_create(capacity, out, client.err)
      @handle, @room = out.read_pointer, room
      @events = FFI::MemoryPointer.new(EVENT_BYTES, room)
      @io = IO.for_fd(Vigie.vigie_queue_fd(@handle), autoclose: false) # the descriptor is the queue's
    end

    # What is there, at most as much as there is room for: if it is as much, there may be more.
    def drain(timeout_ms = 0)
      count = Vigie.send(timeout_ms.zero? ? :vigie_queue_drain : :vigie_queue_wait, @handle, timeout_ms, @events, @room)
      raise "drain gave #{count}" if count.negative?
      return [] if count.zero?

      fields = @events.get_bytes(0, EVENT_BYTES * count).unpack(EVENT * count)
      taken = []
      (0...fields.size).step(9) do |at|
        next if fields[at] != COMPLETION

        taken << [fields[at + 2], outcome(fields, at)]
      end
      Vigie.vigie_events_clear(@events, count)
      taken
    end

    def close
      Vigie.vigie_queue_free(@handle)
    end

    private

    def outcome(fields, at)
      return Error.new(FFI::Pointer.new(fields[at + 4])) unless fields[at + 1].zero?

      Vigie.decode(FFI::Pointer.new(fields[at + 5]), fields[at + 7], FFI::Pointer.new(fields[at + 6]), fields[at + 8])
    end
  end
end
