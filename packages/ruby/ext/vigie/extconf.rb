# Makes the Makefile of the extension: finds the library, prefers its archive, and exports the entry alone.
#
# The library is the one in --with-vigie-dir=PREFIX (or VIGIE_DIR), or the one that pkg-config finds. Nothing is downloaded.
require 'mkmf'

def library_missing
  abort <<~TEXT
    vigie: the library is missing. The gem from source needs libvigie with its header and a C compiler: install the library (make install), then
      gem install vigie -- --with-vigie-dir=PREFIX
    or let pkg-config find vigie.pc. The gem for your platform, if there is one, has the library inside.
  TEXT
end

prefix = with_config('vigie-dir') || ENV['VIGIE_DIR']
if prefix
  include_dir = File.join(prefix, 'include')
  lib_dir = File.join(prefix, 'lib')
elsif find_executable('pkg-config') && system('pkg-config --exists vigie')
  include_dir = `pkg-config --variable=includedir vigie`.strip
  lib_dir = `pkg-config --variable=libdir vigie`.strip
end
library_missing unless include_dir && File.exist?(File.join(include_dir, 'vigie.h'))

$INCFLAGS << " -I#{include_dir}"
$CFLAGS << ' -std=gnu11 -Wall -Wextra -Wno-unused-parameter -Wno-declaration-after-statement -Werror=implicit-function-declaration -fvisibility=hidden'
archive = File.join(lib_dir, 'libvigie.a')
if File.exist?(archive)
  $LOCAL_LIBS << " #{archive} -lpthread -ldl -lm"
  # The archive's own names stay inside.
  $DLDFLAGS << ' -Wl,--exclude-libs,ALL' if RUBY_PLATFORM.include?('linux')
  # The Ruby that loads the extension has these names; a Ruby without a shared library has no file to name.
  $LIBRUBYARG = ''
else
  $LIBPATH << lib_dir
  have_library('vigie', 'vigie_version') or library_missing
end
create_makefile('vigie/vigie')
