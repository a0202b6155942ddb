import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { QKeyCode } from '../bus/keys.ts';
import { Ps2Keyboard, ps2KeyboardState } from './ps2-keyboard.ts';
import { fresh, snapshotSuite } from './testing.ts';

function make() {
  const lights: number[] = [];
  const keyboard = new Ps2Keyboard(fresh(ps2KeyboardState), { changed() {}, ledsChanged: (leds) => lights.push(leds) });
  keyboard.reset();
  return { keyboard, lights };
}
const drain = (keyboard: Ps2Keyboard): string => {
  const out: string[] = [];
  while (keyboard.available) out.push(keyboard.take().toString(16).padStart(2, '0'));
  return out.join(' ');
};
const send = (keyboard: Ps2Keyboard, ...values: number[]): string => {
  const out: string[] = [];
  for (const value of values) {
    keyboard.write(value);
    out.push(drain(keyboard));
  }
  return out.join(' ');
};
const tap = (keyboard: Ps2Keyboard, key: QKeyCode): string => {
  keyboard.key(key, true);
  keyboard.key(key, false);
  return drain(keyboard);
};

test('commands as Linux atkbd sends them', () => {
  const { keyboard, lights } = make();
  assert.equal(send(keyboard, 0xff), 'fa aa');
  assert.equal(send(keyboard, 0xf2), 'fa ab 83');
  assert.equal(send(keyboard, 0xed, 0x07), 'fa fa');
  assert.equal(keyboard.leds, 7);
  assert.equal(send(keyboard, 0xf3, 0x00), 'fa fa');
  assert.equal(send(keyboard, 0xf0, 0x00), 'fa fa 02');
  assert.equal(send(keyboard, 0xee), 'ee');
  assert.equal(send(keyboard, 0xf5), 'fa');
  assert.equal(tap(keyboard, 'a'), '');
  assert.equal(send(keyboard, 0xf4), 'fa');
  assert.equal(send(keyboard, 0xd4), 'fe', 'what it does not know');
  assert.equal(send(keyboard, 0xfe), 'fe', 'the last byte again');
  assert.equal(send(keyboard, 0xed, 0xf4), 'fa fa', 'a command in place of the argument');
  assert.equal(keyboard.leds, 7);
  assert.equal(send(keyboard, 0xf0, 0x05), 'fa fe');
  assert.deepEqual(lights, [0, 7]);
});

test('set 2', () => {
  const { keyboard } = make();
  assert.equal(tap(keyboard, 'a'), '1c f0 1c');
  assert.equal(tap(keyboard, 'f7'), '83 f0 83');
  assert.equal(tap(keyboard, 'ctrl_r'), 'e0 14 e0 f0 14');
  assert.equal(tap(keyboard, 'up'), 'e0 75 e0 f0 75');
  assert.equal(tap(keyboard, 'kp_enter'), 'e0 5a e0 f0 5a');
  assert.equal(tap(keyboard, 'pause'), 'e1 14 77 e1 f0 14 f0 77');
  assert.equal(tap(keyboard, 'print'), 'e0 12 e0 7c e0 f0 7c e0 f0 12');
  assert.equal(tap(keyboard, 'volumeup'), 'e0 32 e0 f0 32');
  assert.equal(tap(keyboard, 'unmapped'), '');
});

test('Pause with Ctrl and SysRq with Alt are other keys', () => {
  const { keyboard } = make();
  keyboard.key('ctrl', true);
  drain(keyboard);
  assert.equal(tap(keyboard, 'pause'), 'e0 7e e0 f0 7e');
  keyboard.key('ctrl', false);
  keyboard.key('alt', true);
  drain(keyboard);
  assert.equal(tap(keyboard, 'sysrq'), '84 f0 84');
});

test('sets 1 and 3', () => {
  const { keyboard } = make();
  assert.equal(send(keyboard, 0xf0, 1), 'fa fa');
  assert.equal(tap(keyboard, 'a'), '1e 9e');
  assert.equal(tap(keyboard, 'delete'), 'e0 53 e0 d3');
  assert.equal(tap(keyboard, 'pause'), 'e1 1d 45 e1 9d c5');
  assert.equal(send(keyboard, 0xf0, 3), 'fa fa');
  assert.equal(tap(keyboard, 'f1'), '07 f0 07');
  assert.equal(send(keyboard, 0xfd, 0x07, 0x0f), 'fa fa fa');
  assert.equal(tap(keyboard, 'f1'), '07');
  assert.equal(send(keyboard, 0xf8), 'fa');
  assert.equal(tap(keyboard, 'f1'), '07 f0 07');
});

test('replies go before keys, and a full queue loses whole keystrokes but no release', () => {
  const { keyboard } = make();
  keyboard.key('b', true);
  keyboard.write(0xf2);
  assert.equal(drain(keyboard), 'fa ab 83 32');
  keyboard.key('right', true);
  for (let i = 0; i < 1000; i++) keyboard.key('x', true);
  keyboard.key('right', false);
  const all = drain(keyboard).split(' ');
  assert.ok(all.length <= 256);
  assert.deepEqual(all.slice(-3), ['e0', 'f0', '74']);
});

snapshotSuite(
  ps2KeyboardState,
  (state) => new Ps2Keyboard(state, { changed() {} }),
  (keyboard) => {
    keyboard.write(0xed);
    keyboard.write(2);
    keyboard.write(0xf3);
    keyboard.key('alt', true);
  },
  (keyboard) => [keyboard.leds, send(keyboard, 0x10), tap(keyboard, 'print'), send(keyboard, 0xfe)],
);
