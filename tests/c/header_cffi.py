"""Reads the whole header with cffi and finds every function in the library. Arguments: header, library, names."""
import sys

import cffi

header, library, *names = sys.argv[1:]
ffi = cffi.FFI()
ffi.cdef(open(header).read())
vigie = ffi.dlopen(library)
for name in names:
    getattr(vigie, name)
assert ffi.sizeof("vigie_node") == 24
assert vigie.VIGIE_ERR_TIMEOUT == -103
assert ffi.string(vigie.vigie_status_name(vigie.VIGIE_ERR_TIMEOUT)) == b"VIGIE_ERR_TIMEOUT"
codes = ffi.new("vigie_status const **")
assert vigie.vigie_status_list(codes) > 30 and codes[0][0] == 0
print(ffi.string(vigie.vigie_version()).decode())
