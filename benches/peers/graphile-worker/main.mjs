// graphile-worker, batched as its documentation says for high throughput; README.md beside this folder tells what for.

import { makeWorkerUtils, run, Logger } from 'graphile-worker';
import { Pool } from 'undici';
import { lead, running, task } from '../peer.mjs';

const concurrentJobs = Number(process.env.CONCURRENT_JOBS ?? 24);
// https://worker.graphile.org/docs/performance: the preset of its own measurement.
const preset = {
  worker: {
    connectionString: process.env.DATABASE_URL,
    concurrentJobs,
    maxPoolSize: concurrentJobs + 1,
    localQueue: { size: Number(process.env.LOCAL_QUEUE ?? 500) },
    completeJobBatchDelay: Number(process.env.BATCH_DELAY ?? 0),
    failJobBatchDelay: Number(process.env.BATCH_DELAY ?? 0),
    // It would write a line for every job.
    logger: new Logger(() => () => {}),
  },
};

if (process.argv[2] === 'work') {
  const sink = new URL(process.env.SINK_URL);
  const pool = new Pool(sink.origin, { connections: concurrentJobs, pipelining: 1 });
  const deliver = task(async (headers, body) => {
    const answer = await pool.request({ method: 'POST', path: sink.pathname, headers, body });
    await answer.body.dump();
    return answer.statusCode;
  });
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
