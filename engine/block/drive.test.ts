import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it, type TestContext } from 'node:test';
import { nodeBlockHost as host } from '../host/block-file.ts';
import { Drive } from './drive.ts';
import type { DriveJob, JobPlan } from './drive-jobs.ts';
import { Limits } from './limits.ts';
import { createQcow2 } from './qcow2/create.ts';

const SIZE = 6 << 20;
const qemuImg = spawnSync('qemu-img', ['--version']).status === 0;

function setUp(context: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-drive-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const path = (name: string): string => join(folder, name);
  const file = host.openFile(path('base.qcow2'), { write: true, create: true });
  createQcow2(file, host, { size: SIZE });
  file.close();
  const told: { id: string; ready: boolean; ended: boolean; error?: string }[] = [];
  const drive = new Drive(
    host,
    { file: path('base.qcow2'), format: 'qcow2', readOnly: false, cache: 'writeback', unmap: true, nodeName: 'disk' },
    { job: ({ id, ready, ended, error }: DriveJob) => told.push({ id, ready, ended, error }), sleep: () => {} },
  );
  context.after(() => drive.close(() => {}));
  const model = new Uint8Array(SIZE);
  let seed = 1;
  const random = (limit: number): number => {
    seed = (seed * 1103515245 + 12345) & 0x7fffffff;
    return seed % limit;
  };
  /** What a guest might do next. */
  const change = (): void => {
    const at = random(SIZE / 512) * 512;
    const length = Math.min(SIZE - at, (1 + random(200)) * 512);
    if (random(5) === 0) {
      drive.disk.writeZeroes(at, length, true);
      model.fill(0, at, at + length);
    } else {
      const data = new Uint8Array(length).fill(1 + random(255));
      drive.disk.write(at, data);
      model.set(data, at);
    }
  };
  const check = (): void => {
    const data = new Uint8Array(SIZE);
    drive.disk.read(0, data);
    assert.ok(Buffer.from(data).equals(model), 'the guest reads what it wrote');
  };
  const files = (): string[] => drive.chain().map(({ filename }) => filename.slice(folder.length + 1));
  /** Runs a job to where it waits or ends, with the guest writing between the steps. */
  const run = (plan: JobPlan): DriveJob => {
    drive.start(plan);
    const job = drive.job(plan.id);
    for (let n = 0; n < 10_000 && !job.ready && !job.ended; n++) {
      drive.work(n * 1000);
      change();
    }
    return job;
  };
  for (let n = 0; n < 30; n++) change();
  return { path, drive, told, model, change, check, files, run };
}

const verify = (path: string): void => {
  if (qemuImg) execFileSync('qemu-img', ['check', '-q', path]);
};

it('overlays on top of each other, streamed away again', (context) => {
  const { path, drive, change, check, files, run } = setUp(context);
  drive.overlay(path('one.qcow2'), 'qcow2', 'absolute-paths', 'one');
  for (let n = 0; n < 20; n++) change();
  drive.overlay(path('two.qcow2'), 'qcow2', 'absolute-paths', undefined);
  for (let n = 0; n < 20; n++) change();
  check();
  assert.deepEqual(files(), ['two.qcow2', 'one.qcow2', 'base.qcow2']);
  assert.equal(drive.nameOf(drive.find('one')), 'one');
  assert.throws(() => drive.overlay(path('one.qcow2'), 'qcow2', 'absolute-paths', 'x'), /already/);
  assert.equal(run({ id: 's', speed: 0, kind: 'stream', base: 'disk' }).error, undefined);
  assert.deepEqual(files(), ['two.qcow2', 'base.qcow2']);
  check();
  assert.equal(run({ id: 's', speed: 0, kind: 'stream' }).error, undefined);
  assert.deepEqual(files(), ['two.qcow2']);
  check();
  drive.disk.flush();
  drive.close(() => {});
  verify(path('two.qcow2'));
});

it('commits: of an image in the middle, of the active one, cancelled and completed', (context) => {
  const { path, drive, model, change, check, files, run } = setUp(context);
  for (const name of ['one', 'two', 'three']) {
    drive.overlay(path(`${name}.qcow2`), 'qcow2', 'absolute-paths', name);
    for (let n = 0; n < 15; n++) change();
  }
  assert.throws(() => drive.start({ id: 'c', speed: 0, kind: 'commit', top: 'disk' }), /below its top/);
  assert.equal(run({ id: 'c', speed: 0, kind: 'commit', top: 'two', base: 'disk' }).error, undefined);
  assert.deepEqual(files(), ['three.qcow2', 'base.qcow2']);
  check();
  const cancelled = run({ id: 'd', speed: 0, kind: 'commit' });
  assert.ok(cancelled.ready);
  cancelled.cancel(false);
  drive.work(0);
  change();
  assert.deepEqual(files(), ['three.qcow2', 'base.qcow2']);
  check();
  const job = run({ id: 'e', speed: 0, kind: 'commit' });
  assert.throws(() => drive.resize(SIZE * 2), /job 'e'/);
  change();
  job.complete();
  drive.work(0);
  assert.deepEqual(files(), ['base.qcow2']);
  change();
  check();
  drive.close(() => {});
  verify(path('base.qcow2'));
  if (qemuImg) {
    execFileSync('qemu-img', ['convert', '-O', 'raw', path('base.qcow2'), path('flat')]);
    writeFileSync(path('model'), model);
    execFileSync('cmp', [path('flat'), path('model')]);
  }
});

it('mirrors: to a raw file, taken over; a target that fails ends the job and not the guest', (context) => {
  const { path, drive, told, change, check, files, run } = setUp(context);
  const job = run({
    id: 'm',
    speed: 0,
    kind: 'mirror',
    target: path('copy.raw'),
    format: 'raw',
    mode: 'absolute-paths',
    sync: 'full',
  });
  for (let n = 0; n < 10; n++) change();
  job.complete();
  drive.work(0);
  assert.deepEqual(files(), ['copy.raw']);
  assert.equal(statSync(path('copy.raw')).size, SIZE);
  check();
  assert.throws(
    () => drive.start({ id: 'n', speed: 0, kind: 'mirror', target: path('none/x'), mode: 'absolute-paths', sync: 'full' }),
    /No such file/,
  );
  change();
  check();
  assert.ok(told.some(({ id, ready }) => id === 'm' && ready));
});

it('media: taken out, put in, and back where the new one cannot be opened', (context) => {
  const { path, drive, check } = setUp(context);
  const { options } = drive;
  assert.ok(options !== undefined);
  assert.throws(() => drive.setMedium({ ...options, file: path('none') }), /No such file/);
  check();
  drive.setMedium(undefined);
  assert.equal(drive.disk.size, 0);
  assert.throws(() => drive.disk.read(0, new Uint8Array(512)), /no medium/);
  assert.equal(drive.describe().options, undefined);
  drive.setMedium(options);
  check();
});

it('limits hold requests back', () => {
  let now = 0;
  const limits = new Limits(
    (milliseconds) => {
      now += milliseconds;
    },
    () => now,
  );
  limits.set({ bpsRead: 1 << 20, iopsWrite: 100 });
  for (let n = 0; n < 100; n++) limits.take('read', 65536);
  assert.ok(Math.abs(now - 6150) < 100, `6.25 MiB at 1 MiB/s less the burst took ${now} ms`);
  now = 0;
  limits.set({ iopsWrite: 100 });
  for (let n = 0; n < 500; n++) limits.take('write', 512);
  assert.ok(Math.abs(now - 4900) < 100, `500 operations at 100/s took ${now} ms`);
  limits.set({});
  now = 0;
  limits.take('write', 1e9);
  assert.equal(now, 0);
});
