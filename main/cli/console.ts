/** `vivarium console NAME`: the VM's serial port in this terminal, until Ctrl-] is pressed or the VM ends. */
import type { WebSocket } from 'ws';

const escapeByte = 0x1d;

/** Resolves with true when the person left, false when the VM ended the connection. */
export function attachTerminal(stream: WebSocket, input: NodeJS.ReadStream, output: NodeJS.WriteStream): Promise<boolean> {
  const raw = input.isTTY;
  if (raw) input.setRawMode(true);
  return new Promise((resolve) => {
    const finish = (left: boolean): void => {
      if (raw) input.setRawMode(false);
      input.pause();
      input.removeListener('data', onInput);
      resolve(left);
    };
    const onInput = (data: Buffer): void => {
      const at = raw ? data.indexOf(escapeByte) : -1;
      if (at !== 0) stream.send(at < 0 ? data : data.subarray(0, at));
      if (at >= 0) {
        finish(true);
        stream.close();
      }
    };
    input.on('data', onInput);
    stream.on('message', (data: Buffer) => output.write(data));
    stream.on('close', () => finish(false));
    stream.resume();
  });
}
