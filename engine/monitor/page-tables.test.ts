import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatPages, formatRanges } from './hmp-info.ts';
import { mappings, readVirtual, translate } from './page-tables.ts';
import { FakeMachine, longModeRegisters, resetRegisters } from './testing.ts';

function machineWith(entries: [address: number, value: bigint][], size: 4 | 8): FakeMachine {
  const machine = new FakeMachine();
  const view = new DataView(machine.memory.buffer);
  for (const [address, value] of entries) {
    if (size === 8) view.setBigUint64(address, value, true);
    else view.setUint32(address, Number(value), true);
  }
  return machine;
}

const long = (): FakeMachine =>
  machineWith(
    [
      [0x1000, 0x2007n],
      [0x1ff8, 0x2003n],
      [0x2000, 0x3007n],
      [0x2ff0, 0x3003n],
      [0x3000, 0x4007n],
      [0x3008, 0x2000e3n],
      [0x4008, 0x5067n],
      [0x4010, 0x8000_0000_0000_7005n],
    ],
    8,
  );

describe('page tables', () => {
  it('translate in 64-bit mode', () => {
    const machine = long();
    const registers = longModeRegisters(0x1000n);
    const read = machine.readPhysical.bind(machine);
    assert.equal(translate(registers, read, 0x1234n), 0x5234n);
    assert.equal(translate(registers, read, 0x2001n), 0x7001n);
    assert.equal(translate(registers, read, 0x3000n), undefined);
    assert.equal(translate(registers, read, 0x212345n), 0x212345n, 'a page of 2 MiB');
    assert.equal(translate(registers, read, 0xffff_ffff_8020_0010n), 0x200010n);
    assert.equal(translate(registers, read, 0x8000_0000_0000n), undefined, 'not canonical');
    machine.memory.set([1, 2], 0x5ffe);
    machine.memory.set([3, 4], 0x7000);
    assert.deepEqual([...(readVirtual(registers, read, 0x1ffen, 4) ?? [])], [1, 2, 3, 4]);
    assert.equal(readVirtual(registers, read, 0x2ffen, 4), undefined);
  });

  it('are listed as QEMU lists them', () => {
    const machine = long();
    const registers = longModeRegisters(0x1000n);
    const pages = formatPages(registers, machine).split('\n');
    assert.equal(pages[0], '0000000000001000: 0000000000005000 ---DA--UW');
    assert.equal(pages[1], '0000000000002000: 0000000000007000 X------U-');
    assert.equal(pages[2], '0000000000200000: 0000000000200000 --PDA---W');
    assert.ok(pages.includes('ffffffff80200000: 0000000000200000 --PDA---W'));
    assert.deepEqual(formatRanges(registers, machine).split('\n').slice(0, 3), [
      '0000000000001000-0000000000002000 0000000000001000 urw',
      '0000000000002000-0000000000003000 0000000000001000 ur-',
      '0000000000200000-0000000000400000 0000000000200000 -rw',
    ]);
  });

  it('translate 32-bit and PAE paging', () => {
    const old = machineWith(
      [
        [0x1000, 0x2003n],
        [0x1004, 0x40_0083n | (1n << 13n)],
        [0x2004, 0x9007n],
      ],
      4,
    );
    const paged = { ...resetRegisters(), cr0: 0x8000_0011n, cr3: 0x1000n, cr4: 0x10n };
    assert.equal(translate(paged, old.readPhysical.bind(old), 0x1010n), 0x9010n);
    assert.equal(translate(paged, old.readPhysical.bind(old), 0x401234n), 0x1_0040_1234n, 'PSE-36');
    const pae = machineWith(
      [
        [0x1020, 0x2001n],
        [0x2000, 0x3003n],
        [0x3008, 0xa003n],
      ],
      8,
    );
    assert.equal(translate({ ...paged, cr3: 0x1020n, cr4: 0x20n }, pae.readPhysical.bind(pae), 0x1008n), 0xa008n);
    assert.equal(translate(resetRegisters(), pae.readPhysical.bind(pae), 0x1008n), 0x1008n, 'no paging');
  });

  it('that point at themselves end within bounds', () => {
    const machine = new FakeMachine();
    const view = new DataView(machine.memory.buffer);
    for (let index = 0; index < 512; index++) view.setBigUint64(0x1000 + index * 8, 0x1007n, true);
    const state = { limited: false };
    const started = Date.now();
    let count = 0;
    for (const _page of mappings(longModeRegisters(0x1000n), machine.readPhysical.bind(machine), state))
      if (++count > 100_000) break;
    assert.ok(count > 100_000);
    assert.match(formatPages(longModeRegisters(0x1000n), machine), /more pages are mapped/);
    assert.ok(Date.now() - started < 5000);
  });
});
