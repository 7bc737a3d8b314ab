// Node through koffi: a deployment, a command, a nested reply, an error object. Arguments: libvigie.so, URI.
'use strict';
const assert = require('assert');
const koffi = require('koffi');

const [library, uri] = process.argv.slice(2);
const lib = koffi.load(library);
const DEFAULT = -2147483648;
const SERVER = -400;

for (const name of ['config', 'sentinel', 'client', 'reply', 'error']) koffi.opaque(`vigie_${name}`);
const f = Object.fromEntries(
  [
    'vigie_config *vigie_config_new(void)',
    'int32_t vigie_config_set(vigie_config *config, const char *key, const char *value, _Out_ vigie_error **err)',
    'void vigie_config_free(vigie_config *config)',
    'int32_t vigie_sentinel_create(const vigie_config *config, int64_t timeout_ms, _Out_ vigie_sentinel **out, _Out_ vigie_error **err)',
    'void vigie_sentinel_free(vigie_sentinel *sentinel)',
    'int32_t vigie_primary_for(vigie_sentinel *sentinel, const char *service, const vigie_config *overrides, _Out_ vigie_client **out, _Out_ vigie_error **err)',
    'void vigie_client_free(vigie_client *client)',
    'int32_t vigie_cmd_exec(vigie_client *client, size_t argc, const char **argv, const size_t *argvlen, uint32_t flags, int64_t timeout_ms, _Out_ vigie_reply **out, _Out_ vigie_error **err)',
    'int32_t vigie_cmds_exec(vigie_client *client, const void *commands, size_t len, uint32_t flags, int64_t timeout_ms, _Out_ vigie_reply **out, _Out_ vigie_error **err)',
    'int32_t vigie_reply_type(const vigie_reply *reply, uint32_t node)',
    'uint32_t vigie_reply_count(const vigie_reply *reply, uint32_t node)',
    'uint32_t vigie_reply_child(const vigie_reply *reply, uint32_t node, uint32_t index)',
    'void *vigie_reply_bytes(const vigie_reply *reply, uint32_t node, _Out_ size_t *len)',
    'int64_t vigie_reply_int(const vigie_reply *reply, uint32_t node, int64_t if_not)',
    'void vigie_reply_free(vigie_reply *reply)',
    'int32_t vigie_error_status(const vigie_error *error)',
    'const char *vigie_error_message(const vigie_error *error)',
    'const char *vigie_error_server_code(const vigie_error *error)',
    'void vigie_error_free(vigie_error *error)',
  ].map((prototype) => [/(vigie_\w+)\(/.exec(prototype)[1], lib.func(prototype)]),
);

// Takes what it needs out of the error object and frees it.
class VigieError extends Error {
  constructor(err) {
    super(f.vigie_error_message(err));
    this.status = f.vigie_error_status(err);
    this.code = f.vigie_error_server_code(err);
    f.vigie_error_free(err);
  }
}

// Calls with an error out-parameter behind the arguments.
function check(call, ...args) {
  const err = [null];
  if (call(...args, err) !== 0) throw new VigieError(err[0]);
}

// Calls with a handle or a reply as out-parameter too, and returns it.
function made(call, ...args) {
  const out = [null];
  check(call, ...args, out);
  return out[0];
}

function decode(reply, node = 0) {
  const kind = f.vigie_reply_type(reply, node);
  if (kind >= 10) {
    return Array.from({ length: f.vigie_reply_count(reply, node) }, (_, i) => decode(reply, f.vigie_reply_child(reply, node, i)));
  }
  if (kind === 5 || kind === 7) return Number(f.vigie_reply_int(reply, node, 0));
  if (kind === 1) return null;
  const length = [0];
  const text = f.vigie_reply_bytes(reply, node, length);
  return Buffer.from(koffi.decode(text, koffi.array('uint8_t', Number(length[0]))));
}

function taken(reply) {
  try {
    return decode(reply);
  } finally {
    f.vigie_reply_free(reply);
  }
}

const cmd = (client, ...words) => taken(made(f.vigie_cmd_exec, client, words.length, words, words.map((w) => Buffer.byteLength(w)), 0, DEFAULT));

function cmds(client, ...commands) {
  const parts = commands.map((words) => [
    Buffer.from(`*${words.length}\r\n`),
    ...words.map((w) => Buffer.concat([Buffer.from(`$${Buffer.byteLength(w)}\r\n`), Buffer.from(w), Buffer.from('\r\n')])),
  ]);
  const resp = Buffer.concat(parts.flat());
  return taken(made(f.vigie_cmds_exec, client, resp, resp.length, 0, DEFAULT));
}

const config = f.vigie_config_new();
check(f.vigie_config_set, config, 'uri', uri);
const sentinel = made(f.vigie_sentinel_create, config, 2000);
const client = made(f.vigie_primary_for, sentinel, null, null);

const text = (t) => Buffer.from(t);
const binary = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
assert.deepStrictEqual(cmd(client, 'SET', 'node:key', 'a value'), text('OK'));
assert.deepStrictEqual(cmd(client, 'GET', 'node:key'), text('a value'));
assert.deepStrictEqual(cmds(client, ['SET', 'node:key', binary], ['GET', 'node:key'])[1], binary);
const replies = cmds(client, ['DEL', 'node:list'], ['RPUSH', 'node:list', 'a', 'b', 'c'], ['LRANGE', 'node:list', '0', '-1'], ['GET', 'node:none']);
assert.deepStrictEqual(replies.slice(1), [3, [text('a'), text('b'), text('c')], null]);
assert.throws(
  () => cmd(client, 'INCR', 'node:list'),
  (error) => error.status === SERVER && error.code === 'WRONGTYPE',
);

f.vigie_config_free(config);
f.vigie_sentinel_free(sentinel); // before its client, on purpose: any order is right
f.vigie_client_free(client);
console.log('ok');
