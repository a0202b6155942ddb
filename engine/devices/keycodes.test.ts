import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keyNames, scancodeOf } from '../bus/keys.ts';
import { keyOfCharacter, keyOfKeysym, keyOfScancode } from './keycodes.ts';

test('every key with a scan code is found by it, or a namesake with the same code is', () => {
  for (const name of keyNames) {
    const code = scancodeOf(name);
    if (code === undefined) continue;
    const found = keyOfScancode(code);
    assert.ok(found !== undefined && scancodeOf(found) === code, name);
    if ((code & 0x80) !== 0) assert.equal(keyOfScancode(0xe000 | (code & 0x7f)), found);
  }
  assert.equal(scancodeOf('unmapped'), undefined);
  assert.equal(keyOfScancode(0x37), 'kp_multiply');
  assert.equal(keyOfScancode(0xdd), 'menu');
  assert.equal(keyOfScancode(0xff), undefined);
  assert.equal(keyOfScancode(0x12345), undefined);
});

test('symbols of X11', () => {
  const expected: [number, string | undefined][] = [
    [0x61, 'a'],
    [0x41, 'a'],
    [0x20, 'spc'],
    [0x40, '2'],
    [0x7e, 'grave_accent'],
    [0xff0d, 'ret'],
    [0xffbe, 'f1'],
    [0xffc9, 'f12'],
    [0xffb5, 'kp_5'],
    [0xffe3, 'ctrl'],
    [0xfe03, 'alt_r'],
    [0x1000041, 'a'],
    [0x1008ff13, 'volumeup'],
    [0xe9, undefined],
    [0x0, undefined],
  ];
  for (const [symbol, key] of expected) assert.equal(keyOfKeysym(symbol), key, symbol.toString(16));
});

test('every printable character of ASCII can be typed', () => {
  for (let code = 32; code < 127; code++) assert.ok(keyOfCharacter(String.fromCharCode(code)), String.fromCharCode(code));
  assert.deepEqual(keyOfCharacter('A'), { key: 'a', shift: true });
  assert.deepEqual(keyOfCharacter('"'), { key: 'apostrophe', shift: true });
  assert.deepEqual(keyOfCharacter('\n'), { key: 'ret', shift: false });
  assert.equal(keyOfCharacter('é'), undefined);
});
