/**
 * The human monitor on a character device: a banner when someone connects, the prompt, editing and history.
 * Where the device is no terminal but a pipe or file, lines are read as they come, without echo.
 */
import { CharWriter } from './char-writer.ts';
import type { HumanContext, HumanMonitor } from './hmp.ts';
import { LineEditor } from './line-editor.ts';
import type { Chardev, CharPort } from './machine-control.ts';

export const prompt = '(vivarium) ';

/** Output that may wait for a reader before it is dropped. */
const maxWaiting = 4 << 20;

export interface MonitorConsole {
  /** Gives the character device up. */
  close(): void;
}

/** Puts the monitor on `chardev`; throws where the device has a front end already. */
export function attachHumanMonitor(monitor: HumanMonitor, chardev: Chardev): MonitorConsole {
  const context: HumanContext = { cpu: monitor.options.machine.vcpus()[0]?.index ?? 0 };
  const terminal = chardev.terminal;
  let port: CharPort | undefined;
  let busy = false;
  let greeted = false;
  const writer = new CharWriter(() => port as CharPort);
  const write = (text: string): void => {
    if (port === undefined) return;
    if (writer.write(text) > maxWaiting) writer.clear();
  };
  const run = (line: string): void => {
    busy = true;
    void monitor.execute(line, context).then((output) => {
      busy = false;
      write(terminal ? output.replace(/\r?\n/g, '\r\n') : output);
      editor.showPrompt();
      port?.resume();
    });
  };
  const editor = new LineEditor({
    prompt,
    write: (text) => {
      if (terminal || text === prompt) write(text);
    },
    line: run,
    complete: (text) => monitor.complete(text),
  });
  const greet = (): void => {
    greeted = true;
    write(`Vivarium ${monitor.options.version} monitor - type 'help' for more information${terminal ? '\r' : ''}\n`);
    editor.showPrompt();
  };
  // One byte at a time while a line may end in it: what follows a line waits in the device until its command is done.
  const client = {
    room: () => (busy || port === undefined ? 0 : 1),
    receive(data: Uint8Array): void {
      editor.feed(data);
    },
    drained: () => writer.drain(),
    setOpen(open: boolean): void {
      writer.clear();
      greeted = false;
      if (open && port !== undefined && port.focused !== false && !busy) greet();
    },
    focused(on: boolean): void {
      if (!on) return;
      write('\r\n');
      if (!greeted) greet();
      else editor.redraw();
    },
  };
  port = chardev.attach(client);
  if (port.open && port.focused !== false && !greeted) greet();
  port.resume();
  return {
    close() {
      port?.detach();
      port = undefined;
    },
  };
}
