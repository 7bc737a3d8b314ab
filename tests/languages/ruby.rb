# Ruby through ffi: a deployment, a command, a nested reply, an error object. Arguments: libvigie.so, URI.
require 'ffi'

module Vigie
  extend FFI::Library
  ffi_lib ARGV[0]
  DEFAULT = -2_147_483_648
  SERVER = -400

  attach_function :vigie_config_new, [], :pointer
  attach_function :vigie_config_set, %i[pointer string string pointer], :int32
  attach_function :vigie_config_free, [:pointer], :void
  attach_function :vigie_sentinel_create, %i[pointer int64 pointer pointer], :int32, blocking: true
  attach_function :vigie_sentinel_free, [:pointer], :void
  attach_function :vigie_primary_for, %i[pointer string pointer pointer pointer], :int32
  attach_function :vigie_client_free, [:pointer], :void
  attach_function :vigie_cmd_exec, %i[pointer size_t pointer pointer uint32 int64 pointer pointer], :int32, blocking: true
  attach_function :vigie_cmds_exec, %i[pointer buffer_in size_t uint32 int64 pointer pointer], :int32, blocking: true
  attach_function :vigie_reply_type, %i[pointer uint32], :int32
  attach_function :vigie_reply_count, %i[pointer uint32], :uint32
  attach_function :vigie_reply_child, %i[pointer uint32 uint32], :uint32
  attach_function :vigie_reply_bytes, %i[pointer uint32 pointer], :pointer
  attach_function :vigie_reply_int, %i[pointer uint32 int64], :int64
  attach_function :vigie_reply_free, [:pointer], :void
  attach_function :vigie_error_status, [:pointer], :int32
  attach_function :vigie_error_message, [:pointer], :string
  attach_function :vigie_error_server_code, [:pointer], :string
  attach_function :vigie_error_free, [:pointer], :void

  # Takes what it needs out of the error object and frees it.
  class Error < StandardError
    attr_reader :status, :code

    def initialize(err)
      @status = Vigie.vigie_error_status(err)
      @code = Vigie.vigie_error_server_code(err)
      super(Vigie.vigie_error_message(err))
      Vigie.vigie_error_free(err)
    end
  end

  module_function

  # Calls with an error out-parameter behind the arguments.
  def check(function, *arguments)
    err = FFI::MemoryPointer.new(:pointer)
    status = public_send(function, *arguments, err)
    raise Error, err.read_pointer if status != 0
  end

  # Calls with a handle or a reply as out-parameter too, and returns it.
  def made(function, *arguments)
    out = FFI::MemoryPointer.new(:pointer)
    check(function, *arguments, out)
    out.read_pointer
  end

  def decode(reply, node = 0)
    case vigie_reply_type(reply, node)
    when 10..13 then Array.new(vigie_reply_count(reply, node)) { |i| decode(reply, vigie_reply_child(reply, node, i)) }
    when 5, 7 then vigie_reply_int(reply, node, 0)
    when 1 then nil
    else
      length = FFI::MemoryPointer.new(:size_t)
      text = vigie_reply_bytes(reply, node, length)
      text.read_bytes(length.read(:size_t))
    end
  end

  def taken(reply)
    decode(reply)
  ensure
    vigie_reply_free(reply)
  end

  def cmd(client, *words)
    texts = words.map { |w| FFI::MemoryPointer.new(:char, [w.bytesize, 1].max).put_bytes(0, w) }
    argv = FFI::MemoryPointer.new(:pointer, words.size).write_array_of_pointer(texts)
    lengths = FFI::MemoryPointer.new(:size_t, words.size).put_array_of_ulong(0, words.map(&:bytesize))
    taken(made(:vigie_cmd_exec, client, words.size, argv, lengths, 0, DEFAULT))
  end

  def cmds(client, *commands)
    resp = commands.map { |ws| "*#{ws.size}\r\n" + ws.map { |w| "$#{w.bytesize}\r\n#{w}\r\n" }.join }.join
    taken(made(:vigie_cmds_exec, client, resp, resp.bytesize, 0, DEFAULT))
  end
end

def expect(got, wanted)
  abort "got #{got.inspect}, wanted #{wanted.inspect}" unless got == wanted
end

config = Vigie.vigie_config_new
Vigie.check(:vigie_config_set, config, 'uri', ARGV[1])
sentinel = Vigie.made(:vigie_sentinel_create, config, 2000)
client = Vigie.made(:vigie_primary_for, sentinel, nil, nil)

binary = (0..255).to_a.pack('C*')
expect Vigie.cmd(client, 'SET', 'ruby:key', binary), 'OK'
expect Vigie.cmd(client, 'GET', 'ruby:key'), binary
replies = Vigie.cmds(client, %w[DEL ruby:list], ['RPUSH', 'ruby:list', 'a', 'b', ''], %w[LRANGE ruby:list 0 -1], %w[GET ruby:none])
expect replies.drop(1), [3, ['a', 'b', ''], nil]
begin
  Vigie.cmd(client, 'INCR', 'ruby:list')
  abort 'INCR of a list gave no error'
rescue Vigie::Error => e
  expect [e.status, e.code], [Vigie::SERVER, 'WRONGTYPE']
end

Vigie.vigie_config_free(config)
Vigie.vigie_sentinel_free(sentinel) # before its client, on purpose: any order is right
Vigie.vigie_client_free(client)
puts 'ok'
