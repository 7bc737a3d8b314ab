"""As much of a binding as an event loop needs, through ctypes: open, exec, submit, drain. No callback, no thread.

Replies come as Python values, decoded from their nodes and data without a call per node; completions come packed, one call and one copy
for a batch of them.
"""

import ctypes as c
import struct

ptr, i32, i64, u32, u64, size = c.c_void_p, c.c_int32, c.c_int64, c.c_uint32, c.c_uint64, c.c_size_t
DEFAULT = -2147483648
QUEUE_FULL, BUFFER_TOO_SMALL = -301, -9
CALL_EACH = 1 << 5
COMPLETION = 1 << 0
# size, token, kind, status, node_count; of the root type, value, len. What is not needed here is left out.
PACKED = struct.Struct("=QQIi4xI8xB7xqQ")
ROOT = 40  # where the nodes of a packed event begin
NODE = struct.Struct("=BBHIqQ")  # type, flags, reserved, count, value, len
NULL, INT, DOUBLE, BOOL, ARRAY = 1, 5, 6, 7, 10

PROTOTYPES = {
    "vigie_config_new": (ptr, []),
    "vigie_config_set": (i32, [ptr, c.c_char_p, c.c_char_p, ptr]),
    "vigie_config_free": (None, [ptr]),
    "vigie_sentinel_create": (i32, [ptr, i64, ptr, ptr]),
    "vigie_sentinel_free": (None, [ptr]),
    "vigie_primary_for": (i32, [ptr, c.c_char_p, ptr, ptr, ptr]),
    "vigie_client_free": (None, [ptr]),
    "vigie_cmd_exec": (i32, [ptr, size, ptr, ptr, u32, i64, ptr, ptr]),
    "vigie_cmds_exec": (i32, [ptr, c.c_char_p, size, u32, i64, ptr, ptr]),
    "vigie_cmds_submit": (i32, [ptr, c.c_char_p, size, u32, i64, ptr, u64, ptr]),
    "vigie_reply_nodes": (ptr, [ptr, ptr, ptr, ptr]),
    "vigie_reply_free": (None, [ptr]),
    "vigie_error_status": (i32, [ptr]),
    "vigie_error_message": (c.c_char_p, [ptr]),
    "vigie_error_free": (None, [ptr]),
    "vigie_queue_create": (i32, [size, ptr, ptr]),
    "vigie_queue_fd": (c.c_int, [ptr]),
    "vigie_queue_drain_packed": (i32, [ptr, i64, ptr, size, ptr]),
    "vigie_queue_free": (None, [ptr]),
}


def load(path):
    """The functions of the library, with their prototypes."""
    lib = c.CDLL(path)
    for name, (result, arguments) in PROTOTYPES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class VigieError(Exception):
    """A status and a sentence."""

    def __init__(self, status, message):
        self.status = status
        super().__init__(message.decode())


def encode(*words):
    """One command as RESP."""
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%s\r\n" % (len(w), w) for w in words])


def decode(nodes, count, data, data_len):
    """A reply from its flat form: addresses of the nodes and the data, how many nodes and bytes."""
    return tree(c.string_at(nodes, 24 * count), c.string_at(data, data_len), 0)


def tree(nodes, texts, base):
    """The value of nodes whose texts begin at a place in some bytes."""
    flat = list(NODE.iter_unpack(nodes))

    def value_of(node):
        kind, _, _, children, value, length = node
        if kind >= ARRAY:
            return [value_of(child) for child in flat[value : value + children]]
        if kind in (NULL, INT, DOUBLE, BOOL):
            return scalar(kind, value)
        return texts[base + value : base + value + length]

    return value_of(flat[0])


def scalar(kind, value):
    if kind == DOUBLE:
        return struct.unpack("=d", struct.pack("=q", value))[0]
    return None if kind == NULL else value


class Client:
    """A client of the primary."""

    def __init__(self, lib, uri):
        self.lib, self.handle, self.err = lib, ptr(), ptr()
        self.reply, self.count, self.data, self.data_len = ptr(), size(), ptr(), size()
        self.outs = c.byref(self.reply), c.byref(self.err)
        self.flat = c.byref(self.count), c.byref(self.data), c.byref(self.data_len)
        config, sentinel = lib.vigie_config_new(), ptr()
        self.check(lib.vigie_config_set(config, b"uri", uri.encode(), c.byref(self.err)))
        self.check(lib.vigie_sentinel_create(config, 2000, c.byref(sentinel), c.byref(self.err)))
        self.check(lib.vigie_primary_for(sentinel, None, None, c.byref(self.handle), c.byref(self.err)))
        lib.vigie_config_free(config)
        lib.vigie_sentinel_free(sentinel)

    def check(self, status):
        """Raises what the last call left in err."""
        if status != 0:
            try:
                raise VigieError(self.lib.vigie_error_status(self.err), self.lib.vigie_error_message(self.err))
            finally:
                self.lib.vigie_error_free(self.err)

    def exec(self, *words):
        """One command and its reply; for one thread, as the out-parameters are the client's."""
        argv, lengths = ARGV[len(words)](*words), LENGTHS[len(words)](*map(len, words))
        self.check(self.lib.vigie_cmd_exec(self.handle, len(words), argv, lengths, 0, DEFAULT, *self.outs))
        return self.taken()

    def exec_list(self, resp):
        """A list of commands and the list of their replies."""
        self.check(self.lib.vigie_cmds_exec(self.handle, resp, len(resp), 0, DEFAULT, *self.outs))
        return self.taken()

    def taken(self):
        """Decodes the reply of the last call and frees it."""
        nodes = self.lib.vigie_reply_nodes(self.reply, *self.flat)
        try:
            return decode(nodes, self.count.value, self.data.value, self.data_len.value)
        finally:
            self.lib.vigie_reply_free(self.reply)

    def submit(self, queue, resp, token):
        """Each command completes by itself, with token, token + 1 and so on. False: the queue is full, nothing was taken."""
        status = self.lib.vigie_cmds_submit(
            self.handle, resp, len(resp), CALL_EACH, DEFAULT, queue.handle, token, c.byref(self.err)
        )
        if status == QUEUE_FULL:
            self.lib.vigie_error_free(self.err)
            return False
        self.check(status)
        return True

    def close(self):
        self.lib.vigie_client_free(self.handle)


ARGV = [c.c_char_p * n for n in range(8)]
LENGTHS = [size * n for n in range(8)]


class Queue:
    """Completions: (token, value), or (token, VigieError). They come through a buffer of so many bytes, which grows for a larger one."""

    def __init__(self, client, capacity, room=1 << 16):
        self.lib, self.handle = client.lib, ptr()
        client.check(self.lib.vigie_queue_create(capacity, c.byref(self.handle), c.byref(client.err)))
        self.used, self.buffer = size(), c.create_string_buffer(room)
        self.used_out = c.byref(self.used)
        self.fd = self.lib.vigie_queue_fd(self.handle)

    def drain(self, timeout_ms=0):
        """What is there, as much of it as the buffer takes: none when there is none."""
        while True:
            buffer = self.buffer
            count = self.lib.vigie_queue_drain_packed(self.handle, timeout_ms, buffer, len(buffer), self.used_out)
            if count != BUFFER_TOO_SMALL:
                break
            self.buffer = c.create_string_buffer(self.used.value)
        if count < 0:
            raise RuntimeError(f"drain gave {count}")
        return unpacked(c.string_at(buffer, self.used.value), count)

    def close(self):
        self.lib.vigie_queue_free(self.handle)


def unpacked(records, count):
    """The completions among so many packed events."""
    taken, at, head = [], 0, PACKED.unpack_from
    for _ in range(count):
        length, token, kind, status, nodes, form, value, text = head(records, at)
        texts = at + ROOT + 24 * nodes
        if kind == COMPLETION:
            if status != 0:
                value = failure(status, tree(records[at + ROOT : texts], records, texts))
            elif nodes > 1 or form >= ARRAY:
                value = tree(records[at + ROOT : texts], records, texts)
            elif form in (NULL, INT, DOUBLE, BOOL):
                value = scalar(form, value)
            else:
                value = records[texts + value : texts + value + text]
            taken.append((token, value))
        at += length
    return taken


def failure(status, told):
    """The error that a packed event tells of, as a list in which keys and values alternate."""
    return VigieError(status, dict(zip(told[::2], told[1::2]))[b"message"])
