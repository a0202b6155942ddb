/** What a drive's I/O thread does: serves its queues against its image, and counts. */
import type { Disk } from '../devices/virtio/disk.ts';
import type { Machine } from './machine.ts';
import type { DrivePart } from './virtio-parts.ts';

/** Requests between two looks at whether the machine ends. */
const BUDGET = 64;

/** The disk, with what is read and written counted for statistics. */
function counted(disk: Disk, state: DrivePart['state']): Disk {
  return {
    get size() {
      return disk.size;
    },
    readOnly: disk.readOnly,
    read(offset, buffer) {
      disk.read(offset, buffer);
      state.readOperations++;
      state.readBytes += buffer.length;
    },
    write(offset, buffer) {
      disk.write(offset, buffer);
      state.writeOperations++;
      state.writtenBytes += buffer.length;
    },
    flush: () => disk.flush(),
    discard: (offset, length) => disk.discard(offset, length),
    writeZeroes: (offset, length, unmap) => disk.writeZeroes(offset, length, unmap),
  };
}

/** Serves until the machine ends; `ready` is called when the guest may see the disk. */
export function serveDrive(machine: Machine, { blk, state }: DrivePart, disk: Disk, ready: () => void): void {
  const { shared, control, pci } = machine;
  const image = counted(disk, state);
  shared.lock.hold(() => blk.setSize(image.size));
  ready();
  // Memory that a guest moved (video memory in a BAR) is where this thread's map says only after a sync.
  const locked = <T>(body: () => T): T =>
    shared.lock.hold(() => {
      pci.sync();
      return body();
    });
  const queues = blk.queueSizes.length;
  for (;;) {
    const seen = Atomics.load(state.bell, 0);
    let more = false;
    for (let queue = 0; queue < queues; queue++) more = blk.process(queue, BUDGET, image, locked) || more;
    if (Atomics.load(control.ending, 0) !== 0) return;
    if (!more) Atomics.wait(state.bell, 0, seen, 1000);
  }
}
