import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { LogFile } from './log-file.ts';

const folder = mkdtempSync(join(tmpdir(), 'vivarium-log-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const texts = (lines: string[]): string[] => lines.map((line) => line.slice(25));

test('output split anywhere becomes whole lines with their time', async () => {
  const log = new LogFile(join(folder, 'a.log'));
  log.writeOutput('one\ntw');
  log.writeOutput('o\nthr');
  assert.deepEqual(texts(await log.tail(10)), ['one', 'two']);
  log.flush();
  assert.deepEqual(texts(await log.tail(10)), ['one', 'two', 'thr']);
  assert.match((await log.tail(1))[0], /^\d{4}-\d\d-\d\dT[\d:.]+Z thr$/);
});

test('a guest that talks without end fills a few files of bounded size; the tail goes over their border', async () => {
  const log = new LogFile(join(folder, 'b.log'));
  const line = 'x'.repeat(3000);
  for (let count = 0; count < 2500; count++) log.write(`${count} ${line}`);
  const files = readdirSync(folder).filter((name) => name.startsWith('b.log'));
  assert.deepEqual(files.sort(), ['b.log', 'b.log.1', 'b.log.2', 'b.log.3']);
  const tail = texts(await log.tail(400)).map((text) => Number(text.split(' ')[0]));
  assert.equal(tail.at(-1), 2499);
  for (const [index, number] of tail.entries()) assert.equal(number, tail[0] + index);
});

test('a log that cannot be written ends nothing', async () => {
  writeFileSync(join(folder, 'file'), '');
  const log = new LogFile(join(folder, 'file', 'c.log'));
  log.write('lost');
  assert.deepEqual(await log.tail(5), []);
});
