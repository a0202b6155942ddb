/** Recordings of what came from outside. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SharedState } from '../memory/shared-state.ts';
import { type OutsideEvent, OutsideRing, parseRecording, type Recorded, recordingLine, recordingStart } from './outside.ts';

const events: OutsideEvent[] = [
  { kind: 'char', line: 0, data: [0, 10, 255] },
  { kind: 'key', key: 'ctrl', down: true },
  { kind: 'mouse', dx: -1, dy: 2, wheel: 0, buttons: 4 },
  { kind: 'power' },
];

test('a recording is read as it was written', () => {
  const list = events.map((event, n): Recorded => ({ count: n * 1e12, time: n + 0.5, event }));
  assert.deepEqual(parseRecording(recordingStart() + list.map(recordingLine).join('')), list);
});

test('what is no recording is refused with the line', () => {
  assert.throws(() => parseRecording('hello\n'), /is no recording/);
  for (const line of [
    '{',
    '{"count":1,"time":2,"event":{"kind":"key","key":3,"down":true}}',
    '{"count":-0.5,"time":2,"event":{"kind":"power"}}',
  ])
    assert.throws(() => parseRecording(`${recordingStart()}\n${line}\n`), /line 3 is no event/, line);
  assert.throws(
    () => parseRecording(`${recordingStart()}{"count":1,"time":2,"event":{"kind":"char","line":0,"data":[256]}}`),
    /line 2/,
  );
});

test('the ring keeps events in order, and loses them whole where it is full', () => {
  let rung = 0;
  const shared = new SharedState(new SharedArrayBuffer(1 << 20), 0, 1 << 20, 1);
  const ring = new OutsideRing(shared, () => rung++);
  assert.ok(ring.isEmpty);
  for (const event of events) assert.ok(ring.post(event));
  assert.equal(rung, events.length);
  assert.deepEqual(ring.take(), events);
  let posted = 0;
  while (ring.post({ kind: 'char', line: 1, data: Array.from({ length: 1000 }, () => 65) })) posted++;
  assert.ok(posted > 10);
  assert.equal(ring.take().length, posted);
  assert.deepEqual(ring.take(), []);
});
