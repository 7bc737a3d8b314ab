// 100,000 submits in Node's loop, which waits for the queue's descriptor in an N-API addon. Arguments: the addon, URI.
'use strict';
const { encode } = require('./vigie.js');
const { run, BATCH, CAPACITY } = require('./turns.js');

const addon = require(process.argv[2]);
addon.open(process.argv[3], CAPACITY, BATCH);

run(
  'libuv through an N-API addon',
  'loop:addon',
  {
    submit: addon.submit,
    drain(take) {
      const taken = addon.drain();
      for (let i = 0; i < taken.length; i += 2) take(taken[i], taken[i + 1]);
      return taken.length / 2;
    },
    watch: addon.watch,
    unwatch: addon.unwatch,
    close: addon.close,
  },
  (...words) => addon.exec(Buffer.from(encode(...words))),
);
