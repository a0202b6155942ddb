/**
 * A test double of a VM process: it speaks the protocol of engine/contract/process.ts and pretends to be a machine.
 * The kernel command line tells it what to do wrong: `double=fail`, `double=exit`, `double=hang`, `double=deaf` (takes no
 * notice of the power button), `double=stuck` (does not end on quit).
 */
import { spawnSync } from 'node:child_process';
import type { EventEmitter } from 'node:events';
import { writeFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { crc32, deflateSync } from 'node:zlib';
import { WebSocketServer } from 'ws';
import type { MachineConfig, ParentMessage, ProcessMessage, QmpRequest } from '../../engine/contract/index.ts';

const imageTool = fileURLToPath(new URL('../../engine/cli/main.ts', import.meta.url));
const sockets = new WebSocketServer({ noServer: true });
const send = (message: ProcessMessage): void => {
  if (parentPort === undefined) process.send?.(message);
  else parentPort.postMessage(message);
};
let config: MachineConfig;
let status: 'running' | 'paused' = 'running';
let profiled = 0;
let samples = 0;
let jobs: { id: string; status: string; 'current-progress': number; 'total-progress': number; error?: string }[] = [];
let migration: Record<string, unknown> = {};

const does = (what: string): boolean => (config.boot.kind === 'kernel' ? config.boot.append : '').includes(`double=${what}`);

function event(name: string, data?: Record<string, unknown>): void {
  send({ type: 'qmp', message: { event: name, data, timestamp: { seconds: 0, microseconds: 0 } } as never });
}

function shutdown(guest: boolean, reason: string): void {
  event('SHUTDOWN', { guest, reason });
  setTimeout(() => process.exit(0), 20);
}

/** A PNG of one colour, 2 by 2 pixels: another one each time. */
function picture(): Buffer {
  const chunk = (type: string, data: Buffer): Buffer => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const out = Buffer.alloc(body.length + 8);
    out.writeUInt32BE(data.length);
    body.copy(out, 4);
    out.writeUInt32BE(crc32(body), body.length + 4);
    return out;
  };
  const header = Buffer.from([0, 0, 0, 2, 0, 0, 0, 2, 8, 2, 0, 0, 0]);
  const row = [0, samples & 255, 80, 160, samples & 255, 80, 160];
  return Buffer.concat([
    Buffer.from('89504e470d0a1a0a', 'hex'),
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(Buffer.from([...row, ...row]))),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

function answer({ execute, arguments: args = {} }: QmpRequest): unknown {
  switch (execute) {
    case 'query-status':
      return { running: status === 'running', status };
    case 'stop':
    case 'cont': {
      const next = execute === 'stop' ? 'paused' : 'running';
      if (next !== status) event(execute === 'stop' ? 'STOP' : 'RESUME');
      status = next;
      return {};
    }
    case 'system_reset':
      event('RESET', { guest: false, reason: 'host-qmp-system-reset' });
      return {};
    case 'system_powerdown':
      event('POWERDOWN');
      if (!does('deaf')) setTimeout(() => shutdown(true, 'guest-shutdown'), 30);
      return {};
    case 'quit':
      if (!does('stuck')) shutdown(false, 'host-qmp-quit');
      return {};
    case 'screendump':
      writeFileSync(String(args.filename), picture());
      return {};
    case 'snapshot-save':
    case 'snapshot-load':
    case 'snapshot-delete': {
      // The images are changed as the machine would change them, but for its state.
      const verb = { 'snapshot-save': '-c', 'snapshot-load': '-a', 'snapshot-delete': '-d' }[execute];
      const error = config.drives
        .filter(({ id }) => (args.devices as string[]).includes(id))
        .map(
          ({ file }) =>
            spawnSync(process.execPath, [imageTool, 'img', 'snapshot', verb, String(args.tag), file], { encoding: 'utf8' })
              .stderr,
        )
        .join('');
      jobs.push({
        id: String(args['job-id']),
        status: 'concluded',
        'current-progress': 1,
        'total-progress': 1,
        ...(error === '' ? {} : { error }),
      });
      return {};
    }
    case 'query-jobs':
      return jobs;
    case 'job-dismiss':
      jobs = jobs.filter(({ id }) => id !== args.id);
      return {};
    case 'migrate':
      writeFileSync(String(args.uri).replace('file:', ''), 'state of the double');
      migration = { status: 'completed', ram: { transferred: 1, total: 1 } };
      event('STOP');
      return {};
    case 'query-migrate':
      return migration;
    case 'blockdev-add':
      if (String((args.file as { filename: string }).filename).includes('locked')) throw new Error('Failed to get "write" lock');
      return {};
    case 'device_del':
      if (args.id !== 'disk0')
        setTimeout(() => event('DEVICE_DELETED', { device: args.id, path: `/machine/peripheral/${args.id}` }), 20);
      else throw new Error("Bus 'ide.0' does not support hotplugging");
      return {};
    case 'blockdev-change-medium':
      if (String(args.filename).includes('locked')) throw new Error('the tray is locked');
      return {};
    case 'human-monitor-command':
      if (args['command-line'] === 'disk full') {
        event('BLOCK_IO_ERROR', {
          device: 'disk0',
          operation: 'write',
          action: 'stop',
          nospace: true,
          reason: 'No space left on device',
        });
        event('STOP');
        status = 'paused';
        return '';
      }
      return `you said: ${args['command-line']}\r\n`;
    case 'x-query-stats': {
      samples++;
      const exits = { pio: samples * 10, hlt: samples * 5 };
      const vcpus = Array.from({ length: config.cpus.count }, (_, index) => ({
        index,
        state: 'running',
        hostCpuNs: samples * 1e7 * (index + 1),
        instructions: samples * 1e6,
        exits,
      }));
      const memory = { totalBytes: config.memoryMiB * 2 ** 20, usedBytes: null, residentBytes: 2 ** 24 };
      if (args.profile === true) profiled++;
      const translator = {
        regions: 1200 + samples * 3,
        farRegions: 40 + samples,
        declined: 2,
        decodeNs: samples * 2.5e7 * config.cpus.count,
        compileNs: samples * 1.2e8,
        idleNs: samples * 2e8 * config.cpus.count,
        drops: 1,
        code: {
          regions: 1200 + samples * 3,
          maxRegions: 16384,
          recordBytes: 9 << 20,
          maxRecordBytes: 24 << 20,
          moduleBytes: 7 << 20,
        },
        samples: { baseline: profiled * 60, regions: profiled * 300, other: profiled * 140 },
      };
      return { timestamp: Date.now(), machineNs: samples * 1e9, vcpus, memory, mips: 1, translator };
    }
    default:
      return {};
  }
}

/** A port of Electron's, as far as it is used here. */
interface Port {
  on(event: 'message', listener: (event: { data: ArrayBuffer }) => void): void;
  postMessage(message: unknown): void;
  start(): void;
}

/** Streams answer what they are sent, with their kind in front. */
function stream(message: Extract<ParentMessage, { type: 'port' }>, socket?: Socket, messagePort?: Port): void {
  const { upgrade, kind, index } = message;
  const greeting = Buffer.from(`${kind}${index} of ${config.name}\n`);
  const echo = (data: Uint8Array): Buffer => Buffer.concat([Buffer.from('echo '), data]);
  if (messagePort !== undefined) {
    messagePort.on('message', ({ data }) => messagePort.postMessage(Uint8Array.from(echo(new Uint8Array(data))).buffer));
    messagePort.start();
    messagePort.postMessage(Uint8Array.from(greeting).buffer);
  } else if (upgrade !== undefined && socket !== undefined) {
    const request = { ...upgrade, headers: { ...upgrade.headers } } as unknown as IncomingMessage;
    sockets.handleUpgrade(request, socket, Buffer.from(upgrade.head, 'base64'), (client) => {
      client.send(greeting);
      client.on('message', (data) => client.send(echo(data as Buffer)));
    });
  }
}

function receive(message: ParentMessage, handle?: Socket, messagePort?: Port): void {
  if (message.type === 'start') {
    config = message.config;
    console.log(`double of ${config.name} begins`);
    if (does('hang')) return;
    if (does('exit')) process.exit(3);
    if (does('fail')) {
      send({
        type: 'failed',
        error: { code: 'bad-kernel', message: 'The double does not like this kernel', field: 'boot.kernel' },
      });
      setTimeout(() => process.exit(1), 20);
      return;
    }
    status = config.lifecycle.paused ? 'paused' : 'running';
    if (config.lifecycle.restore !== undefined) console.log(`goes on from ${JSON.stringify(config.lifecycle.restore)}`);
    send({ type: 'started', accelerator: 'jit' });
    send({
      type: 'qmp',
      message: { QMP: { version: { qemu: { major: 0, minor: 0, micro: 0 }, package: 'double' }, capabilities: [] } },
    });
  } else if (message.type === 'qmp') {
    const { id, execute } = message.message;
    if (execute === 'send-key') send({ type: 'qmp', message: { error: { class: 'GenericError', desc: 'no keyboard' }, id } });
    else
      try {
        send({ type: 'qmp', message: { return: answer(message.message), id } });
      } catch (error) {
        send({ type: 'qmp', message: { error: { class: 'GenericError', desc: (error as Error).message }, id } });
      }
  } else if (message.type === 'port') stream(message, handle, messagePort);
}

// A utility process has a parent port, a forked process the channel of fork.
const { parentPort } = process as unknown as { parentPort?: EventEmitter & { postMessage(message: unknown): void } };
if (parentPort === undefined) {
  process.on('message', (message: ParentMessage, handle?: Socket) => receive(message, handle));
  process.on('disconnect', () => process.exit(0));
} else parentPort.on('message', ({ data, ports }: { data: ParentMessage; ports: Port[] }) => receive(data, undefined, ports[0]));
