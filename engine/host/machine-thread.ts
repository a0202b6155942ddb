/** Entry point of the worker threads of a VM process: vCPUs, the translator, the clock, and one for each drive. */
import { randomFillSync } from 'node:crypto';
import { openSync, readFileSync, readlinkSync, writeSync } from 'node:fs';
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import type { RegionReply, RegionShelf } from '../accel/jit/region-compiler.ts';
import type { RegionJob } from '../accel/jit/region-job.ts';
import { BlockError } from '../block/errors.ts';
import type { FromDrive, ToDrive } from '../machine/drive-thread.ts';
import type { ThreadData } from '../machine/threads.ts';

const data = workerData as ThreadData & { readonly ports: readonly MessagePort[] };

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

const fillRandom = (target: Uint8Array): void => {
  randomFillSync(target);
};

async function runClock(): Promise<void> {
  const { runClock: run } = await import('../machine/clock-thread.ts');
  run(data, { fillRandom });
}

async function runIo(): Promise<void> {
  const [{ runIo: run }, { openDrive }] = await Promise.all([import('../machine/io-thread.ts'), import('./machine-drive.ts')]);
  run(data, {
    fillRandom,
    openDrive,
    receive: (): ToDrive | undefined => (parentPort === null ? undefined : receiveMessageOnPort(parentPort)?.message),
    send: (message: FromDrive): void => parentPort?.postMessage(message),
    ready: (): void => parentPort?.postMessage({ type: 'ready' }),
    log,
  });
}

async function runVcpu(): Promise<void> {
  const [{ runVcpu: run }, { TierProfiler }] = await Promise.all([
    import('../machine/vcpu-thread.ts'),
    import('./tier-profiler.ts'),
  ]);
  const [port] = data.ports;
  run(data, {
    fillRandom,
    translator: {
      request: (job: RegionJob): void => port.postMessage(job),
      take: (): RegionReply | undefined => receiveMessageOnPort(port)?.message,
    },
    threadId,
    profiler: new TierProfiler(),
    log,
    readText: (path: string): string => readFileSync(path, 'utf8'),
    writer: (path: string): ((text: string) => void) => {
      const file = openSync(path, 'w');
      return (text) => writeSync(file, text);
    },
  });
}

/** A request of a vCPU. */
interface Waiting {
  readonly vcpu: number;
  readonly port: MessagePort;
  readonly job: RegionJob;
}

async function runTranslator(): Promise<void> {
  const [{ runTranslator: run }, { nativeCode }, { RegionFile, regionFile }] = await Promise.all([
    import('../machine/translator-thread.ts'),
    import('./native-code.ts'),
    import('./region-file.ts'),
  ]);
  run(data, {
    after: (milliseconds: number, call: () => void): void => {
      setTimeout(call, milliseconds);
    },
    regionShelf: (options: object): RegionShelf | undefined => {
      const native = nativeCode(data.memory);
      const path = regionFile(options);
      if (native === undefined || path === undefined) return undefined;
      try {
        return { store: new RegionFile(path), native };
      } catch {
        // Nothing depends on it.
        return undefined;
      }
    },
    serveVcpus: (answer: (vcpu: number, job: RegionJob) => RegionReply, sent: (vcpu: number) => void): void => {
      // What is kept takes a tenth of the time of what is to be made; a far region only makes better what is there.
      const queues: Waiting[][] = [[], [], []];
      const serve = (): void => {
        const next = queues.find((queue) => queue.length > 0)?.shift();
        if (next === undefined) return;
        next.port.postMessage(answer(next.vcpu, next.job));
        sent(next.vcpu);
        // From the event loop, for others may have come meanwhile that go first.
        if (queues.some((queue) => queue.length > 0)) setImmediate(serve);
      };
      for (const [vcpu, port] of data.ports.entries())
        port.on('message', (job: RegionJob) => {
          if (queues.every((queue) => queue.length === 0)) setImmediate(serve);
          queues[job.kept ? 0 : job.far ? 2 : 1].push({ vcpu, port, job });
        });
    },
  });
}

/** Each loads what it needs and no more: a thread that loads all takes half a second of CPU time to start. */
const roles = { clock: runClock, io: runIo, vcpu: runVcpu, translator: runTranslator };

// The control thread links a thread's errors to the VM's log and stops the machine.
try {
  await roles[data.role]();
  // The translator goes on from its event loop.
  if (data.role !== 'translator') parentPort?.postMessage({ type: 'ended' });
} catch (error) {
  const code = error instanceof BlockError ? error.code : undefined;
  const text = error instanceof Error ? (code === undefined ? (error.stack ?? error.message) : error.message) : String(error);
  parentPort?.postMessage({ type: 'failed', error: text, code });
}
