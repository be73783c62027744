// pg-boss in batches, without a pause while there is work. README.md above says what for.

import { PgBoss } from 'pg-boss';
import { Pool } from 'undici';
import { lead, requester, running, task } from '../peer.mjs';

const QUEUE = 'deliver';
const CONNECTIONS = 64;
// https://pgboss.io/api/workers: many jobs a fetch, several fetchers, and no pause while fetches come back full.
const batchSize = Number(process.env.BATCH_SIZE ?? 500);
const localConcurrency = Number(process.env.LOCAL_CONCURRENCY ?? 2);
const options = {
  batchSize,
  localConcurrency,
  pollingIntervalSeconds: 0.5,
  burstWhenBatchFull: true,
  // Otherwise one refusal would have the whole batch sent again.
  perJobResults: true,
};

async function start() {
  const boss = new PgBoss({ connectionString: process.env.DATABASE_URL, max: localConcurrency + 2 });
  boss.on('error', (error) => console.error(error));
  await boss.start();
  return boss;
}

const boss = await start();
if (process.argv[2] === 'work') {
  const deliver = task(requester(Pool, CONNECTIONS));
  await boss.work(QUEUE, options, async (jobs) => {
    const results = await Promise.allSettled(jobs.map((job) => deliver(job.data)));
    return results.map(({ status }, i) => ({ id: jobs[i].id, status: status === 'fulfilled' ? 'completed' : 'failed' }));
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
