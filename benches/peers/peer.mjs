// What the Node peers share: the protocol with the bench (README.md), and the request that is signed.
// Two processes work, as on two cores they should; their parent counts what they have sent.

import { fork } from 'node:child_process';
import { createHmac, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const PROCESSES = Number(process.env.PROCESSES ?? 2);
/** A worker says what it has done at the latest after so many requests, and when it runs dry. */
const TELL_EVERY = 100;
/** Events added in one call of the queue's own way of adding many. */
const BATCH = 1000;

/** What outboxd's envelope `standard` makes of an event; here the payload of a job. */
function event({ type, data }) {
  return { id: randomUUID(), type, timestamp: new Date().toISOString(), tenant_id: 'default', data };
}

/**
 * The parent: `install` makes the schema, `add` enqueues events, `settled` tells whether the database knows all of them
 * done. It ends when its standard input does, so that connections stay until the bench has read what they cost.
 */
export async function lead({ install, add, settled, script }) {
  const payloads = readFileSync(process.env.PAYLOADS, 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line));
  let [sent, failed, wanted, allSent] = [0, 0, 0, () => {}];
  const onTold = (told) => {
    sent += told.sent ?? 0;
    failed += told.failed ?? 0;
    if (sent >= wanted) allSent();
  };
  await install();
  const workers = Array.from({ length: PROCESSES }, () => fork(script, ['work'], { stdio: ['ignore', 2, 2, 'ipc'] }));
  await Promise.all(workers.map((worker) => started(worker, onTold)));
  const tell = (what) => workers.forEach((worker) => worker.send(what));

  for await (const line of createInterface({ input: process.stdin })) {
    if (line !== 'go') {
      [sent, failed, wanted] = [0, 0, Number(line)];
      tell('hold');
      for (let n = 0; n < wanted; n += BATCH) {
        await add(Array.from({ length: Math.min(BATCH, wanted - n) }, (_, i) => event(payloads[(n + i) % payloads.length])));
      }
      console.log('READY');
    } else {
      const whenSent = new Promise((resolve) => (allSent = resolve));
      tell('go');
      await whenSent;
      while (!(await settled())) await new Promise((resolve) => setTimeout(resolve, 5));
      console.log(JSON.stringify({ sent, failed }));
    }
  }
  workers.forEach((worker) => worker.removeAllListeners('exit').kill());
  process.exit(0);
}

/** Resolves once the worker takes jobs. One that ends by itself ends the run. */
function started(worker, onTold) {
  worker.on('exit', () => {
    console.error('a worker ended');
    process.exit(1);
  });
  return new Promise((resolve) => worker.on('message', (told) => (told === 'running' ? resolve() : onTold(told))));
}

/**
 * A worker's task: signs an event and posts it with `request`, throws unless the answer is 2xx. Between the parent's
 * `hold` and its `go` it waits: jobs may be fetched, but nothing is sent.
 */
export function task(request) {
  const key = Buffer.from(process.env.SECRET.replace(/^whsec_/, ''), 'base64');
  let [gate, open] = [undefined, () => {}];
  process.on('message', (what) => {
    if (what === 'hold') gate = new Promise((resolve) => (open = resolve));
    else open();
  });
  process.once('disconnect', () => process.exit(0));
  const count = counter();
  return async (event) => {
    await gate;
    const body = JSON.stringify(event);
    const timestamp = Math.floor(Date.now() / 1000);
    const signature = createHmac('sha256', key).update(`${event.id}.${timestamp}.${body}`).digest('base64');
    const headers = {
      'content-type': 'application/json',
      'user-agent': 'peer',
      'webhook-id': event.id,
      'webhook-timestamp': String(timestamp),
      'webhook-signature': `v1,${signature}`,
    };
    const status = await request(headers, body);
    const isGood = status >= 200 && status <= 299;
    count(isGood ? 'sent' : 'failed');
    if (!isGood) throw new Error(`answered ${status}`);
  };
}

/** Tells the parent what was sent, a message for many. */
function counter() {
  let [told, timer] = [{ sent: 0, failed: 0 }, undefined];
  const tell = () => {
    clearTimeout(timer);
    timer = undefined;
    process.send(told);
    told = { sent: 0, failed: 0 };
  };
  return (what) => {
    told[what] += 1;
    if (told.sent + told.failed >= TELL_EVERY) tell();
    else timer ??= setTimeout(tell, 5);
  };
}

/** How a request is made: with undici's pool of connections, or with Node's own fetch, as most tasks are written. */
export function requester(Pool, connections) {
  const sink = new URL(process.env.SINK_URL);
  if (process.env.HTTP === 'fetch') {
    return async (headers, body) => {
      const answer = await fetch(sink, { method: 'POST', headers, body });
      await answer.arrayBuffer();
      return answer.status;
    };
  }
  const pool = new Pool(sink.origin, { connections, pipelining: 1 });
  return async (headers, body) => {
    const answer = await pool.request({ method: 'POST', path: sink.pathname, headers, body });
    await answer.body.dump();
    return answer.statusCode;
  };
}

/** A worker tells its parent that it takes jobs. */
export function running() {
  process.send('running');
}
