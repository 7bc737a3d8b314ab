# The examples and the lines at the beginning of the README do what they say.
require_relative 'kit'
require 'open3'

class ExamplesTest < Minitest::Test
  HOME = File.expand_path('..', __dir__)

  def check(name, wanted, *args)
    output, status = Open3.capture2e(RbConfig.ruby, '-W:no-experimental', '-w', "#{HOME}/examples/#{name}.rb", Kit.small.uri, *args)
    assert status.success?, output
    assert_match wanted, output
  end

  def setup = Vigie.connect(Kit.small.uri) { |redis| redis.call('FLUSHALL') }

  def test_web = check('web', /\Avisit 1\nvisit 2\n\z/)
  def test_worker = check('worker', /\Asent: letter 0\nsent: letter 1\nsent: letter 2\n\z/)
  def test_subscriber = check('subscriber', /\Anews: the first\n\z/, '1')
  def test_transaction = check('transaction', /\Aalice and bob have 70 and 30\n\z/)
  def test_event_loop = check('event_loop', /\A(answered: \d\n){10}\z/)

  def test_the_first_lines_of_the_readme
    code = File.read("#{HOME}/README.md")[/```ruby\n(.*?)```/m, 1].sub(/'redis-sentinel:.*?'/, "'#{Kit.small.uri}'")
    output, status = Open3.capture2e(RbConfig.ruby, '-w', '-e', code)
    assert status.success?, output
    assert_equal "[8, 1]\n\"8\"\n", output
  end
end
