import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keyNames, scancodeOf } from '../bus/keys.ts';
import { I8042, type I8042Wires, i8042State } from './i8042.ts';
import { Ps2Keyboard, ps2KeyboardState } from './ps2-keyboard.ts';
import { Ps2Mouse, ps2MouseState } from './ps2-mouse.ts';
import { fresh, RecordedLine, snapshotSuite } from './testing.ts';

function make() {
  let a20 = true;
  const counts = { resets: 0 };
  const irqs = { keyboard: new RecordedLine(), mouse: new RecordedLine() };
  let controller: I8042 | undefined;
  const changed = (): void => controller?.update();
  const keyboard = new Ps2Keyboard(fresh(ps2KeyboardState), { changed });
  const mouse = new Ps2Mouse(fresh(ps2MouseState), { changed });
  controller = new I8042(fresh(i8042State), {
    keyboard,
    mouse,
    keyboardIrq: irqs.keyboard,
    mouseIrq: irqs.mouse,
    a20: {
      get: () => a20,
      set: (on) => {
        a20 = on;
      },
    },
    reset: () => counts.resets++,
  });
  for (const device of [keyboard, mouse, controller]) device.reset();
  return { keyboard, mouse, controller, irqs, counts };
}
const status = (c: I8042): number => c.command.read(0, 1);
const ask = (c: I8042, command: number): number => {
  c.command.write(0, 1, command);
  assert.equal(status(c) & 1, 1);
  return c.data.read(0, 1);
};
const put = (c: I8042, command: number, value: number): void => {
  c.command.write(0, 1, command);
  c.data.write(0, 1, value);
};
const drain = (c: I8042): number[] => {
  const out: number[] = [];
  while ((status(c) & 1) !== 0) out.push(c.data.read(0, 1));
  return out;
};

test('controller commands: tests, command byte, ports', () => {
  const { controller: c } = make();
  assert.equal(ask(c, 0xaa), 0x55);
  assert.equal(status(c), 0x1c, 'system flag, last write was a command, not locked');
  assert.equal(ask(c, 0xab), 0);
  assert.equal(ask(c, 0xa9), 0);
  assert.equal(ask(c, 0xa4), 0xf1);
  assert.equal(ask(c, 0x20), 0x47);
  put(c, 0x60, 0x61);
  assert.equal(ask(c, 0x20), 0x61);
  put(c, 0x65, 0x99);
  assert.equal(ask(c, 0x25), 0x99);
  c.command.write(0, 1, 0xa7);
  c.command.write(0, 1, 0xad);
  assert.equal(ask(c, 0x20), 0x71);
  c.command.write(0, 1, 0xa8);
  c.command.write(0, 1, 0xae);
  assert.equal(ask(c, 0x20), 0x41);
});

test('A20 and reset', () => {
  const { controller: c, counts } = make();
  assert.equal(ask(c, 0xd0) & 3, 3);
  put(c, 0xd1, 0xdd);
  assert.equal(ask(c, 0xd0) & 3, 1);
  c.command.write(0, 1, 0xdf);
  assert.equal(ask(c, 0xd0) & 3, 3);
  c.command.write(0, 1, 0xff);
  assert.equal(counts.resets, 0);
  c.command.write(0, 1, 0xfe);
  put(c, 0xd1, 0x02);
  assert.equal(counts.resets, 2);
});

test('a key: translated, one interrupt a byte', () => {
  const { controller: c, keyboard, irqs } = make();
  keyboard.key('up', true);
  keyboard.key('up', false);
  assert.equal(irqs.keyboard.edges, 1);
  assert.deepEqual(drain(c), [0xe0, 0x48, 0xe0, 0xc8]);
  assert.equal(irqs.keyboard.edges, 4);
  assert.equal(irqs.keyboard.level, false);
  put(c, 0x60, 0x04);
  keyboard.key('f7', true);
  keyboard.key('f7', false);
  assert.deepEqual(drain(c), [0x83, 0xf0, 0x83], 'raw, and without interrupt');
  assert.equal(irqs.keyboard.edges, 4);
});

test('translation gives the set 1 code of every key', () => {
  const { controller: c, keyboard } = make();
  for (const name of keyNames) {
    const code = scancodeOf(name);
    if (code === undefined || ['pause', 'print', 'sysrq', 'lang1', 'lang2'].includes(name)) continue;
    const prefix = (code & 0x80) !== 0 ? [0xe0] : [];
    keyboard.key(name, true);
    keyboard.key(name, false);
    assert.deepEqual(drain(c), [...prefix, code & 0x7f, ...prefix, code | 0x80], name);
  }
  keyboard.key('pause', true);
  assert.deepEqual(drain(c), [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]);
  keyboard.key('print', true);
  keyboard.key('print', false);
  assert.deepEqual(drain(c), [0xe0, 0x2a, 0xe0, 0x37, 0xe0, 0xb7, 0xe0, 0xaa]);
});

test('keyboard start as SeaBIOS does it: identity is translated, the interface is off until spoken to', () => {
  const { controller: c, keyboard } = make();
  c.command.write(0, 1, 0xad);
  keyboard.key('a', true);
  assert.equal(status(c) & 1, 0, 'held back');
  c.data.write(0, 1, 0xf2);
  assert.deepEqual(drain(c), [0xfa, 0xab, 0x41, 0x1e]);
});

test('the mouse: marked in the status, IRQ 12', () => {
  const { controller: c, mouse, irqs } = make();
  put(c, 0xd4, 0xf2);
  assert.equal(status(c) & 0x21, 0x21);
  assert.deepEqual(drain(c), [0xfa, 0x00]);
  put(c, 0xd4, 0xf4);
  drain(c);
  irqs.mouse.edges = 0;
  mouse.move(1, 2, 0, 0);
  assert.deepEqual(drain(c), [0x28, 1, 0xfe]);
  assert.equal(irqs.mouse.edges, 3);
  assert.equal(irqs.keyboard.edges, 0);
});

test('loops of Linux i8042_check_aux: D3 comes back as from the mouse, D2 as from the keyboard', () => {
  const { controller: c } = make();
  put(c, 0xd3, 0x5a);
  assert.equal(status(c) & 0x21, 0x21);
  assert.equal(c.data.read(0, 1), 0x5a);
  put(c, 0xd2, 0xa5);
  assert.equal(status(c) & 0x21, 0x01);
  assert.equal(c.data.read(0, 1), 0xa5);
  assert.equal(c.data.read(0, 1), 0xa5, 'an empty buffer keeps its last byte');
});

test('a reply waits for a key that is in the buffer', () => {
  const { controller: c, keyboard } = make();
  keyboard.key('a', true);
  c.command.write(0, 1, 0x20);
  assert.deepEqual(drain(c), [0x1e, 0x47]);
});

test('any sequence of writes is taken', () => {
  const { controller: c, keyboard, mouse } = make();
  let seed = 11;
  const random = (n: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % n;
  };
  for (let i = 0; i < 20000; i++) {
    const port = random(2) === 0 ? c.data : c.command;
    if (random(3) === 0) port.read(0, 1);
    else port.write(0, 1, random(256));
    keyboard.key(keyNames[random(keyNames.length)], random(2) === 0);
    mouse.move(random(300) - 150, random(300) - 150, random(3) - 1, random(32));
    const value = c.data.read(0, 1);
    assert.ok(value >= 0 && value <= 255);
  }
});

const silent = { available: false, take: () => 0, write() {} };
const wires: I8042Wires = {
  keyboard: silent,
  mouse: silent,
  keyboardIrq: new RecordedLine(),
  mouseIrq: new RecordedLine(),
  a20: { get: () => true, set() {} },
  reset() {},
};
snapshotSuite(
  i8042State,
  (state) => new I8042(state, wires),
  (c) => {
    put(c, 0x60, 0x63);
    put(c, 0xd3, 0x77);
    c.command.write(0, 1, 0x20);
    c.command.write(0, 1, 0x65);
  },
  (c) => {
    const before = status(c);
    c.data.write(0, 1, 0x12);
    return [before, drain(c), ask(c, 0x25)];
  },
);
