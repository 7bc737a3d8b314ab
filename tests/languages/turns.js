// 100,000 submits beside a timer in Node's loop, for whatever tells of the queue's descriptor: loop_koffi.js, loop_addon.js.
'use strict';
const { encode } = require('./vigie.js');

const [COMMANDS, BATCH, CAPACITY, TICK_MS, BOUND_MS, PATIENCE_MS] = [100000, 256, 1000, 5, 2250, 60000];

function stop(why) {
  console.error(why);
  process.exit(1);
}

// queue: submit(bytes, token) is false when it is full; drain(take) calls take(token, value) and returns how many it took;
// watch(readable) calls readable whenever the descriptor is; unwatch() ends that. exec runs one command; the key is a new one.
function run(name, key, queue, exec) {
  const told = new Uint8Array(COMMANDS);
  let [submitted, seen, full, ticks, pause] = [0, 0, 0, 0, 0];
  const begun = performance.now();
  let lastTick = begun;

  function submit() {
    while (submitted < COMMANDS) {
      const last = Math.min(submitted + BATCH, COMMANDS);
      let resp = '';
      for (let i = submitted; i < last; i++) resp += encode('RPUSH', key, String(i));
      if (!queue.submit(Buffer.from(resp), submitted)) {
        full++;
        return;
      }
      submitted = last;
    }
  }

  // The header promises the order in which calls start, which their values show, and not that of completions.
  function take(token, value) {
    if (value !== token + 1 || told[token] !== 0) stop(`${name}: got ${value} for ${token}, which was told ${told[token]} times`);
    told[token] = 1;
    seen++;
  }

  function readable() {
    while (queue.drain(take) > 0);
    submit();
    if (seen === COMMANDS) end();
  }

  function look() {
    const now = performance.now();
    pause = Math.max(pause, now - lastTick);
    lastTick = now;
    return now - begun;
  }

  const timer = setInterval(() => {
    ticks++;
    if (look() > PATIENCE_MS) stop(`${name}: ${seen} of ${COMMANDS} after ${PATIENCE_MS} ms`);
  }, TICK_MS);

  function end() {
    const elapsed = look();
    clearInterval(timer);
    queue.unwatch();
    // What came twice would come now.
    setTimeout(() => {
      if (queue.drain(() => {}) !== 0) stop(`${name}: a completion too many`);
      const list = exec('LRANGE', key, '0', '-1');
      if (list.length !== COMMANDS || list.some((text, i) => String(text) !== String(i))) stop(`${name}: the server has another list`);
      if (pause > BOUND_MS || full === 0) stop(`${name}: stood still for ${pause} ms, the queue was full ${full} times`);
      queue.close();
      console.log(
        `${name}: ${COMMANDS} commands in ${(elapsed / 1000).toFixed(2)} s, queue full ${full} times, ${ticks} ticks, ` +
          `longest pause ${pause.toFixed(1)} ms, ok`,
      );
    }, 50);
  }

  queue.watch(readable);
  submit();
}

module.exports = { run, BATCH, CAPACITY };
