import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { nodeBlockHost as host } from '../host/block-file.ts';
import { Drive } from './drive.ts';
import { createQcow2 } from './qcow2/create.ts';

test('zeros that are written take no storage where they are looked for', (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-zeros-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  /** Bytes of the disk that have storage after data, and then zeros over half of it. */
  const stored = (detectZeroes: 'off' | 'on' | 'unmap'): number => {
    const file = join(folder, `${detectZeroes}.qcow2`);
    const created = host.openFile(file, { write: true, create: true });
    createQcow2(created, host, { size: 1 << 20 });
    created.close();
    const hooks = { job: () => {}, sleep: () => {} };
    const drive = new Drive(
      host,
      { file, format: 'qcow2', readOnly: false, cache: 'writeback', unmap: true, nodeName: 'a', detectZeroes },
      hooks,
    );
    drive.disk.write(0, new Uint8Array(1 << 19).fill(7));
    drive.disk.write(1 << 18, new Uint8Array(1 << 18));
    drive.disk.write(1 << 19, new Uint8Array(1 << 18));
    const back = new Uint8Array(1 << 20);
    drive.disk.read(0, back);
    assert.ok(back.every((byte, at) => byte === (at < 1 << 18 ? 7 : 0)));
    let bytes = 0;
    for (let at = 0; at < 1 << 20; ) {
      const run = drive.image.blockStatus(at, (1 << 20) - at);
      if (run.kind === 'data') bytes += run.length;
      at += run.length;
    }
    drive.close(() => {});
    return bytes;
  };
  assert.equal(stored('off'), 3 << 18);
  assert.equal(stored('on'), 1 << 18);
  assert.equal(stored('unmap'), 1 << 18);
});
