/** The benchmarks' command line, once everything they need is here (`run.mjs`). */
import { parseArgs } from 'node:util';
import { benchBoot } from './boot.ts';
import { benchDisk } from './disk.ts';
import { benchGuest, benchTwin } from './guest.ts';
import { benchLoops } from './loops.ts';
import { endAll } from './machines.ts';

export interface BenchOptions {
  readonly rounds: number;
  readonly cpus: number;
  /** Run QEMU or v86 too. */
  readonly peer: boolean;
  /** Parts that were asked for; empty: all. */
  readonly only: readonly string[];
  /** Write the result to docs/bench as well. */
  readonly save: boolean;
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '3' },
    cpus: { type: 'string', default: '2' },
    only: { type: 'string', default: '' },
    'no-peer': { type: 'boolean', default: false },
    save: { type: 'boolean', default: false },
  },
});
const count = (name: 'rounds' | 'cpus'): number => {
  const value = Number(values[name]);
  if (!Number.isInteger(value) || value < 1 || value > 64) throw new Error(`--${name} wants a number from 1 to 64`);
  return value;
};

// What was started ends with this program, however it ends.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(signal, () => {
    endAll();
    process.exit(130);
  });

try {
  const options: BenchOptions = {
    rounds: count('rounds'),
    cpus: count('cpus'),
    peer: !values['no-peer'],
    only: values.only.split(',').filter((name) => name !== ''),
    save: values.save,
  };
  if (positionals[0] === 'boot') await benchBoot(options);
  else if (positionals[0] === 'guest') await benchGuest(options);
  else if (positionals[0] === 'twin') await benchTwin(options);
  else if (positionals[0] === 'disk') await benchDisk(options);
  else await benchLoops(options);
} catch (error) {
  console.error(`bench: ${(error as Error).message}`);
  process.exitCode = 1;
} finally {
  endAll();
}
