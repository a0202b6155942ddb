import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { humanSize, parseArgs, parseKeyValues, parseSize, UsageError } from './args.ts';
import { imgMain } from './main.ts';

const dir = mkdtempSync(join(tmpdir(), 'vivarium-img-'));
after(() => rmSync(dir, { recursive: true, force: true }));
const at = (name: string) => join(dir, name);

async function img(...argv: string[]): Promise<{ status: number; out: string }> {
  let out = '';
  const streams = [process.stdout, process.stderr] as const;
  const saved = streams.map((stream) => stream.write);
  for (const stream of streams)
    stream.write = ((text: string) => {
      out += text;
      return true;
    }) as typeof stream.write;
  try {
    return { status: await imgMain(argv), out };
  } finally {
    streams.forEach((stream, i) => {
      stream.write = saved[i];
    });
  }
}

it('create, info, resize, check, map of an image as people write them', async () => {
  const made = await img('create', '-f', 'qcow2', at('ubuntu.qcow2'), '5G');
  assert.equal(made.status, 0, made.out);
  assert.match(made.out, /^Formatting '.*ubuntu.qcow2', fmt=qcow2 cluster_size=65536 .*size=5368709120/);
  const info = JSON.parse((await img('info', '--output=json', at('ubuntu.qcow2'))).out);
  assert.equal(info['virtual-size'], 5 * 2 ** 30);
  assert.equal(info['format-specific'].data.compat, '1.1');
  assert.ok(info['actual-size'] < 1 << 20);
  assert.equal((await img('resize', at('ubuntu.qcow2'), '+1G')).status, 0);
  const shrink = await img('resize', at('ubuntu.qcow2'), '1G');
  assert.equal(shrink.status, 1);
  assert.match(shrink.out, /--shrink/);
  assert.equal((await img('resize', '--shrink', at('ubuntu.qcow2'), '1G')).status, 0);
  assert.match((await img('info', at('ubuntu.qcow2'))).out, /virtual size: 1 GiB \(1073741824 bytes\)/);
  assert.match((await img('check', at('ubuntu.qcow2'))).out, /No errors were found/);
  assert.equal(
    (await img('map', '--output=json', at('ubuntu.qcow2'))).out,
    '[{ "start": 0, "length": 1073741824, "depth": 0, "present": false, "zero": true, "data": false}]\n',
  );
});

it('convert there and back, sparse, compressed, with progress', async () => {
  const raw = new Uint8Array(3 << 20);
  raw.fill(5, 100_000, 200_000);
  raw.fill(6, 2 << 20, (2 << 20) + 5);
  writeFileSync(at('raw'), raw);
  const out = await img('convert', '-p', '-c', '-f', 'raw', '-O', 'qcow2', at('raw'), at('packed'));
  assert.equal(out.status, 0, out.out);
  assert.match(out.out, /\(100\.00\/100%\)/);
  assert.ok(readFileSync(at('packed')).length < 512 * 1024);
  assert.equal((await img('convert', '-O', 'raw', at('packed'), at('back'))).status, 0);
  assert.equal(Buffer.compare(readFileSync(at('back')), raw), 0);
  assert.deepEqual(await img('compare', at('raw'), at('packed')), { status: 0, out: 'Images are identical.\n' });
  raw[150_000] = 0;
  writeFileSync(at('raw'), raw);
  assert.deepEqual(await img('compare', '-f', 'raw', at('raw'), at('packed')), {
    status: 1,
    out: 'Content mismatch at offset 150000!\n',
  });
});

it('errors name what is wrong, and nothing is overwritten', async () => {
  const cases: [string[], RegExp, number][] = [
    [['bogus'], /Command not found: bogus/, 1],
    [['create', '-f', 'qcow3', at('x'), '1M'], /Unknown file format/, 1],
    [['create', '-f', 'qcow2', at('x')], /needs a size/, 1],
    [['create', '-f', 'qcow2', at('x'), '1Q'], /Invalid image size/, 1],
    [['create', '-f', 'qcow2', '-o', 'cluster_size=1000', at('x'), '1M'], /power of two/, 1],
    [['create', '-f', 'qcow2', '-o', 'nonsense=1', at('x'), '1M'], /Invalid parameter 'nonsense'/, 1],
    [['create', '-f', 'qcow2', '-b', at('none'), '-F', 'raw', at('x')], /No such file/, 1],
    [['create', '-f', 'qcow2', '-b', at('raw'), at('x')], /without backing format/, 1],
    [['create', at('no/such/folder/x'), '1M'], /No such file or directory/, 1],
    [['info', at('nothing')], /Could not open '.*nothing': No such file/, 1],
    [['info', dir], /directory/, 1],
    [['check', '-f', 'raw', at('raw')], /does not support checks/, 63],
    [['snapshot', '-d', 'x', at('packed')], /Could not delete snapshot 'x': snapshot not found/, 1],
    [['convert', '--frobnicate', 'a', 'b'], /unrecognized option '--frobnicate'/, 1],
    [['compare', at('raw'), at('nothing')], /Could not open/, 2],
    [['commit', at('packed')], /does not have a backing file/, 1],
    [['convert', '-O', 'vmdk', at('raw'), at('x')], /can be read but not created/, 1],
    [['resize', at('packed'), '-1T'], /must be positive/, 1],
  ];
  for (const [argv, message, status] of cases) {
    const result = await img(...argv);
    assert.match(result.out, message, argv.join(' '));
    assert.equal(result.status, status, argv.join(' '));
  }
  assert.equal((await img('--help')).status, 0);
  assert.match((await img('create', '-f', 'qcow2', '-o', 'help')).out, /cluster_size/);
});

it('a repair says what it did and exits 0, and a check alone writes nothing', async () => {
  assert.equal((await img('create', '-f', 'qcow2', '-o', 'cluster_size=4k', at('leaky'), '1M')).status, 0);
  const bytes = readFileSync(at('leaky'));
  // The refcount block lies in the third cluster: count a cluster nobody uses.
  bytes[2 * 4096 + 2 * 40 + 1] = 1;
  writeFileSync(at('leaky'), bytes);
  const found = await img('check', at('leaky'));
  assert.equal(found.status, 3, found.out);
  assert.match(found.out, /1 leaked clusters were found/);
  assert.equal(Buffer.compare(readFileSync(at('leaky')), bytes), 0);
  const fixed = await img('check', '-r', 'leaks', at('leaky'));
  assert.equal(fixed.status, 0, fixed.out);
  assert.match(fixed.out, /found and repaired:\n\n {4}1 leaked clusters\n {4}0 corruptions/);
  assert.equal((await img('check', '--output=json', at('leaky'))).status, 0);
});

it('arguments', () => {
  const parsed = parseArgs(['-pq', '-Oqcow2', '--output=json', 'a', '-o', 'x=1', '-o', 'y', '--', '-z'], {
    values: { '-O': 'target', '--output': 'output', '-o': 'options' },
    flags: { '-p': 'progress', '-q': 'quiet' },
  });
  assert.deepEqual([...parsed.flags], ['progress', 'quiet']);
  assert.deepEqual(parsed.rest, ['a', '-z']);
  assert.deepEqual(parsed.lists.options, ['x=1', 'y']);
  assert.deepEqual(
    [...parseKeyValues('a=1,b=x,,y,c')],
    [
      ['a', '1'],
      ['b', 'x,y'],
      ['c', 'on'],
    ],
  );
  assert.equal(parseSize('1.5G'), 1.5 * 2 ** 30);
  assert.equal(parseSize('64k'), 65536);
  for (const bad of ['', 'x', '-1', '1e3', '9E9', '99999E']) assert.throws(() => parseSize(bad), UsageError);
  assert.equal(humanSize(400 * 1024), '400 KiB');
  assert.equal(humanSize(5 * 2 ** 30), '5 GiB');
  assert.equal(humanSize(2297856), '2.19 MiB');
});
