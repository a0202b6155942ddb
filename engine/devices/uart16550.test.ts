import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock, fresh, RecordedLine, snapshotSuite } from './testing.ts';
import { Uart16550, uart16550State } from './uart16550.ts';

class Sink {
  text = '';
  full = false;
  write(data: Uint8Array): number {
    if (this.full) return 0;
    this.text += String.fromCharCode(...data);
    return data.length;
  }
}
function make() {
  const clock = new FakeClock();
  const irq = new RecordedLine();
  const sink = new Sink();
  const counts = { room: 0 };
  const uart = new Uart16550(fresh(uart16550State), { name: 'uart0', clock, irq, sink, roomMade: () => counts.room++ });
  uart.reset();
  const put = (at: number, value: number): void => uart.write(at, 1, value);
  const get = (at: number): number => uart.read(at, 1);
  const type = (text: string): void => uart.receive(Uint8Array.from(text, (c) => c.charCodeAt(0)));
  return { clock, irq, sink, uart, put, get, type, counts };
}

test('probing as Linux autoconfig does: IER, scratch, loopback, FIFO, divisor', () => {
  const { put, get, uart } = make();
  put(1, 0);
  assert.equal(get(1), 0);
  put(1, 0xff);
  assert.equal(get(1), 0x0f);
  put(1, 0);
  put(4, 0x1a);
  assert.equal(get(6) & 0xf0, 0x90);
  put(4, 0);
  assert.equal(get(6) & 0xf0, 0xb0);
  put(2, 1);
  assert.equal(get(2) >> 6, 3, '16550A');
  put(2, 0);
  assert.equal(get(2), 1);
  put(7, 0x5a);
  assert.equal(get(7), 0x5a);
  put(3, 0x83);
  put(0, 1);
  put(1, 0);
  assert.deepEqual([get(0), get(1)], [1, 0]);
  put(3, 0x03);
  assert.equal(uart.baud, 115200);
  assert.equal(get(5), 0x60);
});

test('polled output', () => {
  const { put, get, sink } = make();
  for (const c of 'boot') {
    assert.equal(get(5) & 0x20, 0x20);
    put(0, c.charCodeAt(0));
  }
  assert.equal(sink.text, 'boot');
});

test('transmit interrupt: on enabling, ended by reading IIR, again after each byte', () => {
  const { put, get, irq } = make();
  put(4, 0x0b);
  put(1, 2);
  assert.equal(irq.level, true);
  assert.equal(get(2), 2);
  assert.equal(irq.level, false);
  assert.equal(get(2), 1);
  put(1, 0);
  put(1, 2);
  assert.equal(get(2), 2, 'the THRE test of Linux');
  put(0, 65);
  assert.equal(irq.edges, 3);
  put(0, 66);
  assert.equal(irq.edges, 4);
});

test('without OUT2 no interrupt leaves the card', () => {
  const { put, get, irq } = make();
  put(1, 2);
  assert.equal(irq.level, false);
  assert.equal(get(2), 2);
});

test('a sink that is full keeps THRE low until it has room', () => {
  const { put, get, sink, irq, uart } = make();
  put(4, 8);
  put(2, 1);
  put(1, 2);
  get(2);
  sink.full = true;
  for (let i = 0; i < 20; i++) put(0, 97 + i);
  assert.equal(get(5) & 0x60, 0);
  assert.equal(irq.level, false);
  sink.full = false;
  uart.drained();
  assert.equal(sink.text, 'abcdefghijklmnop', 'what went beyond the FIFO is lost');
  assert.equal(get(5) & 0x60, 0x60);
  assert.equal(irq.level, true);
});

test('receiving without FIFO: one byte at a time', () => {
  const { put, get, irq, uart, type, counts } = make();
  put(4, 8);
  put(1, 1);
  assert.equal(uart.room(), 1);
  type('x');
  assert.equal(uart.room(), 0);
  assert.equal(get(2), 4);
  assert.equal(get(5), 0x61);
  assert.equal(get(0), 120);
  assert.equal(irq.level, false);
  assert.equal(uart.room(), 1);
  assert.ok(counts.room > 0);
});

test('FIFO: the trigger level, and the timeout below it', () => {
  const { put, get, irq, uart, type, clock } = make();
  put(3, 0x83);
  put(0, 1);
  put(1, 0);
  put(3, 3);
  put(4, 8);
  put(2, 0x81); // trigger 8
  put(1, 1);
  assert.equal(uart.room(), 16);
  type('abc');
  assert.equal(irq.level, false);
  clock.advance(300e3);
  assert.equal(irq.level, false);
  clock.advance(100e3);
  assert.equal(irq.level, true);
  assert.equal(get(2), 0xcc);
  assert.equal(get(0), 97);
  assert.equal(irq.level, false);
  clock.advance(400e3);
  assert.equal(get(2), 0xcc, 'times out again for the rest');
  get(0);
  get(0);
  assert.equal(get(2), 0xc1);
  type('12345678');
  assert.equal(get(2), 0xc4);
  get(0);
  assert.equal(irq.level, false);
  put(2, 0x83);
  assert.equal(get(5), 0x60, 'cleared');
});

test('priorities: line status, data, transmit, modem', () => {
  const { put, get, uart, type } = make();
  put(4, 8);
  put(2, 1);
  type('a');
  uart.receiveBreak();
  put(4, 0x18);
  put(4, 0x08);
  put(1, 0x0f);
  assert.equal(get(2), 0xc4);
  assert.equal(get(5), 0xe1, 'an error is further back in the FIFO');
  get(0);
  assert.equal(get(2), 0xc6);
  assert.equal(get(5), 0xf1);
  assert.equal(get(2), 0xc4);
  assert.equal(get(5), 0x61);
  assert.equal(get(0), 0);
  assert.equal(get(2), 0xc2);
  assert.equal(get(2), 0xc0);
  assert.equal(get(6) & 0x0f, 0x03, 'OUT2 held DCD on in the loop');
  assert.equal(get(2), 0xc1);
});

test('loopback: data comes back, overrun, and the outside is cut off', () => {
  const { put, get, uart, sink } = make();
  put(4, 0x10);
  put(0, 1);
  assert.equal(get(5), 0x61);
  put(0, 2);
  assert.equal(get(5), 0x63);
  assert.equal(get(0), 2);
  assert.equal(sink.text, '');
  assert.equal(uart.room(), 0);
  put(2, 1);
  for (let i = 0; i < 17; i++) put(0, i);
  assert.equal(get(5) & 2, 2);
  for (let i = 0; i < 16; i++) assert.equal(get(0), i);
  assert.equal(get(5) & 1, 0);
});

test('any sequence of accesses is taken', () => {
  const { put, get, uart, sink, clock } = make();
  let seed = 5;
  const random = (n: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % n;
  };
  for (let i = 0; i < 20000; i++) {
    sink.full = random(2) === 0;
    if (random(2) === 0) put(random(8), random(256));
    else assert.ok(get(random(8)) <= 255);
    const room = uart.room();
    assert.ok(room >= 0 && room <= 16);
    uart.receive(new Uint8Array(random(room + 1)));
    if (random(5) === 0) uart.drained();
    clock.advance(random(100000));
  }
});

snapshotSuite(
  uart16550State,
  (state, clock) =>
    new Uart16550(state, { name: `uart${Math.random()}`, clock, irq: new RecordedLine(), sink: { write: () => 0 } }),
  (uart) => {
    uart.write(2, 1, 0xc1);
    uart.write(1, 1, 7);
    uart.write(0, 1, 0x41);
    uart.receive(Uint8Array.of(1, 2, 3));
    uart.receiveBreak();
    uart.read(0, 1);
  },
  (uart) => [uart.room(), uart.breaking, Array.from({ length: 24 }, (_, i) => uart.read(i & 7, 1))],
);
