import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { BaselineModule, BaselineOptions } from '../accel/jit/handlers.ts';
import { cachedBaseline } from './baseline-cache.ts';

const options = (pages: number): BaselineOptions => ({ memory64: false, initialPages: pages, maximumPages: pages });

/** A builder that counts, and a folder of its own. */
function setUp(): { folder: string; get: (pages?: number) => BaselineModule; built: () => number; remove: () => void } {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-cache-'));
  let built = 0;
  const build = ({ initialPages }: BaselineOptions): BaselineModule => {
    built++;
    return {
      bytes: Uint8Array.from({ length: 1000 }, (_, n) => n ^ initialPages),
      handlers: 7,
      helpers: ['slow_load'],
      signatures: { slow_load: { params: ['i32'], result: 'i32' } },
    };
  };
  return {
    folder,
    get: (pages = 1) => cachedBaseline(options(pages), build, folder),
    built: () => built,
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

test('what was built once is found again, for the same options', () => {
  const { get, built, remove } = setUp();
  const first = get();
  assert.deepEqual(get(), first);
  assert.equal(built(), 1);
  assert.notDeepEqual(get(2).bytes, first.bytes);
  assert.equal(built(), 2);
  remove();
});

test('a file that was cut off or changed is built again', () => {
  const { folder, get, built, remove } = setUp();
  const first = get();
  const path = join(folder, readdirSync(folder)[0]);
  truncateSync(path, 500);
  assert.deepEqual(get(), first);
  const data = readFileSync(path);
  data[data.length - 100] ^= 1;
  writeFileSync(path, data);
  assert.deepEqual(get(), first);
  writeFileSync(path, '');
  assert.deepEqual(get(), first);
  assert.equal(built(), 4);
  assert.deepEqual(get(), first);
  assert.equal(built(), 4);
  remove();
});

test('few files are kept, and no partial ones', () => {
  const { folder, get, remove } = setUp();
  for (let pages = 1; pages <= 10; pages++) get(pages);
  const names = readdirSync(folder);
  assert.equal(names.length, 6);
  assert.ok(names.every((name) => name.endsWith('.bin')));
  remove();
});

test('a folder that others can write to is not trusted', {
  skip: process.getuid === undefined ? 'no file modes here' : false,
}, () => {
  const { folder, get, built, remove } = setUp();
  chmodSync(folder, 0o777);
  get();
  get();
  assert.equal(built(), 2);
  assert.deepEqual(readdirSync(folder), []);
  remove();
});
