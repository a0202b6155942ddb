/** What an I/O thread does: serves a controller's requests against the images of its drives. */
import type { Disk } from '../devices/virtio/disk.ts';
import type { DrivePart, IoPart } from './drive-list.ts';
import type { Machine } from './machine.ts';

/**
 * Serves until the machine ends, or what is served was unplugged. `disks` are the images of `io.drives`, in that order; undefined where there is no
 * medium. `ready` is called when the guest may see them. `work` does what else there is to do with the drives, and returns
 * after how many milliseconds it wants to be called again, or Infinity; the bell rings for it too. While the machine
 * stands, no request is taken: its state may be on its way into a file.
 */
export function serveDrives(
  machine: Machine,
  io: IoPart,
  disks: readonly (Disk | undefined)[],
  ready: () => void,
  work: () => number = () => Number.POSITIVE_INFINITY,
): void {
  const { shared, control, pci } = machine;
  const { state, drives } = io;
  const sizes = new Map<DrivePart, number>();
  shared.lock.hold(() => {
    for (const [n, drive] of drives.entries()) {
      const size = disks[n]?.size ?? 0;
      sizes.set(drive, size);
      drive.setDisk(disks[n]);
      drive.setSize(size);
    }
  });
  ready();
  // Memory that a guest moved (video memory in a BAR) is where this thread's map says only after a sync.
  const locked = <T>(body: () => T): T =>
    shared.lock.hold(() => {
      pci.sync();
      return body();
    });
  for (;;) {
    const seen = Atomics.load(state.bell, 0);
    const wait = work();
    for (const drive of drives) {
      // A medium that is changed is the slot's affair.
      if (drive.slot !== undefined || drive.disk === undefined || drive.disk.size === sizes.get(drive)) continue;
      const { size } = drive.disk;
      // A drive that came just now was told its size already.
      const known = sizes.has(drive);
      sizes.set(drive, size);
      if (!known) continue;
      shared.lock.hold(() => drive.setSize(size));
    }
    // Who stops the machine sets `running` first and then waits for `active`: one of the two sees the other.
    Atomics.store(state.active, 0, 1);
    const more = Atomics.load(control.running, 0) !== 0 && io.process(locked);
    Atomics.store(state.active, 0, 0);
    if (Atomics.load(control.ending, 0) !== 0 || Atomics.load(state.ended, 0) !== 0) return;
    if (!more && wait > 0) Atomics.wait(state.bell, 0, seen, Math.min(1000, wait));
  }
}
