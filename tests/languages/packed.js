// Completions of every kind through a packed drain, with a buffer that has to grow. Arguments: libvigie.so, URI.
'use strict';
const assert = require('assert');
const koffi = require('koffi');
const vigie = require('./vigie.js');

vigie.load(process.argv[2]);
const client = new vigie.Client(process.argv[3]);
const queue = new vigie.Queue(client, 16, 64);
const text = (value) => Buffer.from(value);
const large = 'x'.repeat(100000);
const script = "return {1, {'two', {}}, false}";
const commands = [
  ['SET', 'packed', large],
  ['GET', 'packed'],
  ['INCR', 'packed'],
  ['GET', 'packed:none'],
  ['EVAL', script, '0'],
  ['STRLEN', 'packed'],
  ['EVAL', 'return {}', '0'],
];
const taken = [];
const poll = koffi.node.poll(queue.fd, { readable: true }, () => {
  while (queue.drain((token, value) => taken.push([token, value])) > 0);
  if (taken.length < commands.length) return;
  poll.close();
  const [[token, error]] = taken.splice(2, 1);
  assert.deepStrictEqual([token, error.status, error.message.slice(0, 4)], [5, -400, 'ERR ']);
  const wanted = [[3, text('OK')], [4, text(large)], [6, null], [7, [1, [text('two'), []], null]], [8, large.length], [9, []]];
  assert.deepStrictEqual(taken, wanted);
  queue.close();
  client.close();
  console.log('ok');
});
client.submit(queue, Buffer.from(commands.map((words) => vigie.encode(...words)).join('')), 3);
