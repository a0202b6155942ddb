/** What a machine takes from the host: threads, files, memory figures, compression, sockets for VNC. */
import { randomFillSync } from 'node:crypto';
import { closeSync, fdatasyncSync, openSync, readFileSync, readSync, statSync, writeSync } from 'node:fs';
import { freemem, totalmem } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import type { FromDrive, ToDrive } from '../machine/drive-thread.ts';
import type { ThreadData } from '../machine/threads.ts';

export interface HostThread {
  /** Resolves when an I/O thread serves its drive; rejects with a `ThreadError` when it cannot. */
  readonly ready: Promise<void>;
  /** Resolves when the thread has ended, however. */
  readonly ended: Promise<void>;
  /** Called with the text of an error that ended the thread. */
  onFailed(listener: (error: string) => void): void;
  /** Messages to and from a drive's I/O thread. */
  post(message: ToDrive): void;
  onMessage(listener: (message: FromDrive) => void): void;
  terminate(): Promise<void>;
}

/** Why a thread ended. */
export class ThreadError extends Error {
  override readonly name = 'ThreadError';
  /** The `BlockError`'s code where an image was to blame. */
  readonly code: string | undefined;
  constructor(message: string, code: string | undefined) {
    super(message);
    this.code = code;
  }
}

/**
 * Lets V8 use the branch hints of translated code (WebAssembly "Branch Hinting"): they keep slow paths out of the way of
 * register allocation. V8 has them by default from 13.7 on, and does not know the flag then. To be called before the
 * first module is compiled.
 */
export function useBranchHints(): void {
  const [major, minor] = process.versions.v8.split('.').map(Number);
  if (major < 13 || (major === 13 && minor < 7)) setFlagsFromString('--experimental-wasm-branch-hinting');
}

/**
 * Has V8 compile modules where they are made, on the translator's thread, and not when they are first called. It holds for
 * the process from then on: to be called after its one machine's baseline module was compiled, of which most is never called.
 */
export function compileEagerly(): void {
  setFlagsFromString('--no-wasm-lazy-compilation');
}

/** Channels between the translator and each vCPU: the translator's ends, by vCPU, and theirs. */
export function vcpuLinks(count: number): { translator: MessagePort[]; vcpus: MessagePort[] } {
  const channels = Array.from({ length: count }, () => new MessageChannel());
  return { translator: channels.map(({ port1 }) => port1), vcpus: channels.map(({ port2 }) => port2) };
}

/** Starts a worker thread of the machine. `ports`: its ends of channels to other threads. */
export function startThread(data: ThreadData, ports: readonly MessagePort[] = []): HostThread {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  const worker = new Worker(new URL(`./machine-thread.${extension}`, import.meta.url), {
    workerData: { ...data, ports },
    transferList: [...ports],
    name: threadName(data),
    resourceLimits: { stackSizeMb: 16, maxYoungGenerationSizeMb: 8 },
  });
  let failed: (error: string) => void = () => {};
  let said: (message: FromDrive) => void = () => {};
  const fails = (text: string, code?: string): void => {
    rejectReady(new ThreadError(text, code));
    failed(text);
  };
  let resolveReady: () => void = () => {};
  let rejectReady: (error: ThreadError) => void = () => {};
  const ready = new Promise<void>((resolve, reject) => {
    resolveReady = resolve;
    rejectReady = reject;
  });
  // Only those who wait for it want to know.
  ready.catch(() => {});
  const ended = new Promise<void>((resolve) => {
    worker.on('exit', () => resolve());
  });
  worker.on('message', (message: { type: string; error?: string; code?: string }) => {
    if (message.type === 'ready') resolveReady();
    else if (message.type === 'failed') fails(message.error ?? 'unknown', message.code);
    else if (message.type !== 'ended') said(message as FromDrive);
  });
  worker.on('error', (error) => fails(error instanceof Error ? (error.stack ?? error.message) : String(error)));
  return {
    ready,
    ended,
    onFailed(listener) {
      failed = listener;
    },
    post(message) {
      worker.postMessage(message);
    },
    onMessage(listener) {
      said = listener;
    },
    async terminate() {
      await worker.terminate();
    },
  };
}

function threadName({ role, index }: ThreadData): string {
  if (role === 'clock' || role === 'translator') return role;
  return `${role === 'io' ? 'drive' : 'vcpu'}${index}`;
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

/** A file that is written in place. */
export interface KeptFile {
  /** Returns why it could not be written, or undefined. */
  write(offset: number, data: Uint8Array): string | undefined;
  close(): void;
}

/** Opens an existing file to be written in place. */
export function openKept(path: string): { file: KeptFile } | { reason: string } {
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r+');
  } catch (error) {
    return { reason: `${path} cannot be opened for writing: ${(error as Error).message}` };
  }
  return {
    file: {
      write(offset, data) {
        try {
          for (let done = 0; done < data.length; ) done += writeSync(descriptor, data, done, data.length - done, offset + done);
          return undefined;
        } catch (error) {
          return `${path}: ${(error as Error).message}`;
        }
      },
      close() {
        try {
          fdatasyncSync(descriptor);
        } finally {
          closeSync(descriptor);
        }
      },
    },
  };
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

/**
 * Tells how many bytes of a part of the machine memory are resident. The memory, of `bytes` bytes, is found among the
 * process's mappings by its size; where it is not (other systems), what the whole process holds stands in for it.
 * Looks at most once a second, and once in as many seconds as the part has GiB.
 */
export function residentMeter(bytes: number, offset: number, length: number): () => number {
  let start: number | undefined;
  let last = { at: -Infinity, value: 0 };
  const patience = 900 * Math.max(1, length / 2 ** 30);
  return () => {
    const now = performance.now();
    if (now - last.at < patience) return last.value;
    start ??= mappingOf(bytes) ?? -1;
    const counted = start < 0 ? undefined : presentBytes(start + offset, length);
    last = { at: now, value: counted ?? Math.min(length, process.memoryUsage.rss()) };
    return last.value;
  };
}

/** The address of the only writable mapping of that size. */
function mappingOf(bytes: number): number | undefined {
  try {
    const found: number[] = [];
    for (const line of readFileSync('/proc/self/maps', 'latin1').split('\n')) {
      const match = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line);
      if (match === null) continue;
      const start = Number.parseInt(match[1], 16);
      if (Number.parseInt(match[2], 16) - start === bytes) found.push(start);
    }
    return found.length === 1 ? found[0] : undefined;
  } catch {
    return undefined;
  }
}

/** Counts the pages that Linux's pagemap says are present: bit 63 of eight bytes for each 4 KiB. */
function presentBytes(address: number, length: number): number | undefined {
  let file: number | undefined;
  try {
    file = openSync('/proc/self/pagemap', 'r');
    const buffer = new Uint8Array(256 * 1024);
    const words = new Int32Array(buffer.buffer);
    const pages = length / 4096;
    let present = 0;
    for (let page = 0; page < pages; ) {
      const wanted = Math.min(buffer.length, (pages - page) * 8);
      const got = readSync(file, buffer, 0, wanted, (address / 4096 + page) * 8) >> 3;
      if (got === 0) break;
      for (let n = 0; n < got; n++) if (words[2 * n + 1] < 0) present++;
      page += got;
    }
    return present * 4096;
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

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
