# The vectors that all packages share: arguments, replies, errors.
require_relative 'kit'

class VectorsTest < Minitest::Test
  def argument(case_)
    kind, value = case_.first
    { 'text' => -> { value }, 'bytes' => -> { [value].pack('H*') }, 'integer' => -> { value.to_i } }.fetch(kind).call
  end

  def encode(*words) = Vigie::Core::Batch.new.tap { |list| list.call(*words) }.resp

  def test_every_command_is_encoded_as_it_should
    Kit.vectors('encode')['commands'].each do |one|
      assert_equal one['resp'], encode(*one['args'].map { |word| argument(word) }).unpack1('H*'), one['name']
    end
  end

  def test_what_is_encoded_arrives
    server = Kit.scripted
    client = Vigie::Client.new(server.uri)
    Kit.vectors('encode')['commands'].each do |one|
      words = one['args'].map { |word| argument(word) }
      assert_equal encode('VECTOR.ECHO', *words).unpack1('H*'), client.call('VECTOR.ECHO', *words), one['name']
    end
    client.close
    server.end
  end

  def test_floats_are_the_shortest_text_that_gives_the_same_bits
    Kit.vectors('encode')['floats'].each do |one|
      value = [one['bits']].pack('H*').unpack1('G')
      sent = encode(value).split("\r\n")[2]
      again = { 'inf' => Float::INFINITY, '-inf' => -Float::INFINITY }.fetch(sent) { Float(sent) }
      assert_equal one['bits'], [again].pack('G').unpack1('H*'), one['as']
      digits = ->(text) { text.downcase.split('e')[0].delete('.-').gsub(/\A0+|0+\z/, '').size }
      assert_operator digits[sent], :<=, digits[one['as']], one['as']
    end
  end

  # A value in Ruby's form, in which floats are their bits and errors their code and line.
  def expected(value)
    case value['type']
    when 'string', 'status', 'verbatim' then text([value['hex']].pack('H*'))
    when 'array', 'set', 'push' then value['items'].map { |item| expected(item) }
    when 'map' then value['entries'].to_h { |key, item| [expected(key), expected(item)] }
    when 'nested' then value['depth'].times.reduce(expected(value['value'])) { |inner, _| [inner] }
    when 'error' then [:error, value['code'], [value['hex']].pack('H*')]
    when 'int', 'bignum' then value['value'].to_i
    when 'double' then [:double, value['value'] == 'nan' ? 'nan' : value['bits']]
    when 'bool' then value['value']
    end
  end

  def text(bytes)
    bytes.force_encoding('UTF-8').valid_encoding? ? bytes : bytes.force_encoding('BINARY')
  end

  def comparable(value)
    case value
    when Vigie::Error then [:error, value.code, value.message.b]
    when Float then [:double, value.nan? ? 'nan' : [value].pack('G').unpack1('H*')]
    when Array then value.map { |item| comparable(item) }
    when Hash then value.to_h { |key, item| [comparable(key), comparable(item)] }
    else value
    end
  end

  def check_decoding(protocol, *options)
    server = Kit.scripted(*options)
    client = Vigie::Client.new(server.uri, options: { protocol: protocol })
    vectors = Kit.vectors('decode')
    vectors['replies'].select { |one| one['protocol'] == protocol }.each do |one|
      wanted, got = expected(one['value']), comparable(client.call('GET', "reply:#{one['name']}"))
      wanted.nil? ? assert_nil(got, one['name']) : assert_equal(wanted, got, one['name'])
    end
    vectors['errors'].select { |one| one['protocol'] == protocol }.each do |one|
      error = assert_raises(Vigie::Server, one['name']) { client.call('GET', "reply:#{one['name']}") }
      assert_equal one['code'], error.code
      assert_equal one['message'], error.message
    end
    vectors['refused'].select { |one| one['protocol'] == protocol }.each do |one|
      error = assert_raises(Vigie::Connection, one['name']) { client.call('GET', "reply:#{one['name']}", timeout: 30, retry: false) }
      assert_equal one['status'], "VIGIE_ERR_#{error.name}", one['name']
    end
  ensure
    client&.close(0)
    server&.end
  end

  def test_every_reply_of_protocol_3 = check_decoding(3)
  def test_every_reply_of_protocol_2 = check_decoding(2, '--resp2')

  def test_every_message
    server = Kit.scripted
    client = Vigie::Client.new(server.uri)
    pubsub = client.pubsub
    pubsub.call('SUBSCRIBE', 'any')
    assert_equal ['subscribe', 'any', 1], pubsub.next_event(60)
    Kit.vectors('decode')['pushes'].each { |one| assert_equal expected(one['value']), comparable(pubsub.next_event(60)), one['name'] }
    pubsub.close
    client.close
    server.end
  end

  def made(status, flags = 0, code = '') = Vigie::Errors.make(status, flags, 'text', code, '', -1, 0, nil)

  def test_every_status_of_the_library_has_its_class
    listed = Kit.vectors('errors')['statuses']
    assert_equal Vigie::Core.statuses.except(0), (listed.to_h { |one| [one['status'], one['name']] })
    listed.each do |one|
      assert_instance_of Vigie.const_get(one['class']), made(one['status']), one['name']
      assert_equal one['name'], "VIGIE_ERR_#{made(one['status']).name}"
    end
  end

  def test_the_classes_are_in_each_other_as_the_vectors_say
    Kit.vectors('errors')['classes'].each do |one|
      parent = one['parent'] ? Vigie.const_get(one['parent']) : StandardError
      assert_equal parent, Vigie.const_get(one['class']).superclass
    end
  end

  def test_a_status_of_a_newer_library_has_the_class_of_its_range
    Kit.vectors('errors')['ranges'].each { |one| assert_instance_of Vigie.const_get(one['class']), made(one['to']) }
  end

  def test_each_flag_is_a_question
    fields = Kit.vectors('errors')['flags']
    fields.each do |one|
      error = made(-102, one['flag'])
      assert_equal([one['field']], fields.map { |field| field['field'] }.select { |field| error.public_send("#{field}?") })
      assert_equal one['field'] == 'maybe_executed', error.is_a?(Vigie::MaybeExecuted)
    end
  end

  def test_every_known_word_of_a_server_has_its_class
    codes = Kit.vectors('errors')['server_codes']
    assert_equal codes.map { |one| one['code'] }.sort, Vigie::Errors::CODES.keys.sort
    codes.each do |one|
      assert_instance_of Vigie.const_get(one['class']), made(-400, 0, one['code'])
      assert_kind_of Vigie.const_get(one['parent']), made(-400, 0, one['code'])
    end
    assert_instance_of Vigie::Server, made(-400, 0, 'NEW')
  end
end
