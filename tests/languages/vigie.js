// As much of a binding as an event loop needs, through koffi: open, exec, submit, drain. No callback, no thread.
//
// Replies come as JavaScript values, texts as Buffers, decoded from the nodes and data that an event or a reply carries. koffi
// takes microseconds for a struct, so memory is copied into buffers of our own and read there.
'use strict';
const koffi = require('koffi');

const DEFAULT = -2147483648;
const QUEUE_FULL = -301;
const CALL_EACH = 1 << 5;
const COMPLETION = 1 << 0;
const EVENT_BYTES = 64; // kind 0, status 4, token 8, reply 16, error 24, nodes 32, data 40, node_count 48, data_len 56
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
  'int32_t vigie_queue_drain(void *queue, int64_t timeout_ms, void *events, uint32_t capacity)',
  'void vigie_queue_free(void *queue)',
  'void vigie_events_clear(void *events, size_t count)',
];

let f;
let copy; // (to, address, bytes)

function load(path) {
  const lib = koffi.load(path);
  f = Object.fromEntries(PROTOTYPES.map((prototype) => [/(vigie_\w+)\(/.exec(prototype)[1], lib.func(prototype)]));
  copy = koffi.load(null).func('void memcpy(void *to, uint64_t from, size_t bytes)');
}

// What an error object said; the object stays its owner's.
class VigieError extends Error {
  constructor(err) {
    super(f.vigie_error_message(err));
    this.status = f.vigie_error_status(err);
  }
}

// One command as RESP; words are texts.
function encode(...words) {
  let resp = `*${words.length}\r\n`;
  for (const word of words) resp += `$${Buffer.byteLength(word)}\r\n${word}\r\n`;
  return resp;
}

const number = (buffer, at) => buffer.readUInt32LE(at) + buffer.readInt32LE(at + 4) * 4294967296;

const one = Buffer.allocUnsafeSlow(NODE_BYTES);

// A reply from its flat form: addresses of the nodes and the data as BigInts, how many nodes and bytes. Its texts share one buffer.
function decode(nodes, count, data, dataLength) {
  const flat = count === 1 ? one : Buffer.allocUnsafe(NODE_BYTES * count);
  const texts = Buffer.allocUnsafe(dataLength);
  copy(flat, nodes, NODE_BYTES * count);
  if (dataLength > 0) copy(texts, data, dataLength);
  return valueOf(flat, 0, texts);
}

function valueOf(flat, at, texts) {
  const kind = flat[at];
  const value = number(flat, at + 8);
  if (kind === INT) return value;
  if (kind === NULL) return null;
  if (kind === BOOL) return value !== 0;
  if (kind === DOUBLE) return flat.readDoubleLE(at + 8);
  if (kind >= ARRAY) {
    return Array.from({ length: flat.readUInt32LE(at + 4) }, (_, i) => valueOf(flat, (value + i) * NODE_BYTES, texts));
  }
  return texts.subarray(value, value + number(flat, at + 16));
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
    const error = new VigieError(this.err[0]);
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

// Completions, as calls of take(token, value), where the value may be a VigieError.
class Queue {
  constructor(client, capacity, room) {
    const out = cells(1);
    client.check(f.vigie_queue_create(capacity, out, client.err));
    this.handle = out[0];
    this.room = room;
    this.bytes = Buffer.allocUnsafeSlow(EVENT_BYTES * room);
    this.words = new BigUint64Array(this.bytes.buffer);
    this.fd = f.vigie_queue_fd(this.handle);
  }

  // What is there, at most as much as there is room for; returns how much: if it is as much, there may be more. It does not wait.
  drain(take) {
    const count = f.vigie_queue_drain(this.handle, 0, this.bytes, this.room);
    if (count < 0) throw new Error(`drain gave ${count}`);
    if (count === 0) return 0;
    for (let i = 0; i < count; i++) {
      const at = EVENT_BYTES * i;
      if (this.bytes.readUInt32LE(at) !== COMPLETION) continue;
      const failed = this.bytes.readInt32LE(at + 4) !== 0;
      const value = failed
        ? new VigieError(this.words[8 * i + 3])
        : decode(this.words[8 * i + 4], number(this.bytes, at + 48), this.words[8 * i + 5], number(this.bytes, at + 56));
      take(number(this.bytes, at + 8), value);
    }
    f.vigie_events_clear(this.bytes, count);
    return count;
  }

  close() {
    f.vigie_queue_free(this.handle);
  }
}

module.exports = { load, encode, Client, Queue, VigieError };
