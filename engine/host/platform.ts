/** What a machine takes from the host: threads, files, memory figures, compression, sockets for VNC. */
import { randomFillSync } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { freemem, totalmem } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { ThreadData } from '../machine/threads.ts';

export interface HostThread {
  /** Called with the text of an error that ended the thread. */
  onFailed(listener: (error: string) => void): void;
  terminate(): Promise<void>;
}

/** Starts a worker thread of the machine. */
export function startThread(data: ThreadData): HostThread {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  const worker = new Worker(new URL(`./machine-thread.${extension}`, import.meta.url), {
    workerData: data,
    name: data.role === 'clock' ? 'clock' : `vcpu${data.index}`,
    resourceLimits: { stackSizeMb: 16 },
  });
  let failed: (error: string) => void = () => {};
  worker.on('message', (message: { type: string; error?: string }) => {
    if (message.type === 'failed') failed(message.error ?? 'unknown');
  });
  worker.on('error', (error) => failed(error instanceof Error ? (error.stack ?? error.message) : String(error)));
  return {
    onFailed(listener) {
      failed = listener;
    },
    async terminate() {
      await worker.terminate();
    },
  };
}

export const fillRandom = (target: Uint8Array): void => {
  randomFillSync(target);
};

/** The contents of a file; undefined with the reason where it cannot be read. */
export function readWhole(path: string): { data: Uint8Array } | { reason: string } {
  try {
    if (!statSync(path).isFile()) return { reason: `${path} is not a file` };
    const data = readFileSync(path);
    return { data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') return { reason: `${path} does not exist` };
    if (code === 'EACCES') return { reason: `${path} may not be read (permission denied)` };
    return { reason: `${path} cannot be read: ${(error as Error).message}` };
  }
}

/** Nanoseconds of host CPU that a thread of this process has used; 0 where the host does not tell. */
export function threadCpuNs(threadId: number): number {
  try {
    return Number(readFileSync(`/proc/self/task/${threadId}/schedstat`, 'latin1').split(' ')[0]);
  } catch {
    return 0;
  }
}

export const hostMemory = (): { total: number; free: number } => {
  try {
    const match = /MemAvailable:\s+(\d+) kB/.exec(readFileSync('/proc/meminfo', 'latin1'));
    if (match !== null) return { total: totalmem(), free: Number(match[1]) * 1024 };
  } catch {
    // Not Linux: what the runtime says is all there is.
  }
  return { total: totalmem(), free: freemem() };
};

/** Bytes of this process that are resident. */
export const residentBytes = (): number => process.memoryUsage.rss();

/** A VGA BIOS of the host, for its font; undefined where there is none. */
export function findVgaBios(): Uint8Array | undefined {
  for (const path of [
    ...(process.env.VIVARIUM_FIRMWARE === undefined ? [] : [`${process.env.VIVARIUM_FIRMWARE}/vgabios-stdvga.bin`]),
    '/usr/share/seabios/vgabios-stdvga.bin',
    '/usr/share/qemu/vgabios-stdvga.bin',
    '/usr/share/vgabios/vgabios.bin',
  ]) {
    const found = readWhole(path);
    if ('data' in found) return found.data;
  }
  return undefined;
}
