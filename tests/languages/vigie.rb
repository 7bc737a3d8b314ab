# As much of a binding as an event loop needs, through ffi: open, exec, submit, drain. No callback, no thread.
#
# Replies come as Ruby values, decoded from their nodes and data without a call per node; completions come packed, one call for a batch
# of them, and are read where they lie.
require 'ffi'

module Vigie
  extend FFI::Library
  DEFAULT = -2_147_483_648
  QUEUE_FULL, BUFFER_TOO_SMALL = -301, -9
  CALL_EACH = 1 << 5
  COMPLETION = 1 << 0
  # Where the fields of a packed event are, and its nodes.
  TOKEN, KIND, STATUS, NODE_COUNT, DATA_LEN, ROOT = 8, 16, 20, 28, 32, 40
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
    attach_function :vigie_error_message, [:pointer], :string
    attach_function :vigie_error_server_code, [:pointer], :string
    attach_function :vigie_error_free, [:pointer], :void
    attach_function :vigie_queue_create, %i[size_t pointer pointer], :int32
    attach_function :vigie_queue_fd, [:pointer], :int
    drain = %i[pointer int64 pointer size_t pointer]
    attach_function :vigie_queue_drain, :vigie_queue_drain_packed, drain, :int32
    attach_function :vigie_queue_wait, :vigie_queue_drain_packed, drain, :int32, blocking: true
    attach_function :vigie_queue_free, [:pointer], :void
  end

  # A status, a sentence, and the first word of a server's error.
  class Error < StandardError
    attr_reader :status, :code

    def initialize(status, message, code)
      @status, @code = status, code
      super(message)
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

  # What a packed event carries that begins there.
  def packed(buffer, at)
    count = buffer.get_uint32(at + NODE_COUNT)
    data = at + ROOT + NODE_BYTES * count
    if count == 1
      case buffer.get_uint8(at + ROOT)
      when NULL then return nil
      when INT, BOOL then return buffer.get_int64(at + ROOT + 8)
      when DOUBLE then return buffer.get_float64(at + ROOT + 8)
      when ARRAY.. then return []
      else return buffer.get_bytes(data + buffer.get_uint64(at + ROOT + 8), buffer.get_uint64(at + ROOT + 16))
      end
    end
    decode(buffer + (at + ROOT), count, buffer + data, buffer.get_uint64(at + DATA_LEN))
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
        raise Error.new(status, Vigie.vigie_error_message(err), Vigie.vigie_error_server_code(err))
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

  # Completions: [token, value], or [token, Error]. They come through a buffer of so many bytes, which grows for a larger one.
  class Queue
    attr_reader :handle, :io

    def initialize(client, capacity, room = 1 << 16)
      out = FFI::MemoryPointer.new(:pointer)
      client.check Vigie.vigie_queue_create(capacity, out, client.err)
      @handle = out.read_pointer
      @buffer, @used = FFI::MemoryPointer.new(room), FFI::MemoryPointer.new(:size_t)
      @io = IO.for_fd(Vigie.vigie_queue_fd(@handle), autoclose: false) # the descriptor is the queue's
    end

    # What is there, as much of it as the buffer takes: none when there is none.
    def drain(timeout_ms = 0)
      count = packed(timeout_ms)
      while count == BUFFER_TOO_SMALL
        @buffer = FFI::MemoryPointer.new(@used.read_uint64)
        count = packed(timeout_ms)
      end
      raise "drain gave #{count}" if count.negative?

      taken, at = [], 0
      count.times do
        taken << [@buffer.get_uint64(at + TOKEN), outcome(at)] if @buffer.get_uint32(at + KIND) == COMPLETION
        at += @buffer.get_uint64(at)
      end
      taken
    end

    def close
      Vigie.vigie_queue_free(@handle)
    end

    private

    # Only a call that may wait lets other threads run.
    def packed(timeout_ms)
      return Vigie.vigie_queue_drain(@handle, 0, @buffer, @buffer.size, @used) if timeout_ms.zero?

      Vigie.vigie_queue_wait(@handle, timeout_ms, @buffer, @buffer.size, @used)
    end

    def outcome(at)
      status, value = @buffer.get_int32(at + STATUS), Vigie.packed(@buffer, at)
      status.zero? ? value : Error.new(status, *Hash[*value].values_at('message', 'server_code'))
    end
  end
end
