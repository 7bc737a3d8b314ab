// As much of a binding as an event loop needs, through koffi: open, exec, submit, drain. No callback, no thread.
//
// Replies come as JavaScript values, texts as Buffers, decoded from their nodes and data. koffi takes microseconds for a struct, so
// memory is copied into buffers of our own and read there; completions come packed into such a buffer, one call for a batch of them.
'use strict';
const koffi = require('koffi');

const DEFAULT = -2147483648;
const [QUEUE_FULL, BUFFER_TOO_SMALL] = [-301, -9];
const CALL_EACH = 1 << 5;
const COMPLETION = 1 << 0;
const [TOKEN, KIND, STATUS, NODE_COUNT, ROOT] = [8, 16, 20, 28, 40]; // of a packed event: its fields, and where its nodes begin
const NODE_BYTES = 24; // type 0, count 4, value 8, len 16
const [NULL, INT, DOUBLE, BOOL, ARRAY] = [1, 5, 6, 7, 10];

const PROTOTYPES = [
  'void *vigie_config_new(void)',
  'int32_t vigie_config_set(void *config, const char *key, const char *value, void *err)',
  'void vigie_config_free(void *config)',
  'int32_t vigie_sentinel_create(void *config, int64_t timeout_ms, void *out, void *err)',
  'void vigie_sentinel_free(void *sentinel)',
  'int32_t vigie_primary_for(void *sentinel, const char *service, void *overrides, void *out, void *err)',
  'void vigie_client_free(void *client)',
  'int32_t vigie_cmd_exec(void *client, size_t argc, void *argv, void *argvlen, uint32_t flags, int64_t timeout_ms, void *out, void *err)',
  'int32_t vigie_cmds_exec(void *client, void *commands, size_t len, uint32_t flags, int64_t timeout_ms, void *out, void *err)',
  'int32_t vigie_cmds_submit(void *client, void *commands, size_t len, uint32_t flags, int64_t timeout_ms, void *queue, uint64_t token, void *err)',
  'uint64_t vigie_reply_nodes(uint64_t reply, void *node_count, void *data, void *data_len)',
  'void vigie_reply_free(uint64_t reply)',
  'int32_t vigie_error_status(uint64_t error)',
  'const char *vigie_error_message(uint64_t error)',
  'void vigie_error_free(uint64_t error)',
  'int32_t vigie_queue_create(size_t capacity, void *out, void *err)',
  'int vigie_queue_fd(void *queue)',
  'int32_t vigie_queue_drain_packed(void *queue, int64_t timeout_ms, void *buf, size_t buf_len, void *used)',
  'void vigie_queue_free(void *queue)',
];

let f;
let copy; // (to, address, bytes)

function load(path) {
  const lib = koffi.load(path);
  f = Object.fromEntries(PROTOTYPES.map((prototype) => [/(vigie_\w+)\(/.exec(prototype)[1], lib.func(prototype)]));
  copy = koffi.load(null).func('void memcpy(void *to, uint64_t from, size_t bytes)');
}

// A status and a sentence.
class VigieError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// One command as RESP; words are texts.
function encode(...words) {
  let resp = `*${words.length}\r\n`;
  for (const word of words) resp += `$${Buffer.byteLength(word)}\r\n${word}\r\n`;
  return resp;
}

// A DataView reads a number in half the time that a Buffer takes.
const view = (buffer) => new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
const number = (seen, at) => seen.getUint32(at, true) + seen.getInt32(at + 4, true) * 4294967296;

const one = Buffer.allocUnsafeSlow(NODE_BYTES);
const oneSeen = view(one);

// A reply from its flat form: addresses of the nodes and the data as BigInts, how many nodes and bytes. Its texts share one buffer.
function decode(nodes, count, data, dataLength) {
  const flat = count === 1 ? one : Buffer.allocUnsafe(NODE_BYTES * count);
  const texts = Buffer.allocUnsafe(dataLength);
  copy(flat, nodes, NODE_BYTES * count);
  if (dataLength > 0) copy(texts, data, dataLength);
  return valueOf(count === 1 ? oneSeen : view(flat), 0, 0, texts, 0);
}

// The value of a node, where the nodes and the texts begin at a place each.
function valueOf(flat, root, at, texts, base) {
  const kind = flat.getUint8(at);
  const value = number(flat, at + 8);
  if (kind === INT) return value;
  if (kind === NULL) return null;
  if (kind === BOOL) return value !== 0;
  if (kind === DOUBLE) return flat.getFloat64(at + 8, true);
  if (kind >= ARRAY) {
    const child = (_, i) => valueOf(flat, root, root + (value + i) * NODE_BYTES, texts, base);
    return Array.from({ length: flat.getUint32(at + 4, true) }, child);
  }
  return texts.subarray(base + value, base + value + number(flat, at + 16));
}

// Memory for out-parameters, seen as 64-bit numbers.
const cells = (count) => new BigUint64Array(count);

// A client of the primary; exec is for one thread, as the out-parameters are the client's.
class Client {
  constructor(uri) {
    this.out = cells(1);
    this.err = cells(1);
    this.count = cells(1);
    this.data = cells(1);
    this.dataLength = cells(1);
    this.argv = cells(8); // of up to eight words
    this.lengths = cells(8);
    this.words = Buffer.allocUnsafeSlow(4096);
    this.base = koffi.address(this.words);
    const config = f.vigie_config_new();
    this.check(f.vigie_config_set(config, 'uri', uri, this.err));
    this.check(f.vigie_sentinel_create(config, 2000, this.out, this.err));
    const sentinel = this.out[0];
    this.check(f.vigie_primary_for(sentinel, null, null, this.out, this.err));
    this.handle = this.out[0];
    f.vigie_config_free(config);
    f.vigie_sentinel_free(sentinel);
  }

  // Throws what the last call left in err.
  check(status) {
    if (status === 0) return;
    const error = new VigieError(status, f.vigie_error_message(this.err[0]));
    f.vigie_error_free(this.err[0]);
    throw error;
  }

  // One command of up to eight words, 4096 bytes in all, and its reply.
  exec(...words) {
    let end = 0;
    for (let i = 0; i < words.length; i++) {
      const length = this.words.write(words[i], end);
      this.argv[i] = this.base + BigInt(end);
      this.lengths[i] = BigInt(length);
      end += length;
    }
    this.check(f.vigie_cmd_exec(this.handle, words.length, this.argv, this.lengths, 0, DEFAULT, this.out, this.err));
    return this.taken();
  }

  // A list of commands and the list of their replies.
  execList(resp) {
    this.check(f.vigie_cmds_exec(this.handle, resp, resp.length, 0, DEFAULT, this.out, this.err));
    return this.taken();
  }

  // Decodes the reply of the last call and frees it.
  taken() {
    const nodes = f.vigie_reply_nodes(this.out[0], this.count, this.data, this.dataLength);
    try {
      return decode(nodes, Number(this.count[0]), this.data[0], Number(this.dataLength[0]));
    } finally {
      f.vigie_reply_free(this.out[0]);
    }
  }

  // Each command completes by itself, with token, token + 1 and so on. False: the queue is full, nothing was taken.
  submit(queue, resp, token) {
    const status = f.vigie_cmds_submit(this.handle, resp, resp.length, CALL_EACH, DEFAULT, queue.handle, token, this.err);
    if (status === QUEUE_FULL) {
      f.vigie_error_free(this.err[0]);
      return false;
    }
    this.check(status);
    return true;
  }

  close() {
    f.vigie_client_free(this.handle);
  }
}

// Completions, as calls of take(token, value), where the value may be a VigieError. They come through a buffer of so many bytes, which
// grows for a larger one.
class Queue {
  constructor(client, capacity, room = 1 << 16) {
    const out = cells(1);
    client.check(f.vigie_queue_create(capacity, out, client.err));
    this.handle = out[0];
    this.used = cells(1);
    this.buffer = Buffer.allocUnsafeSlow(room);
    this.fd = f.vigie_queue_fd(this.handle);
  }

  // What is there, as much of it as the buffer takes; returns how much: 0 when there is none. It does not wait. The texts of a drain
  // share one buffer.
  drain(take) {
    const count = f.vigie_queue_drain_packed(this.handle, 0, this.buffer, this.buffer.length, this.used);
    if (count === BUFFER_TOO_SMALL) {
      this.buffer = Buffer.allocUnsafeSlow(Number(this.used[0]));
      return this.drain(take);
    }
    if (count < 0) throw new Error(`drain gave ${count}`);
    const records = Buffer.allocUnsafe(Number(this.used[0]));
    this.buffer.copy(records, 0, 0, records.length);
    const seen = view(records);
    for (let i = 0, at = 0; i < count; i++, at += number(seen, at)) {
      if (seen.getUint32(at + KIND, true) !== COMPLETION) continue;
      const root = at + ROOT;
      const value = valueOf(seen, root, root, records, root + NODE_BYTES * seen.getUint32(at + NODE_COUNT, true));
      const status = seen.getInt32(at + STATUS, true);
      take(number(seen, at + TOKEN), status === 0 ? value : failure(status, value));
    }
    return count;
  }

  close() {
    f.vigie_queue_free(this.handle);
  }
}

// The error of a packed event, whose value is a list in which keys and values alternate.
function failure(status, told) {
  return new VigieError(status, told[told.findIndex((key) => String(key) === 'message') + 1].toString());
}

module.exports = { load, encode, Client, Queue, VigieError };
