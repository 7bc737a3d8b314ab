# Two gems come of this: the one from source, whose extension is compiled where it is installed, and with VIGIE_GEM_PLATFORM the one that has
# the extension of this Ruby inside. packages/ruby/build lays out the files for both.
Gem::Specification.new do |spec|
  spec.name = 'vigie'
  spec.version = '0.1.0'
  spec.summary = 'Redis and Valkey under Sentinel: follows failovers, and says what happened to every command'
  spec.description = 'A client with the library inside, blocking and for fibers, and a driver for redis-client, redis-rb and Sidekiq.'
  spec.authors = ['the vigie authors']
  spec.licenses = ['Apache-2.0', 'MIT']
  spec.required_ruby_version = '>= 3.1'
  spec.require_paths = ['lib']
  spec.files = Dir['lib/**/*.{rb,so}', 'ext/**/*.{rb,c,h}', 'sig/*.rbs', 'examples/*.rb', 'README.md', 'CHANGELOG.md', 'LICENSE', 'THIRD-PARTY']
  spec.extra_rdoc_files = ['README.md']
  spec.rdoc_options = ['--main', 'README.md', '--exclude', 'ext/']
  if ENV['VIGIE_GEM_PLATFORM']
    spec.platform = ENV['VIGIE_GEM_PLATFORM']
    abi = RbConfig::CONFIG['ruby_version'][/\d+\.\d+/]
    spec.required_ruby_version = [">= #{abi}", "< #{abi.succ}.dev"]
    spec.files -= Dir['ext/**/*']
  else
    spec.extensions = ['ext/vigie/extconf.rb']
  end
end
