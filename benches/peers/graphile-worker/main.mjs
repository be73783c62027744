// graphile-worker, batched as its documentation says for high throughput. README.md above says what for.

import { makeWorkerUtils, run, Logger } from 'graphile-worker';
import { Pool } from 'undici';
import { lead, requester, running, task } from '../peer.mjs';

const concurrentJobs = Number(process.env.CONCURRENT_JOBS ?? 24);
const batchDelay = Number(process.env.BATCH_DELAY ?? 25);
// https://worker.graphile.org/docs/performance: the preset of its own measurement, with the delay it recommends to start
// with, which does better here than 0 and 250.
const preset = {
  worker: {
    connectionString: process.env.DATABASE_URL,
    concurrentJobs,
    maxPoolSize: concurrentJobs + 1,
    localQueue: { size: Number(process.env.LOCAL_QUEUE ?? 500) },
    completeJobBatchDelay: batchDelay,
    failJobBatchDelay: batchDelay,
    // It would write a line for every job.
    logger: new Logger(() => () => {}),
  },
};

if (process.argv[2] === 'work') {
  const deliver = task(requester(Pool, concurrentJobs));
  await run({ preset, taskList: { deliver } });
  running();
} else {
  const utils = await makeWorkerUtils({ preset });
  await lead({
    script: import.meta.filename,
    install: () => utils.migrate(),
    add: (events) => utils.addJobs(events.map((payload) => ({ identifier: 'deliver', payload }))),
    async settled() {
      const { rows } = await utils.withPgClient((client) =>
        client.query('select exists (select from graphile_worker._private_jobs) as left'),
      );
      return !rows[0].left;
    },
  });
}
