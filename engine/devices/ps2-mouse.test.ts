import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MOUSE_EXTRA, MOUSE_LEFT, MOUSE_MIDDLE, MOUSE_SIDE, Ps2Mouse, ps2MouseState } from './ps2-mouse.ts';
import { fresh, snapshotSuite } from './testing.ts';

function make() {
  const mouse = new Ps2Mouse(fresh(ps2MouseState), { changed() {} });
  mouse.reset();
  return mouse;
}
const drain = (mouse: Ps2Mouse): number[] => {
  const out: number[] = [];
  while (mouse.available) out.push(mouse.take());
  return out;
};
const send = (mouse: Ps2Mouse, ...values: number[]): number[] =>
  values.flatMap((value) => {
    mouse.write(value);
    return drain(mouse);
  });
const knock = (mouse: Ps2Mouse, ...rates: number[]): number => {
  for (const rate of rates) send(mouse, 0xf3, rate);
  return send(mouse, 0xf2)[1];
};

test('reset, identification, status', () => {
  const mouse = make();
  assert.deepEqual(send(mouse, 0xff), [0xfa, 0xaa, 0]);
  assert.deepEqual(send(mouse, 0xf2), [0xfa, 0]);
  assert.deepEqual(send(mouse, 0xe8, 3), [0xfa, 0xfa]);
  assert.deepEqual(send(mouse, 0xf3, 40), [0xfa, 0xfa]);
  assert.deepEqual(send(mouse, 0xe7), [0xfa]);
  assert.deepEqual(send(mouse, 0xf4), [0xfa]);
  mouse.move(0, 0, 0, MOUSE_LEFT);
  drain(mouse);
  assert.deepEqual(send(mouse, 0xe9), [0xfa, 0x34, 3, 40]);
  assert.deepEqual(send(mouse, 0xab), [0xfe]);
});

test('three bytes: right and down, signs, no report before it is enabled', () => {
  const mouse = make();
  mouse.move(5, 5, 0, 0);
  assert.deepEqual(drain(mouse), []);
  send(mouse, 0xf4);
  mouse.move(5, 7, 0, MOUSE_LEFT);
  assert.deepEqual(drain(mouse), [0x29, 5, 0xf9]);
  mouse.move(-3, -200, 0, 0);
  assert.deepEqual(drain(mouse), [0x18, 0xfd, 127, 0x08, 0, 73]);
});

test('the wheel and the side buttons appear after their knocks', () => {
  const mouse = make();
  assert.equal(knock(mouse, 200, 100, 80), 3);
  send(mouse, 0xf4);
  mouse.move(0, 0, -1, MOUSE_MIDDLE);
  assert.deepEqual(drain(mouse), [0x0c, 0, 0, 0xff]);
  assert.equal(knock(mouse, 200, 200, 80), 4);
  mouse.move(1, 0, 1, MOUSE_SIDE | MOUSE_EXTRA);
  assert.deepEqual(drain(mouse), [0x08, 1, 0, 0x31]);
  send(mouse, 0xff);
  assert.equal(knock(mouse), 0);
});

test('clicks are kept apart while movement adds up', () => {
  const mouse = make();
  send(mouse, 0xf4);
  for (let i = 0; i < 100; i++) mouse.move(1, 0, 0, 0);
  for (let i = 0; i < 4; i++) {
    mouse.move(0, 0, 0, MOUSE_LEFT);
    mouse.move(0, 0, 0, 0);
  }
  const all = drain(mouse);
  let [x, presses, was] = [0, 0, 0];
  for (let i = 0; i < all.length; i += 3) {
    x += all[i + 1];
    if ((all[i] & 1) !== 0 && was === 0) presses++;
    was = all[i] & 1;
  }
  assert.equal(x, 100);
  assert.equal(presses, 4);
  for (let i = 0; i < 10000; i++) mouse.move(100, 100, 1, i & 1);
  assert.ok(drain(mouse).length < 512);
});

test('remote mode, wrap mode', () => {
  const mouse = make();
  send(mouse, 0xf0);
  mouse.move(9, 0, 0, 0);
  assert.deepEqual(drain(mouse), []);
  assert.deepEqual(send(mouse, 0xeb), [0xfa, 0x08, 9, 0]);
  assert.deepEqual(send(mouse, 0xee, 0xf2, 0x55, 0xec, 0xf2), [0xfa, 0xf2, 0x55, 0xfa, 0xfa, 0]);
});

snapshotSuite(
  ps2MouseState,
  (state) => new Ps2Mouse(state, { changed() {} }),
  (mouse) => {
    send(mouse, 0xf3, 200, 0xf3, 100);
    mouse.write(0xf4);
    mouse.move(300, -5, 0, MOUSE_LEFT);
  },
  (mouse) => [drain(mouse), send(mouse, 0xf3, 80, 0xf2, 0xe9)],
);
