"""Python through ctypes: a deployment, a command, a nested reply, an error object. Arguments: libvigie.so, URI."""

import ctypes as c
import sys

lib = c.CDLL(sys.argv[1])
ptr, i64, u32, size = c.c_void_p, c.c_int64, c.c_uint32, c.c_size_t
DEFAULT = -2147483648
SERVER = -400

PROTOTYPES = {
    "vigie_config_new": (ptr, []),
    "vigie_config_set": (c.c_int32, [ptr, c.c_char_p, c.c_char_p, c.POINTER(ptr)]),
    "vigie_config_free": (None, [ptr]),
    "vigie_sentinel_create": (c.c_int32, [ptr, i64, c.POINTER(ptr), c.POINTER(ptr)]),
    "vigie_sentinel_free": (None, [ptr]),
    "vigie_primary_for": (c.c_int32, [ptr, c.c_char_p, ptr, c.POINTER(ptr), c.POINTER(ptr)]),
    "vigie_client_free": (None, [ptr]),
    "vigie_cmd_exec": (
        c.c_int32,
        [ptr, size, c.POINTER(c.c_char_p), c.POINTER(size), u32, i64, c.POINTER(ptr), c.POINTER(ptr)],
    ),
    "vigie_cmds_exec": (c.c_int32, [ptr, c.c_char_p, size, u32, i64, c.POINTER(ptr), c.POINTER(ptr)]),
    "vigie_reply_type": (c.c_int32, [ptr, u32]),
    "vigie_reply_count": (u32, [ptr, u32]),
    "vigie_reply_child": (u32, [ptr, u32, u32]),
    "vigie_reply_bytes": (ptr, [ptr, u32, c.POINTER(size)]),
    "vigie_reply_int": (i64, [ptr, u32, i64]),
    "vigie_reply_free": (None, [ptr]),
    "vigie_error_status": (c.c_int32, [ptr]),
    "vigie_error_message": (c.c_char_p, [ptr]),
    "vigie_error_server_code": (c.c_char_p, [ptr]),
    "vigie_error_free": (None, [ptr]),
}
for name, (result, arguments) in PROTOTYPES.items():
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments


class VigieError(Exception):
    """Takes what it needs out of the error object and frees it."""

    def __init__(self, err):
        self.status = lib.vigie_error_status(err)
        self.code = lib.vigie_error_server_code(err).decode()
        super().__init__(lib.vigie_error_message(err).decode())
        lib.vigie_error_free(err)


def check(function, *arguments):
    """Calls with an error out-parameter behind the arguments."""
    err = ptr()
    if function(*arguments, c.byref(err)) != 0:
        raise VigieError(err)


def decode(reply, node=0):
    kind = lib.vigie_reply_type(reply, node)
    if kind in (10, 11, 12, 13):
        return [decode(reply, lib.vigie_reply_child(reply, node, i)) for i in range(lib.vigie_reply_count(reply, node))]
    if kind in (5, 7):
        return lib.vigie_reply_int(reply, node, 0)
    if kind == 1:
        return None
    length = size()
    text = lib.vigie_reply_bytes(reply, node, c.byref(length))
    return c.string_at(text, length.value)


def taken(reply):
    """Decodes a reply and frees it."""
    try:
        return decode(reply)
    finally:
        lib.vigie_reply_free(reply)


def cmd(client, *words):
    reply = ptr()
    lengths = (size * len(words))(*map(len, words))
    check(lib.vigie_cmd_exec, client, len(words), (c.c_char_p * len(words))(*words), lengths, 0, DEFAULT, c.byref(reply))
    return taken(reply)


def cmds(client, *commands):
    resp = b"".join(
        b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words) for words in commands
    )
    reply = ptr()
    check(lib.vigie_cmds_exec, client, resp, len(resp), 0, DEFAULT, c.byref(reply))
    return taken(reply)


def expect(got, wanted):
    if got != wanted:
        sys.exit(f"got {got!r}, wanted {wanted!r}")


config, sentinel, client = lib.vigie_config_new(), ptr(), ptr()
check(lib.vigie_config_set, config, b"uri", sys.argv[2].encode())
check(lib.vigie_sentinel_create, config, 2000, c.byref(sentinel))
check(lib.vigie_primary_for, sentinel, None, None, c.byref(client))

binary = bytes(range(256))
expect(cmd(client, b"SET", b"python:key", binary), b"OK")
expect(cmd(client, b"GET", b"python:key"), binary)
expect(
    cmds(
        client,
        (b"DEL", b"python:list"),
        (b"RPUSH", b"python:list", b"a", b"b", b""),
        (b"LRANGE", b"python:list", b"0", b"-1"),
        (b"GET", b"python:none"),
    )[1:],
    [3, [b"a", b"b", b""], None],
)
try:
    cmd(client, b"INCR", b"python:list")
    sys.exit("INCR of a list gave no error")
except VigieError as error:
    expect((error.status, error.code), (SERVER, "WRONGTYPE"))

lib.vigie_config_free(config)
lib.vigie_sentinel_free(sentinel)  # before its client, on purpose: any order is right
lib.vigie_client_free(client)
print("ok")
