/** The host as `toMachineConfig` asks it. */
import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { freemem, totalmem } from 'node:os';
import type { HostInfo } from './config.ts';

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'No such file or directory',
  EACCES: 'Permission denied',
  ENOTDIR: 'Not a directory',
  ELOOP: 'Too many symbolic links',
};

/** Free memory with what the kernel would give back; `MemFree` alone counts caches as used. */
function availableMemory(): number {
  try {
    const match = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'));
    if (match !== null) return Number(match[1]) * 1024;
  } catch {
    // Not Linux.
  }
  return freemem();
}

export const systemHost: HostInfo = {
  totalMemory: totalmem(),
  availableMemory: availableMemory(),
  file(path) {
    try {
      const stat = statSync(path);
      if (stat.isDirectory()) return { problem: 'Is a directory' };
      if (!stat.isFile()) return { problem: 'Not a regular file' };
      accessSync(path, constants.R_OK);
      return { bytes: stat.size };
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException;
      return { problem: reasons[code ?? ''] ?? message };
    }
  },
  kvmProblem() {
    try {
      accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
      return undefined;
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException;
      return `could not access KVM kernel module: /dev/kvm: ${reasons[code ?? ''] ?? message}`;
    }
  },
  portFree(host, port) {
    return new Promise((resolve) => {
      const server = createServer();
      server.once('error', () => resolve(false));
      server.listen({ host: host === '' ? undefined : host, port }, () => server.close(() => resolve(true)));
    });
  },
};
