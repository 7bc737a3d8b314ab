# The version, which is the library's; scripts/versions keeps it.
module Vigie
  VERSION = '0.1.0'
end
