/** Builds and talks to `harness.c`: this machine's processor as the judge of x87 instructions. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const RECORD = 640;
export const IMAGE = 108;
export const CODE_LENGTH = 112;
export const CODE = 113;
export const EFLAGS = 120;
export const AX = 124;
export const MEMORY = 128;

export interface Harness {
  /** Runs records; the answer has as many. */
  run(records: Uint8Array): Uint8Array;
  /** Evaluates records of 32 bytes to binary128 values of 16 bytes. */
  reference(records: Uint8Array): Uint8Array;
  close(): void;
}

/** Builds the harness, or says why there is none. */
export function buildHarness(): Harness | string {
  if (process.arch !== 'x64' || process.platform !== 'linux')
    return `no x87 to compare with on ${process.platform} ${process.arch}`;
  const directory = mkdtempSync(join(tmpdir(), 'vivarium-fpu-'));
  const binary = join(directory, 'harness');
  const close = (): void => rmSync(directory, { recursive: true, force: true });
  const source = join(import.meta.dirname, 'harness.c');
  const built = spawnSync('gcc', ['-O1', '-o', binary, source, '-lquadmath', '-lm'], { encoding: 'utf8' });
  if (built.error || built.status !== 0) {
    close();
    return built.error ? 'gcc is not installed' : `gcc failed: ${built.stderr.split('\n')[0]}`;
  }
  const pipe = (mode: string, input: Uint8Array): Uint8Array => {
    const result = spawnSync(binary, [mode], { input, maxBuffer: 1 << 30 });
    if (result.status !== 0) throw new Error(`harness ${mode}: ${result.signal ?? result.status} ${result.stderr}`);
    return result.stdout;
  };
  return { run: (records) => pipe('run', records), reference: (records) => pipe('reference', records), close };
}
