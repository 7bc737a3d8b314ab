# Ruby through ffi: a deployment, a command, a nested reply by the functions for nodes, an error object. Arguments: libvigie.so, URI.
require_relative 'vigie'

module Vigie
  load(ARGV[0])
  attach_function :vigie_reply_type, %i[pointer uint32], :int32
  attach_function :vigie_reply_count, %i[pointer uint32], :uint32
  attach_function :vigie_reply_child, %i[pointer uint32 uint32], :uint32
  attach_function :vigie_reply_bytes, %i[pointer uint32 pointer], :pointer
  attach_function :vigie_reply_int, %i[pointer uint32 int64], :int64
end

SERVER = -400

# Reads replies node by node, with a call for each.
class Stepwise < Vigie::Client
  def taken
    reply = @out.read_pointer
    step(reply, 0)
  ensure
    Vigie.vigie_reply_free(reply)
  end

  private

  def step(reply, node)
    case Vigie.vigie_reply_type(reply, node)
    when 10..13
      Array.new(Vigie.vigie_reply_count(reply, node)) { |i| step(reply, Vigie.vigie_reply_child(reply, node, i)) }
    when 5, 7 then Vigie.vigie_reply_int(reply, node, 0)
    when 1 then nil
    else
      length = FFI::MemoryPointer.new(:size_t)
      text = Vigie.vigie_reply_bytes(reply, node, length)
      text.read_bytes(length.read(:size_t))
    end
  end
end

def expect(got, wanted)
  abort "got #{got.inspect}, wanted #{wanted.inspect}" unless got == wanted
end

client = Stepwise.new(ARGV[1])
binary = (0..255).to_a.pack('C*')
expect client.exec('SET', 'ruby:key', binary), 'OK'
expect client.exec('GET', 'ruby:key'), binary
lists = [%w[DEL ruby:list], ['RPUSH', 'ruby:list', 'a', 'b', ''], %w[LRANGE ruby:list 0 -1], %w[GET ruby:none]]
expect client.exec_list(lists.map { |words| Vigie.encode(*words) }.join).drop(1), [3, ['a', 'b', ''], nil]
begin
  client.exec('INCR', 'ruby:list')
  abort 'INCR of a list gave no error'
rescue Vigie::Error => e
  expect [e.status, e.code], [SERVER, 'WRONGTYPE']
end
client.close
puts 'ok'
