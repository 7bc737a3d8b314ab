// GET of 64 bytes through koffi beside ioredis, one thread. Arguments: libvigie.so, URI, host, port. Prints rows for
// scripts/bench-languages.
'use strict';
const koffi = require('../../tests/languages/node_modules/koffi');
const vigie = require('../../tests/languages/vigie.js');

const [library, uri, host, port] = process.argv.slice(2);
const [ROUNDS, CALLS, BATCHES, WINDOW] = [9, 5000, 100, 256];
const KEY = 'bench:node';
const VALUE = Buffer.alloc(64, 'x');

let own = null;
let name = 'ioredis: not installed';
try {
  const Redis = require('ioredis');
  name = `ioredis ${require('ioredis/package.json').version}`;
  own = new Redis({ host, port: Number(port) });
} catch (error) {
  if (error.code !== 'MODULE_NOT_FOUND') throw error;
}

vigie.load(library);
const client = new vigie.Client(uri);
const queue = new vigie.Queue(client, WINDOW);
client.exec('SET', KEY, VALUE.toString());

function expect(value) {
  if (!VALUE.equals(value)) throw new Error(`a wrong answer: ${value}`);
}

async function callsByVigie(count) {
  for (let i = 0; i < count; i++) expect(client.exec('GET', KEY));
}

async function callsByOwn(count) {
  for (let i = 0; i < count; i++) expect(await own.getBuffer(KEY));
}

// At most WINDOW outstanding, in batches of half of it; the loop waits for the descriptor.
function windowByVigie(count) {
  return new Promise((resolve) => {
    let [submitted, seen] = [0, 0];
    function submit() {
      while (submitted < count && submitted - seen <= WINDOW / 2) {
        const batch = Math.min(WINDOW / 2, count - submitted);
        let resp = '';
        for (let i = 0; i < batch; i++) resp += vigie.encode('GET', KEY);
        client.submit(queue, Buffer.from(resp), submitted);
        submitted += batch;
      }
    }
    function take(token, value) {
      expect(value);
      seen++;
    }
    const poll = koffi.node.poll(queue.fd, { readable: true }, () => {
      while (queue.drain(take) > 0);
      if (seen < count) return submit();
      poll.close();
      resolve();
    });
    submit();
  });
}

async function listByVigie(count) {
  for (let done = 0; done < count; done += WINDOW) {
    let resp = '';
    for (let i = 0; i < WINDOW; i++) resp += vigie.encode('GET', KEY);
    for (const value of client.execList(Buffer.from(resp))) expect(value);
  }
}

async function pipelineByOwn(count) {
  for (let done = 0; done < count; done += WINDOW) {
    const pipe = own.pipeline();
    for (let i = 0; i < WINDOW; i++) pipe.getBuffer(KEY);
    for (const [error, value] of await pipe.exec()) {
      if (error) throw error;
      expect(value);
    }
  }
}

async function measured(run, count) {
  const [wall, cpu] = [process.hrtime.bigint(), process.cpuUsage()];
  await run(count);
  const { user, system } = process.cpuUsage(cpu);
  return [Number(process.hrtime.bigint() - wall) / 1e3 / count, (user + system) / count];
}

// Rounds in turn, so that what disturbs one disturbs the other.
async function compare(how, count, ...runs) {
  if (!own) runs.pop();
  const rows = runs.map(() => []);
  for (const run of runs) await run(2 * WINDOW);
  for (let turn = 0; turn < ROUNDS; turn++) {
    const order = runs.map((_, i) => (turn % 2 ? i : runs.length - 1 - i));
    for (const i of order) rows[i].push(await measured(runs[i], count));
  }
  const median = (values) => values.sort((a, b) => a - b)[Math.floor(ROUNDS / 2)].toFixed(2);
  const figures = rows.flatMap((taken) => [0, 1].map((column) => median(taken.map((row) => row[column]))));
  console.log(['Node, koffi', how, name, ...figures].join('\t'));
}

(async () => {
  await compare('call', CALLS, callsByVigie, callsByOwn);
  await compare('window', BATCHES * WINDOW, windowByVigie, pipelineByOwn);
  await compare('list', BATCHES * WINDOW, listByVigie, pipelineByOwn);
  if (own) own.disconnect();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
