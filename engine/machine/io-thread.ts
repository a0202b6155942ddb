/** The thread of a drive, or of all drives of a SCSI adapter. */
import { DriveThread, type DriveThreadHost } from './drive-thread.ts';
import { serveDrives } from './drives.ts';
import type { MachineHost } from './machine.ts';
import { FIRST_IO_OWNER, makeMachine, partsOf, type ThreadData } from './threads.ts';

export interface IoThreadHost extends MachineHost, DriveThreadHost {
  /** Tells the control thread that the images are open. */
  ready(): void;
}

/** Opens the images of the drives that an I/O thread has, and serves them until the machine ends; then all is flushed and closed. */
export function runIo(data: ThreadData, host: IoThreadHost): void {
  const { machine } = makeMachine(partsOf(data, FIRST_IO_OWNER + data.index, -1, host));
  // What was plugged in and taken away since the machine was started.
  machine.shared.lock.hold(() => machine.pci.sync());
  const io = machine.drives.threads.find(({ index }) => index === data.index);
  if (io === undefined) throw new Error(`there is no I/O thread ${data.index}`);
  const thread = new DriveThread(machine, io, host);
  try {
    serveDrives(
      machine,
      io,
      thread.disks,
      () => host.ready(),
      () => thread.work(),
    );
  } finally {
    thread.close();
  }
}
