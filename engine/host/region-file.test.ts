/** Regions that are kept on disk: found again by another machine, entered there with their machine code, and hostile files. */
import assert from 'node:assert/strict';
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { HOT_ENTRIES } from '../accel/jit/handlers.ts';
import { RegionCompiler } from '../accel/jit/region-compiler.ts';
import { Marks } from '../accel/jit/region-job.ts';
import { BareMachine, bareBaseline } from '../accel/jit/testing.ts';
import { nativeCode } from './native-code.ts';
import { RegionFile, regionFile } from './region-file.ts';

const folder = mkdtempSync(join(tmpdir(), 'regions-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** MOV ECX, rounds; 1: ADD RAX, step; DEC ECX; JNZ 1b; HLT */
const loop = (rounds: number, step: number): Uint8Array =>
  Uint8Array.of(0xb9, rounds & 0xff, rounds >> 8, 0, 0, 0x48, 0x83, 0xc0, step, 0xff, 0xc9, 0x75, 0xf8, 0xf4);

/** Runs the loop on a machine that has the file; tells how many regions it made anew. */
function run(path: string, step: number): number {
  const marks = new Marks();
  const store = new RegionFile(path);
  const bare = new BareMachine('both', HOT_ENTRIES, undefined, marks);
  const native = nativeCode(bare.memory);
  assert.ok(native !== undefined);
  const compiler = new RegionCompiler(bareBaseline(HOT_ENTRIES), marks, { store, native });
  let made = 0;
  bare.compile = (job) => {
    const reply = compiler.compile(job);
    assert.equal(reply.error, undefined);
    if (reply.microseconds > 0) made++;
    return reply;
  };
  const told: number[] = [];
  bare.vcpu.listener = { decoded: () => {}, translating: (job, page) => told.push(page + job.entry) };
  bare.long();
  bare.execute(loop(20_000, step));
  assert.equal(bare.register(0), BigInt(step * 20_000));
  assert.ok(bare.regions > 0);
  assert.ok(told.includes(0x100005), 'the loop is in the log, made or kept');
  compiler.store(0);
  compiler.store(1000);
  store.close();
  return made;
}

test('what one machine has made another finds, and makes only what is new', () => {
  const path = join(folder, 'regions.bin');
  assert.ok(run(path, 3) > 0);
  assert.equal(run(path, 3), 0);
  assert.ok(run(path, 5) > 0);
  assert.equal(run(path, 5), 0);
  assert.equal(run(path, 3), 0);
});

test('a file that is cut off, damaged or not one at all is as one with less in it', () => {
  const path = join(folder, 'damaged.bin');
  run(path, 3);
  const whole = readFileSync(path);
  for (const at of [0, 4, 7, 20, 39, 60, whole.length - 1]) {
    const bytes = Buffer.from(whole);
    bytes[at] ^= 0x55;
    writeFileSync(path, bytes);
    assert.ok(run(path, 3) > 0, `byte ${at}`);
  }
  writeFileSync(path, whole);
  truncateSync(path, whole.length - 5);
  assert.ok(run(path, 3) > 0);
  writeFileSync(path, 'something else');
  assert.ok(run(path, 3) > 0);
  assert.equal(run(path, 3), 0);
});

test('a file that is too long loses what was not used for longest', () => {
  const path = join(folder, 'long.bin');
  for (const step of [3, 5, 7, 9]) run(path, step);
  run(path, 3);
  const { size } = statSync(path);
  const short = new RegionFile(path, size - 1);
  short.close();
  assert.ok(statSync(path).size < size / 1.5);
  assert.equal(run(path, 3), 0);
  assert.ok(run(path, 5) > 0);
  // What is at its end and no entry ends with it.
  appendFileSync(path, Buffer.alloc(100));
  const file = new RegionFile(path);
  assert.ok([...file.marks].length > 0);
  file.close();
});

test('files of other versions do not pile up', () => {
  const own = join(folder, 'own');
  mkdirSync(own, { mode: 0o700 });
  for (let n = 0; n < 5; n++) {
    const path = join(own, `regions-${n}.bin`);
    writeFileSync(path, '');
    utimesSync(path, n, n);
  }
  const path = regionFile({ counting: false }, own);
  assert.ok(path !== undefined && !readdirSync(own).includes(path));
  assert.deepEqual(readdirSync(own).sort(), ['regions-3.bin', 'regions-4.bin']);
});
