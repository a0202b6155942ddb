import assert from 'node:assert/strict';
import { test } from 'node:test';
import { strokesOf } from './us-keyboard.ts';

test('characters of a US keyboard name their keys, with Shift where it is held', () => {
  assert.deepEqual(strokesOf('aA1!|\r\n\t '), [
    { keysym: 0x61, code: 'KeyA', shift: false },
    { keysym: 0x41, code: 'KeyA', shift: true },
    { keysym: 0x31, code: 'Digit1', shift: false },
    { keysym: 0x21, code: 'Digit1', shift: true },
    { keysym: 0x7c, code: 'Backslash', shift: true },
    { keysym: 0xff0d, code: 'Enter', shift: false },
    { keysym: 0xff09, code: 'Tab', shift: false },
    { keysym: 0x20, code: 'Space', shift: false },
  ]);
});

test('every printable ASCII character has a key', () => {
  for (let code = 0x20; code < 0x7f; code++) assert.notEqual(strokesOf(String.fromCharCode(code))[0].code, null, String(code));
});

test('other characters go by keysym, control characters not at all', () => {
  assert.deepEqual(strokesOf('é☃\u0007'), [
    { keysym: 0xe9, code: null, shift: false },
    { keysym: 0x01002603, code: null, shift: false },
  ]);
});
