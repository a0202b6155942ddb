/** Builds and drives `host.c`, and says what a case and an outcome look like to it. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const CASE_BYTES = 1024;
export const FX = 0;
export const GPRS = 512;
export const FLAGS = 640;
export const MEMORY = 704;
export const MEMORY_BYTES = 256;
export const CODE = 960;
export const CODE_LENGTH = 976;
export const SIGNAL = 960;
export const SIGNAL_MXCSR = 964;
/** Within an FXSAVE image (SDM 1, table 10-2). */
export const FX_STATUS = 2;
export const FX_TAGS = 4;
export const FX_MXCSR = 24;
export const FX_STACK = 32;
export const FX_XMM = 160;

export class Host {
  readonly #folder = mkdtempSync(join(tmpdir(), 'vivarium-sse-'));
  readonly #program = join(this.#folder, 'host');

  /** Gives undefined, with the reason told to `say`, where there is no compiler or no x86-64. */
  static make(say: (reason: string) => void): Host | undefined {
    if (process.arch !== 'x64') {
      say('the host is no x86-64');
      return undefined;
    }
    const host = new Host();
    const source = fileURLToPath(new URL('host.c', import.meta.url));
    const built = spawnSync('gcc', ['-O1', '-o', host.#program, source], { encoding: 'utf8' });
    if (built.status === 0 && existsSync(host.#program)) return host;
    say(built.error === undefined ? `gcc: ${built.stderr}` : 'gcc is not installed');
    host.close();
    return undefined;
  }

  /** Runs cases that lie one after the other; gives as many outcomes. */
  run(cases: Uint8Array): Uint8Array {
    const { status, stdout, signal } = spawnSync(this.#program, { input: cases, maxBuffer: cases.length + 4096 });
    if (status !== 0 || stdout.length !== cases.length) throw new Error(`host program: status ${status}, signal ${signal}`);
    return new Uint8Array(stdout.buffer, stdout.byteOffset, stdout.length);
  }

  close(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
