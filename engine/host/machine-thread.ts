/** Entry point of the worker threads of a VM process: vCPUs, the clock, and one for each drive. */
import { randomFillSync } from 'node:crypto';
import { openSync, readFileSync, readlinkSync, writeSync } from 'node:fs';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { BlockError } from '../block/errors.ts';
import type { FromDrive, ToDrive } from '../machine/drive-thread.ts';
import { runClock, runIo, runVcpu, type ThreadData } from '../machine/threads.ts';
import { openDrive } from './machine-drive.ts';
import { TierProfiler } from './tier-profiler.ts';

const data = workerData as ThreadData;

/** The host's id of this thread, or 0 where the host does not say. */
function threadId(): number {
  try {
    return Number(readlinkSync('/proc/thread-self').split('/').pop());
  } catch {
    return 0;
  }
}

const logFile = data.config.debug.logFile;
const descriptor = logFile === undefined ? 2 : openSync(logFile, 'a');
/** The thread never returns to its event loop, so lines are written at once. */
function log(line: string): void {
  writeSync(descriptor, `${line}\n`);
}

const host = {
  fillRandom: (target: Uint8Array): void => {
    randomFillSync(target);
  },
  threadId,
  profiler: new TierProfiler(),
  log,
  readText: (path: string): string => readFileSync(path, 'utf8'),
  writer: (path: string): ((text: string) => void) => {
    const file = openSync(path, 'w');
    return (text) => writeSync(file, text);
  },
  openDrive,
  receive: (): ToDrive | undefined => (parentPort === null ? undefined : receiveMessageOnPort(parentPort)?.message),
  send: (message: FromDrive): void => parentPort?.postMessage(message),
  ready: (): void => parentPort?.postMessage({ type: 'ready' }),
};

// The control thread links a thread's errors to the VM's log and stops the machine.
try {
  if (data.role === 'clock') runClock(data, host);
  else if (data.role === 'io') runIo(data, host);
  else runVcpu(data, host);
  parentPort?.postMessage({ type: 'ended' });
} catch (error) {
  const code = error instanceof BlockError ? error.code : undefined;
  const text = error instanceof Error ? (code === undefined ? (error.stack ?? error.message) : error.message) : String(error);
  parentPort?.postMessage({ type: 'failed', error: text, code });
}
