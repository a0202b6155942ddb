/** Figures: medians, a table, and JSON that says on what and under which load it was measured. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { root } from './machines.ts';

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

export const round = (value: number, digits = 2): number => Number(value.toFixed(digits));

/** Geometric mean. */
export const geometricMean = (values: readonly number[]): number =>
  Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);

export interface HostFacts {
  readonly cpu: string;
  readonly cpus: number;
  readonly memoryMiB: number;
  readonly kernel: string;
  readonly node: string;
  /** One-minute load when the benchmark began; without other work it is near 0. */
  readonly loadBefore: number;
  loadAfter?: number;
}

export const hostFacts = (): HostFacts => ({
  cpu: cpus()[0]?.model ?? 'unknown',
  cpus: cpus().length,
  memoryMiB: Math.round(totalmem() / 1048576),
  kernel: release(),
  node: process.version,
  loadBefore: round(loadavg()[0]),
});

/** Prints rows under their heads; numbers are set to the right. */
export function table(heads: readonly string[], rows: readonly (readonly (string | number)[])[]): void {
  const text = [heads, ...rows.map((row) => row.map(String))];
  const widths = heads.map((_, column) => Math.max(...text.map((row) => row[column].length)));
  for (const row of text)
    console.log(
      row
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column])))
        .join('  ')
        .trimEnd(),
    );
}

/** Writes test/results/bench-NAME.json, and docs/bench/NAME.json where it is to be kept; beside each the chart, if there is one. */
export function writeResult(name: string, host: HostFacts, result: object, save: boolean, chart?: string): void {
  host.loadAfter = round(loadavg()[0]);
  const text = `${JSON.stringify({ benchmark: name, date: new Date().toISOString(), host, ...result }, null, 2)}\n`;
  const write = (folder: string, file: string): void => {
    mkdirSync(join(root, folder), { recursive: true });
    writeFileSync(join(root, folder, `${file}.json`), text);
    if (chart !== undefined) writeFileSync(join(root, folder, `${file}.svg`), chart);
    console.log(`written: ${folder}/${file}.json${chart === undefined ? '' : ' and .svg'}`);
  };
  write('test/results', `bench-${name}`);
  if (save) write('docs/bench', name);
  console.log(`load of the host before ${host.loadBefore}, after ${host.loadAfter}, on ${host.cpus} CPUs`);
}
