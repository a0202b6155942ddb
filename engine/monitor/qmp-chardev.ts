/** QMP on a character device: one session for each time it is opened. */
import { CharWriter } from './char-writer.ts';
import type { Chardev, CharPort } from './machine-control.ts';
import type { QmpServer, QmpSession } from './qmp.ts';

/** Puts the QMP server on `chardev`; returns the function that takes it off again. Throws where the device is taken. */
export function attachQmp(server: QmpServer, chardev: Chardev, pretty = false): () => void {
  let port: CharPort | undefined;
  let session: QmpSession | undefined;
  const writer = new CharWriter(() => port as CharPort);
  const open = (): void => {
    session?.end();
    writer.clear();
    const channel = { send: (text: string) => writer.write(text), resume: () => port?.resume(), close: () => writer.clear() };
    session = server.open(channel, pretty);
  };
  port = chardev.attach({
    room: () => session?.room() ?? 0,
    receive: (data) => session?.feed(data),
    drained: () => writer.drain(),
    setOpen(isOpen) {
      if (port === undefined) return;
      if (isOpen) open();
      else {
        session?.end();
        session = undefined;
        writer.clear();
      }
    },
  });
  if (port.open) {
    open();
    port.resume();
  }
  return () => {
    session?.end();
    session = undefined;
    port?.detach();
  };
}
