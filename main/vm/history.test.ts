import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { StatsPoint } from '../contract/index.ts';
import { decodePoints, encodePoint, History } from './history.ts';
import { ratesBetween } from './rates.ts';

const folder = mkdtempSync(join(tmpdir(), 'vivarium-history-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const point = (time: number, cpu: number[], used: number | null = null): StatsPoint => ({
  time,
  cpu,
  memoryTotal: 512 * 2 ** 20,
  memoryUsed: used,
  memoryResident: 64 * 2 ** 20,
  mips: 120.5,
  exits: { pio: 10, hlt: 2.5 },
});

test('records come back as they were; a file cut off loses its last record only', () => {
  const points = [point(1e12, [1, 99.5]), point(1e12 + 1000, [], 2 ** 20), point(1e12 + 2000, [50])];
  const data = Buffer.concat(points.map(encodePoint));
  assert.deepEqual(decodePoints(data), points);
  assert.deepEqual(decodePoints(data.subarray(0, data.length - 1)), points.slice(0, 2));
  assert.deepEqual(decodePoints(data, 1e12 + 500, 1e12 + 1500), [points[1]]);
  const damaged = Buffer.from(data);
  damaged[encodePoint(points[0]).length + 2] = 9;
  assert.deepEqual(decodePoints(damaged), points.slice(0, 1));
  assert.deepEqual(decodePoints(Buffer.alloc(500)), []);
});

test('history outlives its writer, is thinned for long views, and is bounded', async () => {
  const at = join(folder, 'a');
  const end = Date.now();
  const start = end - 7200_000;
  const first = new History(at, 30);
  for (let time = start; time < end; time += 1000) first.add(point(time, [((time - start) / 7200_000) * 100]));
  await first.close();
  appendFileSync(join(at, 'tens'), Buffer.from([1, 2, 3]));

  const second = new History(at, 30);
  const hour = await second.query(end - 600_000, end, 600);
  assert.equal(hour.step, 1000);
  assert.equal(hour.points.length, 600);
  const both = await second.query(start, end, 100);
  assert.ok(both.points.length <= 100 && both.points.length > 50, String(both.points.length));
  const [early] = both.points;
  const late = both.points[both.points.length - 1];
  assert.ok(early.cpu[0] < 3 && late.cpu[0] > 97, 'means of where they are');
  assert.deepEqual((await second.query(start - 1000_000, start - 1, 100)).points, []);

  const bounded = new History(join(folder, 'b'), 30);
  const long = 4 * 3600;
  for (let second_ = 0; second_ < long; second_++) {
    bounded.add(point(end - (long - second_) * 1000, [1]));
    // Writes are in the background; a real second leaves them time.
    if (second_ % 600 === 0) await bounded.query(0, 1, 2);
  }
  await bounded.close();
  const records = statSync(join(folder, 'b', 'seconds')).size / encodePoint(point(0, [1])).length;
  assert.ok(records <= 7200 + 700 && records >= 3600, `${records} of ${long} seconds are kept`);
});

test('rates between counters: percent of a CPU, a second, never negative', () => {
  const sample = (timestamp: number, hostCpuNs: number, instructions: number, pio: number) => ({
    timestamp,
    machineNs: 0,
    vcpus: [{ index: 0, state: 'running' as const, hostCpuNs, instructions, exits: { pio } }],
    memory: { totalBytes: 1, usedBytes: null, residentBytes: 1 },
    mips: 0,
  });
  const rates = ratesBetween(sample(1000, 0, 0, 0), sample(3000, 1e9, 4e6, 100));
  assert.deepEqual([rates.cpu, rates.mips, rates.exits], [[50], 2, { pio: 50 }]);
  assert.deepEqual(ratesBetween(undefined, sample(3000, 1e9, 4e6, 100)).cpu, [0]);
  assert.deepEqual(ratesBetween(sample(3000, 1e9, 4e6, 100), sample(2000, 2e9, 5e6, 200)).cpu, [0], 'the clock was set back');
  assert.deepEqual(ratesBetween(sample(1000, 5e9, 9e6, 9), sample(2000, 1e9, 1e6, 1)).mips, 0, 'the counters began anew');
});

test('where the time of the vCPUs goes: samples for the tiers, what was measured for the rest', () => {
  const sample = (
    seconds: number,
    samples: { baseline: number; regions: number; other: number },
    idle: number,
    decode: number,
  ) => ({
    timestamp: 1e12 + seconds * 1000,
    machineNs: 0,
    vcpus: [0, 1].map((index) => ({ index, state: 'running' as const, hostCpuNs: 0, instructions: 0, exits: {} })),
    memory: { totalBytes: 1, usedBytes: null, residentBytes: 1 },
    mips: 0,
    translator: {
      ...{ regions: 100 * seconds, farRegions: 10, declined: 1, drops: 0 },
      ...{ idleNs: idle * 1e9, decodeNs: decode * 1e9, compileNs: seconds * 5e7 },
      code: { regions: 90, maxRegions: 100, recordBytes: 1, maxRecordBytes: 2, moduleBytes: 3 },
      samples,
    },
  });
  const none = { baseline: 0, regions: 0, other: 0 };
  const of = (samples: typeof none, idle: number, decode: number) =>
    ratesBetween(sample(0, none, 0, 0), sample(1, samples, idle, decode)).translator;
  // Of two seconds, for there are two vCPUs: 40 % elsewhere, of them half a second asleep.
  const point = of({ baseline: 100, regions: 500, other: 400 }, 0.5, 0.1);
  assert.deepEqual([point?.compile, point?.decode, point?.regions, point?.code.regions], [50, 100, 100, 90]);
  const rounded = (shares: object | null | undefined) =>
    Object.fromEntries(Object.entries(shares ?? {}).map(([name, part]) => [name, Math.round(part * 1000) / 1000]));
  assert.deepEqual(rounded(point?.shares), { regions: 0.5, baseline: 0.1, making: 0.05, helpers: 0.1, idle: 0.25 });
  // More sleep than samples elsewhere leave room for: the parts still are one whole.
  const full = rounded(of({ baseline: 500, regions: 400, other: 100 }, 1.5, 1)?.shares);
  assert.deepEqual(full, { regions: 0.4, baseline: 0.5, making: 0, helpers: 0, idle: 0.1 });
  assert.equal(of({ baseline: 1, regions: 2, other: 3 }, 0, 0)?.shares, null, 'too few samples');
  assert.equal(ratesBetween(undefined, sample(1, none, 0, 0)).translator?.shares, null);
  const [anew] = [ratesBetween(sample(1, { baseline: 500, regions: 1, other: 1 }, 9, 9), sample(2, none, 0, 0)).translator];
  assert.deepEqual([anew?.shares, anew?.decode], [null, 0], 'the counters began anew');
});
