/** Makes character devices from their options, and ends them together. */
import type { Chardev } from '../monitor/machine-control.ts';
import { MonitorError } from '../monitor/machine-control.ts';
import type { QmpServer } from '../monitor/qmp.ts';
import type { ChardevBase } from './chardev-base.ts';
import { FileChardev, NullChardev, PipeChardev, RingChardev } from './chardev-file.ts';
import { MuxChardev, type MuxHooks } from './chardev-mux.ts';
import { SocketChardev } from './chardev-socket.ts';
import { StdioChardev } from './chardev-stdio.ts';
import { ChardevError, type ChardevOptions } from './chardev-types.ts';

function create(options: ChardevOptions): ChardevBase {
  switch (options.backend) {
    case 'null':
      return new NullChardev(options);
    case 'stdio':
      return new StdioChardev(options);
    case 'file':
      return new FileChardev(options);
    case 'pipe':
      return new PipeChardev(options);
    case 'ringbuf':
      return new RingChardev(options);
    case 'socket':
      return new SocketChardev(options);
  }
}

/** The character devices of a machine. */
export class ChardevSet {
  readonly #backends = new Map<string, ChardevBase>();
  readonly #devices = new Map<string, Chardev>();

  /** By id, as front ends see them: multiplexers where `mux` is on. */
  get devices(): ReadonlyMap<string, Chardev> {
    return this.#devices;
  }

  /** Makes and starts the devices in order; closes what was started when one fails. Rejects with a ChardevError. */
  async start(options: readonly ChardevOptions[], mux: MuxHooks): Promise<void> {
    try {
      for (const each of options) {
        if (this.#devices.has(each.id)) throw new ChardevError(`Duplicate ID '${each.id}' for chardev`);
        const device = create(each);
        this.#backends.set(each.id, device);
        this.#devices.set(each.id, each.mux ? new MuxChardev(device, mux) : device);
        await device.start();
      }
    } catch (cause) {
      this.abandon();
      await this.close();
      throw cause;
    }
  }

  backend(id: string): ChardevBase | undefined {
    return this.#backends.get(id);
  }

  /** Sends what waits and closes all. */
  async close(): Promise<void> {
    await Promise.all([...this.#backends.values()].map((device) => device.close()));
    this.#backends.clear();
  }

  /** For the end of the process: terminal modes are put back and socket files removed, at once. */
  abandon(): void {
    for (const device of this.#backends.values()) device.abandon();
  }
}

/** `ringbuf-read` and `ringbuf-write` (QAPI char.json). */
export function registerRingbufCommands(server: QmpServer, chardevs: ChardevSet): void {
  const find = (id: string): RingChardev => {
    const device = chardevs.backend(id);
    if (device === undefined) throw new MonitorError(`Device '${id}' not found`);
    if (!(device instanceof RingChardev)) throw new MonitorError(`Device '${id}' is no ring buffer`);
    return device;
  };
  const format = { enum: ['utf8', 'base64'] } as const;
  server.register('ringbuf-write', { device: 'str', data: 'str', '*format': format }, (args) => {
    find(args.device).feed(Buffer.from(args.data, args.format === 'base64' ? 'base64' : 'utf8'));
  });
  server.register(
    'ringbuf-read',
    { device: 'str', size: 'int', '*format': format },
    async (args) => {
      if (args.size <= 0) throw new MonitorError('size must be greater than zero');
      const device = find(args.device);
      await device.flushed();
      return Buffer.from(device.read(args.size)).toString(args.format === 'base64' ? 'base64' : 'utf8');
    },
    'str',
  );
}
