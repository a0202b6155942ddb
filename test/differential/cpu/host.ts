/** Builds `harness.c` and runs batches on the host's CPU. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Batch, CASE_BYTES, OUTCOME_BYTES } from './layout.ts';

const source = fileURLToPath(new URL('harness.c', import.meta.url));
const cache = fileURLToPath(new URL('../../../.cache/differential/', import.meta.url));

export class Host {
  readonly #program: string;
  /** Features as /proc/cpuinfo names them. */
  readonly features: ReadonlySet<string>;

  constructor(program: string) {
    this.#program = program;
    const flags = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'));
    this.features = new Set((flags?.[1] ?? '').trim().split(/\s+/));
  }

  /** Gives the reason where there is no compiler, or no x86-64 Linux. */
  static make(): Host | string {
    if (process.arch !== 'x64' || process.platform !== 'linux') return 'the host is no x86-64 Linux';
    const text = readFileSync(source);
    const program = `${cache}cpu-${createHash('sha1').update(text).digest('hex').slice(0, 12)}`;
    if (!existsSync(program)) {
      mkdirSync(cache, { recursive: true });
      const partial = `${program}.${process.pid}`;
      const built = spawnSync('gcc', ['-O1', '-fno-stack-protector', '-o', partial, source], { encoding: 'utf8' });
      if (built.error !== undefined) return 'gcc is not installed';
      if (built.status !== 0) return `gcc: ${built.stderr}`;
      renameSync(partial, program);
    }
    return new Host(program);
  }

  /** Runs a batch; gives its outcomes one after the other. */
  run(batch: Batch): Uint8Array {
    const { count } = batch;
    const header = new Uint32Array([count, 0]);
    const input = Buffer.concat([new Uint8Array(header.buffer), batch.memory, batch.cases.subarray(0, count * CASE_BYTES)]);
    const { status, stdout, signal } = spawnSync(this.#program, {
      input,
      maxBuffer: count * OUTCOME_BYTES + 4096,
      timeout: 600_000,
      killSignal: 'SIGKILL',
    });
    if (status !== 0 || stdout.length !== count * OUTCOME_BYTES)
      throw new Error(`host program: status ${status}, signal ${signal}, ${stdout?.length} bytes`);
    // A copy, so that typed arrays over it are aligned.
    return new Uint8Array(stdout);
  }
}
