// 100,000 submits in Node's loop, which waits for the queue's descriptor through koffi's poll. Arguments: libvigie.so, URI.
'use strict';
const koffi = require('koffi');
const vigie = require('./vigie.js');
const { run, BATCH, CAPACITY } = require('./turns.js');

vigie.load(process.argv[2]);
const client = new vigie.Client(process.argv[3]);
const queue = new vigie.Queue(client, CAPACITY);
let poll;

run(
  'libuv through koffi',
  'loop:koffi',
  {
    submit: (resp, token) => client.submit(queue, resp, token),
    drain: (take) => queue.drain(take),
    watch(readable) {
      poll = koffi.node.poll(queue.fd, { readable: true }, readable);
    },
    unwatch: () => poll.close(),
    close() {
      queue.close();
      client.close();
    },
  },
  (...words) => client.exec(...words),
);
