import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import type { MachineConfig } from '../../contract/machine-config.ts';
import type { CharClient, CharPort, MachineHooks } from '../../monitor/machine-control.ts';
import { FakeMachine } from '../../monitor/testing.ts';
import { main } from '../main.ts';
import { systemHost } from './host.ts';
import { runMain } from './run.ts';

const folder = mkdtempSync(join(tmpdir(), 'run-'));
after(() => rmSync(folder, { recursive: true }));
const kernel = join(folder, 'kernel');
writeFileSync(kernel, 'kernel');

interface Started {
  readonly machine: FakeMachine;
  readonly config: MachineConfig;
  readonly hooks: MachineHooks;
}

/** Runs the command on a machine that does what `act` says. */
async function run(
  args: string[],
  act: (started: Started) => void | Promise<void>,
): Promise<{ status: number; printed: string; complaints: string }> {
  let printed = '';
  let complaints = '';
  const status = await runMain(args, {
    startMachine: async (config, hooks) => {
      const machine = new FakeMachine();
      setImmediate(() => void act({ machine, config, hooks }));
      return machine;
    },
    host: systemHost,
    print: (text) => {
      printed += text;
    },
    complain: (text) => {
      complaints += text;
    },
  });
  return { status, printed, complaints };
}

const base = ['-kernel', kernel, '-display', 'none', '-m', '64'];

describe('vivarium run', () => {
  it('ends with the status of the machine, and writes what the guest sends', async () => {
    const out = join(folder, 'serial.txt');
    const pidfile = join(folder, 'pid');
    const { status, complaints } = await run(
      [...base, '-serial', `file:${out}`, '-pidfile', pidfile],
      ({ machine, config, hooks }) => {
        assert.equal(readFileSync(pidfile, 'utf8'), `${process.pid}\n`);
        const [serial] = config.serial;
        assert.ok(serial.connect === 'chardev');
        const client: CharClient = { room: () => 0, receive() {}, drained() {} };
        const port = hooks.chardevs.get(serial.chardev)?.attach(client) as CharPort;
        port.write(new TextEncoder().encode('hello from the guest'));
        machine.finish(33);
      },
    );
    assert.deepEqual([status, complaints], [33, '']);
    assert.equal(readFileSync(out, 'utf8'), 'hello from the guest');
    assert.throws(() => readFileSync(pidfile));
  });

  it('serves QMP until the end, with the SHUTDOWN event last', async () => {
    const path = join(folder, 'qmp.sock');
    let text = '';
    let closed = false;
    const { status } = await run([...base, '-qmp', `unix:${path},server=on,wait=off`], () => {
      const socket = connect(path);
      socket.on('data', (data) => {
        text += data.toString();
      });
      socket.on('close', () => {
        closed = true;
      });
      socket.write(
        `{"execute":"qmp_capabilities"}{"execute":"human-monitor-command","arguments":{"command-line":"info name"}}{"execute":"quit"}`,
      );
    });
    assert.equal(status, 0);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const messages = text
      .trim()
      .split('\r\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.equal(messages[2].return, 'demo\r\n');
    assert.equal(messages.at(-1)?.event, 'SHUTDOWN');
    assert.ok(closed);
  });

  it('says mistakes and failures in one line, with status 1', async () => {
    const never = (): void => assert.fail('must not start');
    const cases: [string[], RegExp][] = [
      [['-drive', 'if=foo'], /^vivarium: -drive if=foo: Parameter 'if' does not accept 'foo'.*\n$/],
      [
        ['-kernel', join(folder, 'nope'), '-display', 'none'],
        /^vivarium: -kernel: could not open kernel file .*No such file or directory\n$/,
      ],
      [['-kernel', folder, '-display', 'none'], /Is a directory\n$/],
      [[...base, '-serial', `file:${folder}/no/such`], /^vivarium: chardev serial0: cannot write .*\n$/],
      [[...base, '-pidfile', `${folder}/no/such`], /^vivarium: -pidfile: cannot create PID file/],
    ];
    for (const [args, message] of cases) {
      const { status, complaints } = await run(args, never);
      assert.equal(status, 1);
      assert.match(complaints, message);
    }
    const refused = await runMain(base, {
      startMachine: () => Promise.reject(Object.assign(new Error('kernel is no bzImage'), { code: 'bad-kernel' })),
      host: systemHost,
      print() {},
      complain: (text) => assert.equal(text, 'vivarium: kernel is no bzImage\n'),
    });
    assert.equal(refused, 1);
  });

  it('prints help', async () => {
    const { status, printed } = await run(['-device', 'help'], () => assert.fail());
    assert.equal(status, 0);
    assert.match(printed, /isa-debug-exit/);
  });

  it('ends the machine on a signal', async () => {
    const { status, complaints } = await run(base, ({ machine }) => {
      process.emit('SIGTERM');
      assert.deepEqual(machine.calls, ['quit host-signal']);
    });
    assert.equal(status, 0);
    assert.equal(complaints, 'vivarium: terminating on signal 15\n');
  });
});

describe('vivarium', () => {
  it('knows its commands', async () => {
    assert.equal(await main(['version']), 0);
    assert.equal(await main(['frobnicate']), 1);
  });
});
