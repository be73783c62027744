// pg-boss in batches, without a pause while there is work; README.md beside this folder tells what for.

import { PgBoss } from 'pg-boss';
import { Pool } from 'undici';
import { lead, running, task } from '../peer.mjs';

const QUEUE = 'deliver';
const batchSize = Number(process.env.BATCH_SIZE ?? 100);
const localConcurrency = Number(process.env.LOCAL_CONCURRENCY ?? 4);

async function start() {
  const boss = new PgBoss({ connectionString: process.env.DATABASE_URL, max: localConcurrency + 2 });
  boss.on('error', (error) => console.error(error));
  await boss.start();
  return boss;
}

const boss = await start();
if (process.argv[2] === 'work') {
  const sink = new URL(process.env.SINK_URL);
  const pool = new Pool(sink.origin, { connections: Number(process.env.CONNECTIONS ?? 64), pipelining: 1 });
  const deliver = task(async (headers, body) => {
    const answer = await pool.request({ method: 'POST', path: sink.pathname, headers, body });
    await answer.body.dump();
    return answer.statusCode;
  });
  const perJobResults = process.env.PER_JOB !== '0';
  const options = { batchSize, localConcurrency, pollingIntervalSeconds: 0.5, burstWhenBatchFull: true, perJobResults };
  await boss.work(QUEUE, options, async (jobs) => {
    const results = await Promise.allSettled(jobs.map((job) => deliver(job.data)));
    if (perJobResults) {
      return results.map(({ status }, i) => ({ id: jobs[i].id, status: status === 'fulfilled' ? 'completed' : 'failed' }));
    }
    if (results.some(({ status }) => status === 'rejected')) throw new Error('one of the batch failed');
  });
  running();
} else {
  await lead({
    script: import.meta.filename,
    install: () => boss.createQueue(QUEUE, { partition: true, retryLimit: 9, retryBackoff: true }),
    add: (events) => boss.insert(QUEUE, events.map((data) => ({ data }))),
    async settled() {
      const { rows } = await boss.getDb().executeSql(
        `select exists (select from pgboss.job where name = '${QUEUE}' and state < 'completed') as left`,
      );
      return !rows[0].left;
    },
  });
}
