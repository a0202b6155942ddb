/** Entry point of the worker threads of a VM process: vCPUs and the clock. */
import { randomFillSync } from 'node:crypto';
import { readlinkSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { runClock, runVcpu, type ThreadData } from '../machine/threads.ts';

const data = workerData as ThreadData;

/** The host's id of this thread, or 0 where the host does not say. */
function threadId(): number {
  try {
    return Number(readlinkSync('/proc/thread-self').split('/').pop());
  } catch {
    return 0;
  }
}

const host = {
  fillRandom: (target: Uint8Array): void => {
    randomFillSync(target);
  },
  threadId,
};

// The control thread links a thread's errors to the VM's log and stops the machine.
try {
  if (data.role === 'clock') runClock(data, host);
  else runVcpu(data, host);
  parentPort?.postMessage({ type: 'ended' });
} catch (error) {
  parentPort?.postMessage({ type: 'failed', error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
}
