import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fresh, snapshotSuite } from '../testing.ts';
import type { Locked } from './device.ts';
import { VirtioScsi, virtioScsiState } from './scsi.ts';
import { ScsiCdrom } from './scsi-cdrom.ts';
import { ScsiDisk } from './scsi-disk.ts';
import { be16, be32, scsiUnitState } from './scsi-unit.ts';
import { MemoryDisk, random } from './testing-disk.ts';
import { ModernDriver, RING_VARIANTS, TestMachine } from './testing-driver.ts';
import type { VirtioPciOptions } from './transport-pci.ts';

const locked: Locked = (body) => body();

function make(pci: Partial<VirtioPciOptions> = {}, without: number[] = [], queues = 1) {
  const rung: number[] = [];
  const device = new VirtioScsi(fresh(virtioScsiState), { queues, queueSize: 64 }, { ring: (queue) => rung.push(queue) });
  const disks = new Map<string, MemoryDisk>();
  const add = (target: number, lun: number, size = 1 << 16): ScsiDisk => {
    const disk = new MemoryDisk(size);
    disks.set(`${target}:${lun}`, disk);
    const unit = new ScsiDisk(fresh(scsiUnitState), { serial: `${target}:${lun}`, disk: () => disk });
    unit.reset();
    unit.setSize(disk.size);
    device.attachUnit(target, lun, unit);
    return unit;
  };
  add(0, 0);
  add(0, 300);
  add(7, 1);
  const cd = new ScsiCdrom(fresh(scsiUnitState), {});
  device.attachUnit(2, 0, cd);
  const machine = new TestMachine(device, pci);
  const driver = new ModernDriver(machine);
  driver.negotiate(without);
  const rings = device.queueSizes.map((_, index) => driver.queue(index));
  driver.start();
  return { device, machine, driver, rings, disks, cd, rung, add };
}
type Rig = ReturnType<typeof make>;

const address = (target: number, lun: number): number[] => [1, target, 0x40 | (lun >> 8), lun & 0xff, 0, 0, 0, 0];

/** Puts a command in a ring; the answer can be read when it was served. */
function submit(
  rig: Rig,
  where: number[],
  cdb: number[],
  out: Uint8Array = new Uint8Array(0),
  room = 0,
  indirect = false,
  ring = 2,
) {
  const { machine, rings } = rig;
  const request = new Uint8Array(51 + out.length);
  request.set(where);
  request.set(cdb, 19);
  request.set(out, 51);
  const response = machine.allocate(108);
  machine.memory.write8(response + 11, 0xee);
  const into = machine.allocate(room + 1);
  rings[ring].add(
    [
      { address: machine.put(request), length: request.length, write: false },
      { address: response, length: 108, write: true },
      ...(room > 0 ? [{ address: into, length: room, write: true }] : []),
    ],
    indirect,
  );
  rings[ring].kick();
  return () => ({
    response: machine.memory.read8(response + 11),
    status: machine.memory.read8(response + 10),
    residual: machine.memory.read32(response + 4),
    sense: [...machine.bytes(response + 12, machine.memory.read32(response))],
    data: machine.bytes(into, room),
  });
}
function command(rig: Rig, where: number[], cdb: number[], out?: Uint8Array, room = 0, indirect = false) {
  const answer = submit(rig, where, cdb, out, room, indirect);
  rig.device.process(2, 100, locked);
  rig.rings[2].usedAll();
  return answer();
}
function manage(rig: Rig, kind: number, where: number[]): number {
  const request = new Uint8Array(24);
  request[4] = kind;
  request.set(where, 8);
  const answer = rig.machine.allocate(1);
  rig.rings[0].add([
    { address: rig.machine.put(request), length: 24, write: false },
    { address: answer, length: 1, write: true },
  ]);
  rig.machine.memory.write8(answer, 0xee);
  rig.rings[0].kick();
  rig.device.process(0, 100, locked);
  return rig.machine.memory.read8(answer);
}

for (const { name, options, without } of RING_VARIANTS) {
  test(`finding units, reading and writing over a ${name} ring`, () => {
    const rig = make(options, without);
    const indirect = without.length === 0;
    const luns = command(rig, address(0, 0), [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64], undefined, 64, indirect);
    assert.equal(be32(luns.data, 0), 16);
    assert.equal(be16(luns.data, 16), 0x412c);
    assert.equal(luns.residual, 64 - 24);
    assert.equal(command(rig, address(0, 300), [0]).sense[2], 6);
    assert.equal(command(rig, address(0, 300), [0]).status, 0);
    const payload = Uint8Array.from({ length: 1024 }, (_, i) => i * 5);
    const write = command(rig, address(0, 300), [0x2a, 0, 0, 0, 0, 4, 0, 0, 2], payload, 0, indirect);
    assert.deepEqual([write.response, write.status, write.residual], [0, 0, 0]);
    assert.deepEqual(rig.disks.get('0:300')?.data.slice(2048, 3072), payload);
    const read = command(rig, address(0, 300), [0x28, 0, 0, 0, 0, 4, 0, 0, 2], undefined, 1024, indirect);
    assert.deepEqual(read.data, payload);
    assert.equal(read.residual, 0);
    assert.deepEqual(rig.machine.trace, []);
  });
}

test('absent targets and units', () => {
  const rig = make();
  assert.equal(command(rig, address(99, 0), [0x12, 0, 0, 0, 36], undefined, 36).response, 3);
  assert.equal(command(rig, [2, 0, 0, 0, 0, 0, 0, 0], [0]).response, 3);
  assert.equal(command(rig, address(7, 0), [0x12, 0, 0, 0, 36], undefined, 36).data[0], 0x7f);
  assert.equal(be32(command(rig, address(7, 0), [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64], undefined, 64).data, 0), 16);
  const refused = command(rig, address(7, 5), [0]);
  assert.deepEqual([refused.response, refused.status, refused.sense[12]], [0, 2, 0x25]);
});

test('hundreds of targets and units', () => {
  const rig = make();
  for (let target = 10; target < 256; target++) rig.add(target, target * 60, 4096);
  for (let target = 10; target < 256; target++) {
    assert.equal(command(rig, address(target, target * 60), [0]).sense[2], 6);
    assert.equal(command(rig, address(target, target * 60), [0]).status, 0);
  }
  assert.throws(() => rig.add(256, 0));
  assert.throws(() => rig.add(1, 16384));
  assert.throws(() => rig.add(10, 600));
});

test('task management answers after the tasks that were there, and a unit reset is a unit attention', () => {
  const rig = make();
  command(rig, address(0, 0), [0]);
  const pending = submit(rig, address(0, 0), [0x28, 0, 0, 0, 0, 0, 0, 0, 1], undefined, 512);
  assert.equal(manage(rig, 0, address(0, 0)), 0);
  assert.deepEqual([pending().response, pending().status], [0, 0]);
  assert.equal(rig.rings[2].usedAll().length, 1);
  assert.equal(manage(rig, 5, address(0, 0)), 0);
  assert.deepEqual(command(rig, address(0, 0), [0]).sense.slice(12, 14), [0x29, 3]);
  assert.equal(manage(rig, 5, address(0, 9)), 12);
  assert.equal(manage(rig, 5, address(50, 0)), 3);
  assert.equal(manage(rig, 77, address(0, 0)), 11);
});

test('task management waits for a request on another thread', () => {
  const rig = make({}, [], 2);
  command(rig, address(0, 0), [0]);
  const disk = rig.disks.get('0:0') as MemoryDisk;
  const read = disk.read.bind(disk);
  let during = -1;
  disk.read = (offset, buffer) => {
    read(offset, buffer);
    during = manage(rig, 5, address(0, 0));
    submit(rig, address(0, 0), [0], undefined, 0, false, 3);
    rig.device.process(3, 10, locked);
    assert.equal(rig.rings[3].used(), undefined, 'held back meanwhile');
  };
  submit(rig, address(0, 0), [0x28, 0, 0, 0, 0, 0, 0, 0, 1], undefined, 512);
  rig.rung.length = 0;
  rig.device.process(2, 10, locked);
  assert.equal(during, 0xee);
  assert.ok(rig.rung.includes(0));
  rig.rung.length = 0;
  rig.device.process(0, 10, locked);
  assert.ok(rig.rings[0].used());
  assert.deepEqual(rig.rung, [2, 3]);
  rig.device.process(3, 10, locked);
  assert.ok(rig.rings[3].used());
  assert.equal(rig.machine.state.inFlight, 0);
});

test('events: units that come and go, a new medium, more than the driver has room for', () => {
  const rig = make();
  const at = new Map<number, number>();
  const give = (): void => {
    const buffer = rig.machine.allocate(16);
    at.set(rig.rings[1].add([{ address: buffer, length: 16, write: true }]), buffer);
    rig.rings[1].kick();
  };
  const take = (): number[][] =>
    rig.rings[1].usedAll().map(({ id }) => {
      const bytes = rig.machine.bytes(at.get(id) as number, 16);
      return [new DataView(bytes.buffer).getUint32(0, true), bytes[5], be16(bytes, 6), bytes[12], bytes[13]];
    });
  give();
  rig.add(9, 3);
  rig.device.announce(9, 3, 'added');
  assert.deepEqual(take(), [[1, 9, 3, 1, 0]]);
  rig.device.announce(9, 300, 'removed');
  rig.cd.insert(1 << 20);
  rig.device.changed(2, 0);
  give();
  give();
  assert.deepEqual(take(), [
    [1, 9, 0x412c, 2, 0],
    [3, 2, 0, 0x28, 0],
  ]);
  for (let i = 0; i < 70; i++) rig.device.announce(0, 0, 'added');
  give();
  assert.equal(take()[0][0], 0x80000001);
});

test('configuration; sizes that the driver chooses', () => {
  const rig = make({}, [], 3);
  assert.equal(rig.driver.deviceConfig(0, 4), 3);
  assert.equal(rig.driver.deviceConfig(30, 2), 255);
  assert.equal(rig.driver.deviceConfig(32, 4), 16383);
  assert.equal(rig.driver.deviceConfig(20, 4), 96);
  const device = rig.driver.at.device;
  rig.machine.mmio.write(device + 20, 4, 4);
  rig.machine.mmio.write(device + 20, 4, 0x7fffffff);
  assert.equal(rig.driver.deviceConfig(20, 4), 4);
  rig.machine.mmio.write(device + 24, 4, 16);
  const request = new Uint8Array(19 + 16);
  request.set(address(0, 0));
  const response = rig.machine.allocate(16);
  rig.rings[2].add([
    { address: rig.machine.put(request), length: 35, write: false },
    { address: response, length: 16, write: true },
  ]);
  rig.rings[2].kick();
  rig.device.process(2, 1, locked);
  assert.equal(rig.rings[2].used()?.length, 16);
  assert.equal(rig.machine.memory.read32(response), 4, 'sense is cut');
});

test('hostile: short requests break the device, random ones do not', () => {
  const rig = make();
  rig.rings[2].add([{ address: 0x1000, length: 20, write: false }]);
  rig.device.process(2, 1, locked);
  assert.equal(rig.driver.status & 0x40, 0x40);
  const other = make();
  const pick = random(3);
  for (let i = 0; i < 400; i++) {
    const where = pick(4) === 0 ? Array.from({ length: 8 }, () => pick(256)) : address([0, 2, 7][pick(3)], [0, 1, 300][pick(3)]);
    command(
      other,
      where,
      Array.from({ length: 16 }, () => pick(256)),
      new Uint8Array(pick(64)),
      pick(64),
    );
    if (pick(5) === 0) {
      other.rings[0].transfer(
        Uint8Array.from({ length: pick(30) + 1 }, () => pick(8)),
        1 + pick(8),
      );
      other.device.process(0, 10, locked);
      other.rings[0].usedAll();
    }
  }
  assert.deepEqual(other.machine.trace, []);
});

snapshotSuite(
  virtioScsiState,
  (state) => {
    const device = new VirtioScsi(state, {}, { ring() {} });
    device.attach({ queues: [] } as never);
    return device;
  },
  (device) => {
    device.writeConfig(20, 4, 32);
    device.writeConfig(24, 4, 16);
  },
  (device) => [...device.config()],
);
