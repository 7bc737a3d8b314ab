# The package as it was installed: what the gem holds, what the extension shows and needs, what is documented.
require_relative 'kit'
require 'open3'
require 'rubygems/package'

class PackageTest < Minitest::Test
  OUT = ENV.fetch('VIGIE_OUT')
  EXTENSION = $LOADED_FEATURES.grep(%r{/vigie\.so\z}).first

  def test_one_version_everywhere
    cargo = File.read("#{Kit::PACKAGES}/../Cargo.toml")[/^version = "(.*)"/, 1]
    assert_equal [cargo] * 3, [Vigie::VERSION, Vigie::Core.version, Gem.loaded_specs['vigie'].version.to_s]
  end

  def test_it_runs_from_the_gem_and_not_from_the_sources
    assert($LOADED_FEATURES.grep(%r{/vigie/(client|errors)\.rb\z}).all? { |file| file.start_with?(ENV.fetch('GEM_HOME')) })
    assert EXTENSION.start_with?(ENV.fetch('GEM_HOME'))
  end

  def test_both_gems_have_the_licences_and_the_types
    gems = Dir["#{OUT}/vigie-*.gem"]
    assert_equal 2, gems.size
    gems.each do |file|
      names = Gem::Package.new(file).contents
      assert_empty %w[LICENSE THIRD-PARTY README.md CHANGELOG.md sig/vigie.rbs lib/vigie/redis_client.rb] - names, file
      assert_equal File.basename(file).end_with?('linux.gem'), names.any? { |name| name.end_with?('.so') }
    end
  end

  def test_the_extension_shows_its_entry_alone_and_needs_only_the_c_library
    table, = Open3.capture2('objdump', '-T', EXTENSION)
    shown = table.lines.drop(4).reject { |line| line.include?('*UND*') || line.strip.empty? }.map { |line| line.split.last }
    assert_equal ['Init_vigie'], shown
    # What no library of the C world has is Ruby's.
    missing = table.lines.grep(/\*UND\*/).reject { |line| line =~ /GLIBC|GCC| w / }.map { |line| line.split.last }
    assert_empty missing.grep_v(/\A(rb_|ruby_|onig)/)
    headers, = Open3.capture2('objdump', '-p', EXTENSION)
    needed = headers.scan(/NEEDED +(\S+)\.so/).flatten
    assert_empty needed - %w[libc libm libgcc_s libpthread libdl ld-linux-x86-64 ld-linux-aarch64]
    refute_match(/R(UN)?PATH/, headers)
  end

  def test_the_types_are_valid_and_name_what_is_there
    signature = File.expand_path('../sig', __dir__)
    program = 'begin; require "rbs"; require "rbs/cli"; rescue LoadError; exit 3; end; ' \
              'RBS::CLI.new(stdout: $stdout, stderr: $stderr).run(["-I", ARGV[0], "validate", "--silent"])'
    said, status = Open3.capture2e({ 'GEM_HOME' => nil, 'GEM_PATH' => nil }, RbConfig.ruby, '-e', program, signature)
    puts 'skipped: rbs is not installed: the types are not checked' if status.exitstatus == 3
    assert_includes [0, 3], status.exitstatus, said
    owner = nil
    File.foreach("#{signature}/vigie.rbs") do |line|
      owner = Vigie.const_get(Regexp.last_match(1)) if line =~ /^  (?:class|module) (\w+)/
      owner = nil if line.start_with?('  interface')
      name = line[/^    def (?!self)([\w?=]+):/, 1]
      next if name.nil? || owner.nil? || owner == Vigie::Commands

      assert owner.method_defined?(name) || owner.private_method_defined?(name), "#{owner}##{name} is in the types alone"
    end
  end

  def test_the_gem_from_source_is_compiled_with_the_library_that_is_installed
    skip 'compiles the extension' if Kit::QUICK
    home = "#{OUT}/work/from-source"
    source = "#{OUT}/vigie-#{Vigie::VERSION}.gem"
    environment = { 'GEM_HOME' => home, 'GEM_PATH' => home }
    output, status = Open3.capture2e(environment, RbConfig.ruby, '-S', 'gem', 'install', '--local', '--no-document', source, '--',
                                     "--with-vigie-dir=#{ENV.fetch('VIGIE_PREFIX')}")
    assert status.success?, output
    said, = Open3.capture2e(environment, RbConfig.ruby, '-e', 'require "vigie"; puts Vigie::Core.version')
    assert_equal Vigie::VERSION, said.strip
  end
end
