/**
 * Statistics of one VM over time. Samples come once a second; three tiers keep them: seconds for an hour, means over
 * 10 s for a day, means over 5 minutes for as long as the settings say. The first hour's seconds are in memory, and
 * every tier is a file of binary records that only grows at its end, and is cut to its newest part when it has twice
 * the records it needs. A file cut off by a crash loses its last record, no more.
 *
 * A record, little-endian: u16 length of the record in bytes, u8 version (1), u8 vCPUs, f64 time in ms, f32 total,
 * used (NaN: unknown) and resident memory in MiB, f32 MIPS, f32 exits a second for each cause in the order of
 * `exitCauses`, f32 CPU use of each vCPU in percent.
 */
import { appendFile, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type ExitCause, exitCauses } from '../../engine/contract/index.ts';
import type { StatsPoint } from '../contract/index.ts';
import { makeFolder, writeFileAtomic } from '../host/files.ts';

const MiB = 1 << 20;
const version = 1;
const fixedBytes = 12 + 4 * (4 + exitCauses.length);
/** Samples are written together, this often. */
const flushEvery = 10_000;

export function encodePoint(point: StatsPoint): Buffer {
  const length = fixedBytes + 4 * point.cpu.length;
  const record = Buffer.alloc(length);
  record.writeUInt16LE(length, 0);
  record[2] = version;
  record[3] = point.cpu.length;
  record.writeDoubleLE(point.time, 4);
  const values = [
    point.memoryTotal / MiB,
    point.memoryUsed === null ? Number.NaN : point.memoryUsed / MiB,
    point.memoryResident / MiB,
    point.mips,
    ...exitCauses.map((cause) => point.exits[cause] ?? 0),
    ...point.cpu,
  ];
  for (const [index, value] of values.entries()) record.writeFloatLE(value, 12 + 4 * index);
  return record;
}

/** Points of a file in order; stops at the first record that is none. */
export function decodePoints(data: Buffer, from = -Infinity, to = Infinity): StatsPoint[] {
  const points: StatsPoint[] = [];
  for (let at = 0; at + fixedBytes <= data.length; ) {
    const length = data.readUInt16LE(at);
    const cpus = data[at + 3];
    if (data[at + 2] !== version || length !== fixedBytes + 4 * cpus || at + length > data.length) break;
    const time = data.readDoubleLE(at + 4);
    if (time >= from && time <= to) {
      const value = (index: number): number => Math.round(data.readFloatLE(at + 12 + 4 * index) * 1000) / 1000;
      const used = value(1);
      const exits: Partial<Record<ExitCause, number>> = {};
      for (const [index, cause] of exitCauses.entries()) if (value(4 + index) > 0) exits[cause] = value(4 + index);
      points.push({
        time,
        cpu: Array.from({ length: cpus }, (_, index) => value(4 + exitCauses.length + index)),
        memoryTotal: value(0) * MiB,
        memoryUsed: Number.isNaN(used) ? null : used * MiB,
        memoryResident: value(2) * MiB,
        mips: value(3),
        exits,
      });
    }
    at += length;
  }
  return points;
}

/** The mean of points, at the time of the last; its vCPUs are those of the last. */
export function meanPoint(points: readonly StatsPoint[]): StatsPoint {
  const last = points[points.length - 1];
  const mean = (of: (point: StatsPoint) => number | null | undefined): number => {
    const values = points.map(of).filter((value) => typeof value === 'number');
    return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
  };
  const exits: Partial<Record<ExitCause, number>> = {};
  for (const cause of exitCauses) {
    const value = mean((point) => point.exits[cause] ?? 0);
    if (value > 0) exits[cause] = value;
  }
  return {
    time: last.time,
    cpu: last.cpu.map((_, index) => mean((point) => point.cpu[index])),
    memoryTotal: last.memoryTotal,
    memoryUsed: points.some(({ memoryUsed }) => memoryUsed !== null) ? mean(({ memoryUsed }) => memoryUsed) : null,
    memoryResident: mean(({ memoryResident }) => memoryResident),
    mips: mean(({ mips }) => mips),
    exits,
  };
}

interface Tier {
  readonly file: string;
  readonly step: number;
  /** How long it is kept, in ms. */
  keep: number;
  pending: StatsPoint[];
  unwritten: Buffer[];
}

export class History {
  readonly #folder: string;
  readonly #tiers: Tier[];
  #recent: StatsPoint[] = [];
  #flushedAt = 0;
  #writing: Promise<void> = Promise.resolve();

  constructor(folder: string, keepDays: number) {
    this.#folder = folder;
    const tier = (file: string, step: number, keep: number): Tier => ({
      file: join(folder, file),
      step,
      keep,
      pending: [],
      unwritten: [],
    });
    this.#tiers = [
      tier('seconds', 1000, 3_600_000),
      tier('tens', 10_000, 86_400_000),
      tier('minutes', 300_000, keepDays * 86_400_000),
    ];
  }

  set keepDays(days: number) {
    this.#tiers[2].keep = days * 86_400_000;
  }

  /** The newest points in memory, oldest first. */
  get recent(): readonly StatsPoint[] {
    return this.#recent;
  }

  add(point: StatsPoint): void {
    this.#recent.push(point);
    if (this.#recent.length > 4000) this.#recent = this.#recent.slice(-3600);
    for (const tier of this.#tiers) {
      const start = tier.pending[0]?.time;
      if (start !== undefined && Math.floor(start / tier.step) !== Math.floor(point.time / tier.step)) this.#close(tier);
      tier.pending.push(point);
    }
    if (point.time - this.#flushedAt >= flushEvery) {
      this.#flushedAt = point.time;
      void this.#flush();
    }
  }

  /** Writes all there is; called when the VM ends. */
  async close(): Promise<void> {
    for (const tier of this.#tiers) this.#close(tier);
    await this.#flush();
  }

  /** At most `limit` points between two times, from a tier that goes back so far. */
  async query(from: number, to: number, limit: number): Promise<{ step: number; points: StatsPoint[] }> {
    const now = Date.now();
    const wanted = Math.max(1, (to - from) / limit);
    // The coarsest tier that is still fine enough, among those that go back so far.
    const covering = this.#tiers.filter(({ keep }) => now - from <= keep);
    const tier = covering.findLast(({ step }) => step <= wanted) ?? covering[0] ?? this.#tiers[this.#tiers.length - 1];
    await this.#flush();
    const data = await readFile(tier.file).catch(() => Buffer.alloc(0));
    const points = [...decodePoints(data, from, to), ...tier.pending.filter(({ time }) => time >= from && time <= to)];
    if (points.length <= limit) return { step: tier.step, points };
    const group = Math.ceil(points.length / limit);
    const means: StatsPoint[] = [];
    for (let at = 0; at < points.length; at += group) means.push(meanPoint(points.slice(at, at + group)));
    return { step: tier.step * group, points: means };
  }

  #close(tier: Tier): void {
    if (tier.pending.length > 0) tier.unwritten.push(encodePoint(meanPoint(tier.pending)));
    tier.pending = [];
  }

  #flush(): Promise<void> {
    // One writer at a time, in order. What cannot be written is lost, as statistics may be.
    this.#writing = this.#writing.then(() => this.#write()).catch(() => {});
    return this.#writing;
  }

  async #write(): Promise<void> {
    for (const tier of this.#tiers) {
      const records = tier.unwritten.splice(0);
      if (records.length === 0) continue;
      await makeFolder(this.#folder);
      await appendFile(tier.file, Buffer.concat(records), { mode: 0o600 });
      const { size } = await stat(tier.file);
      if (size > (tier.keep / tier.step) * 2 * records[0].length) await this.#trim(tier);
    }
  }

  async #trim(tier: Tier): Promise<void> {
    const points = decodePoints(await readFile(tier.file), Date.now() - tier.keep);
    if (points.length === 0) await rm(tier.file, { force: true });
    else await writeFileAtomic(tier.file, Buffer.concat(points.map(encodePoint)));
  }
}
