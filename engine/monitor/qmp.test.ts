import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { JsonStream, stringify } from './json-stream.ts';
import type { QmpServer } from './qmp.ts';
import { QmpServer as Server } from './qmp.ts';
import { attachQmp } from './qmp-chardev.ts';
import { registerStandardCommands } from './qmp-commands.ts';
import { FakeChardev, FakeMachine, longModeRegisters, settle } from './testing.ts';
import { qmpVersion } from './version.ts';

type Message = Record<string, unknown> & {
  error?: { class: string; desc: string };
  return?: unknown;
  event?: string;
  id?: unknown;
};

class Client {
  readonly machine = new FakeMachine();
  readonly server: QmpServer = new Server(qmpVersion, () => 1_700_000_000_123.5);
  readonly device = new FakeChardev();
  readonly files = new Map<string, Uint8Array>();

  constructor() {
    registerStandardCommands(this.server, {
      machine: this.machine,
      chardevs: new Map([['fake', this.device]]),
      humanMonitor: async (line, cpu) => `${line} on ${cpu}`,
      writeFile: async (path, parts) => {
        const all: number[] = [];
        for await (const part of parts) all.push(...part);
        this.files.set(path, Uint8Array.from(all));
      },
    });
    this.server.follow(this.machine);
    attachQmp(this.server, this.device);
  }

  messages(): Message[] {
    const text = this.device.output;
    this.device.output = '';
    return text
      .split('\r\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Message);
  }

  async send(text: string): Promise<Message[]> {
    this.device.type(text);
    await settle();
    return this.messages();
  }

  async command(execute: string, args?: object): Promise<Message> {
    const messages = await this.send(`${stringify({ execute, arguments: args })}\n`);
    return messages.find((message) => message.event === undefined) as Message;
  }

  static async negotiated(): Promise<Client> {
    const client = new Client();
    await client.command('qmp_capabilities');
    return client;
  }
}

describe('JSON stream', () => {
  it('finds values however the input is split', () => {
    const input = '{"a": "x}\\"{"} [1,2]\n{"b":{}} 12 true ';
    for (const size of [1, 2, 3, 7, 100]) {
      const stream = new JsonStream();
      const results: unknown[] = [];
      const bytes = new TextEncoder().encode(input);
      for (let at = 0; at < bytes.length; at += size)
        for (const result of stream.feed(bytes.subarray(at, at + size))) results.push('value' in result ? result.value : result);
      assert.deepEqual(results, [{ a: 'x}"{' }, [1, 2], { b: {} }, 12, true], `split by ${size}`);
    }
  });

  it('reads single quotes, multi-byte characters and large integers', () => {
    const [result] = new JsonStream().feed(`{'a\\'"': 'ü', "n": 18446744071578845184}`);
    assert.deepEqual(result, { value: { 'a\'"': 'ü', n: 18446744071578845184n } });
    assert.equal(stringify({ n: 18446744071578845184n }), '{"n":18446744071578845184}');
  });

  it('bounds length and depth, and goes on at the next line', () => {
    const stream = new JsonStream(100);
    const long = stream.feed(`["${'a'.repeat(500)}"]\n{"ok":1}`);
    assert.equal(long.length, 2);
    assert.match((long[0] as { error: string }).error, /longer than 100/);
    assert.deepEqual(long[1], { value: { ok: 1 } });
    const deep = new JsonStream().feed(`${'['.repeat(1000)}\n1\n`);
    assert.match((deep[0] as { error: string }).error, /deeply/);
    assert.deepEqual(deep[1], { value: 1 });
  });

  it('gives an error for what is no JSON', () => {
    for (const bad of ['{"a"}', '}', '{"a":1,}', 'nonsense ']) assert.ok('error' in new JsonStream().feed(bad)[0], bad);
  });
});

describe('QMP', () => {
  it('greets, and takes nothing before negotiation', async () => {
    const client = new Client();
    const [greeting] = client.messages();
    assert.deepEqual(greeting, { QMP: { version: qmpVersion, capabilities: [] } });
    const refused = await client.command('query-status');
    assert.equal(refused.error?.class, 'CommandNotFound');
    assert.match(refused.error?.desc ?? '', /qmp_capabilities/);
    client.machine.send({ name: 'STOP' });
    assert.deepEqual(client.messages(), [], 'no events before negotiation');
    assert.deepEqual(await client.command('qmp_capabilities'), { return: {} });
    assert.equal((await client.command('qmp_capabilities')).error?.class, 'CommandNotFound');
    assert.deepEqual(await client.command('query-status'), { return: { status: 'running', singlestep: false, running: true } });
  });

  it('refuses capabilities that it does not have', async () => {
    const client = new Client();
    client.messages();
    assert.match((await client.command('qmp_capabilities', { enable: ['oob'] })).error?.desc ?? '', /oob/);
    assert.deepEqual(await client.command('qmp_capabilities', { enable: [] }), { return: {} });
  });

  it('echoes ids, and answers several commands of a line in order', async () => {
    const client = await Client.negotiated();
    const answers = await client.send(
      '{"execute":"query-name","id":{"x":1}} {"execute":"nope","id":2}{"id":[3],"execute":"query-uuid"}',
    );
    assert.deepEqual(answers[0], { return: { name: 'demo' }, id: { x: 1 } });
    assert.deepEqual(answers[1], { error: { class: 'CommandNotFound', desc: 'The command nope has not been found' }, id: 2 });
    assert.deepEqual(answers[2].id, [3]);
  });

  it('says what is wrong with a request', async () => {
    const client = await Client.negotiated();
    const cases: [string, string][] = [
      ['[1]', 'QMP input must be a JSON object'],
      ['{"exec":"stop"}', "QMP input member 'exec' is unexpected"],
      ['{"id":1}', "QMP input lacks member 'execute'"],
      ['{"execute":1}', "QMP input member 'execute' must be a string"],
      ['{"execute":"stop","arguments":[]}', "QMP input member 'arguments' must be an object"],
      ['{"execute":"stop","arguments":{"a":1}}', "Parameter 'a' is unexpected"],
      ['{"execute":"screendump"}', "Parameter 'filename' is missing"],
      ['{"execute":"send-key","arguments":{"keys":"a"}}', "Invalid parameter type for 'keys', expected: array"],
      [
        '{"execute":"send-key","arguments":{"keys":[{"type":"qcode","data":"zz"}]}}',
        "Parameter 'keys[0].data' does not accept value 'zz'",
      ],
      ['{"execute":"send-key","arguments":{"keys":[{"type":"qcode"}]}}', "Parameter 'keys[0].data' is missing"],
      ['{"execute":"send-key","arguments":{"keys":[{}]}}', "Parameter 'keys[0].type' is missing"],
      [
        '{"execute":"send-key","arguments":{"keys":[],"hold-time":1.5}}',
        "Invalid parameter type for 'hold-time', expected: integer",
      ],
      [
        '{"execute":"human-monitor-command","arguments":{"command-line":"x","cpu-index":9}}',
        "Parameter 'cpu-index' expects a CPU number",
      ],
    ];
    for (const [request, desc] of cases) {
      const [answer] = await client.send(request);
      assert.equal(answer.error?.desc, desc, request);
    }
    assert.equal((await client.send('{"execute" "stop"}\n'))[0].error?.class, 'GenericError');
    assert.deepEqual(await client.command('query-name'), { return: { name: 'demo' } }, 'still in step after bad input');
  });

  it('controls the machine and tells its events with a timestamp', async () => {
    const client = await Client.negotiated();
    const messages = await client.send(
      '{"execute":"stop"}{"execute":"cont"}{"execute":"system_powerdown"}{"execute":"system_reset"}',
    );
    assert.deepEqual(
      messages.map((message) => message.event ?? 'return'),
      ['STOP', 'return', 'RESUME', 'return', 'POWERDOWN', 'return', 'RESET', 'return'],
    );
    assert.deepEqual(messages[0].timestamp, { seconds: 1_700_000_000, microseconds: 123_500 });
    assert.deepEqual(messages[6].data, { guest: false, reason: 'host-qmp-system-reset' });
    client.machine.send({ name: 'OTHER', event: 'RTC_CHANGE', data: { offset: 3 } });
    const [event] = client.messages();
    assert.deepEqual([event.event, event.data], ['RTC_CHANGE', { offset: 3 }]);
    assert.deepEqual(
      (await client.send('{"execute":"quit"}')).map((message) => message.event ?? message.return),
      [{}, 'SHUTDOWN'],
    );
    assert.equal(await client.machine.exited, 0);
  });

  it('sends keys and input events', async () => {
    const client = await Client.negotiated();
    const keys = [
      { type: 'qcode', data: 'ctrl' },
      { type: 'number', data: 0x38 },
    ];
    assert.deepEqual(await client.command('send-key', { keys }), { return: {} });
    assert.deepEqual(client.machine.calls, ['keys ctrl-alt 100']);
    await client.command('input-send-event', {
      events: [
        { type: 'key', data: { down: true, key: { type: 'qcode', data: 'a' } } },
        { type: 'btn', data: { down: false, button: 'left' } },
        { type: 'abs', data: { axis: 'x', value: 20000 } },
      ],
    });
    assert.deepEqual(client.machine.events, [
      { type: 'key', key: 'a', down: true },
      { type: 'btn', button: 'left', down: false },
      { type: 'abs', axis: 'x', value: 20000 },
    ]);
  });

  it('writes files: screen, physical and virtual memory', async () => {
    const client = await Client.negotiated();
    await client.command('screendump', { filename: 'a.png', format: 'png' });
    assert.equal(new TextDecoder().decode(client.files.get('a.png')), 'image png');
    client.machine.memory.set([1, 2, 3, 4], 0x1ffe);
    await client.command('pmemsave', { val: 0x1ffe, size: 4, filename: 'p' });
    assert.deepEqual([...(client.files.get('p') ?? [])], [1, 2, 3, 4]);
    client.machine.current = longModeRegisters(0x200000n);
    const missing = await client.command('memsave', { val: 0xffff_ffff_8100_0000n, size: 8, filename: 'v' });
    assert.match(missing.error?.desc ?? '', /Invalid addr 0xffffffff81000000/);
    assert.equal(client.files.has('v'), false);
    assert.match((await client.command('pmemsave', { val: -1, size: 4, filename: 'p' })).error?.desc ?? '', /expected: uint64/);
  });

  it('answers queries', async () => {
    const client = await Client.negotiated();
    const cpus = (await client.command('query-cpus-fast')).return as Record<string, unknown>[];
    assert.deepEqual(
      cpus.map((cpu) => [cpu['cpu-index'], cpu['thread-id'], cpu.target]),
      [
        [0, 100, 'x86_64'],
        [1, 101, 'x86_64'],
      ],
    );
    assert.deepEqual((await client.command('query-vnc')).return, { enabled: false });
    assert.deepEqual((await client.command('query-kvm')).return, { enabled: false, present: false });
    assert.equal(((await client.command('x-query-stats')).return as { mips: number }).mips, 3);
    assert.deepEqual(
      (await client.command('human-monitor-command', { 'command-line': 'info x', 'cpu-index': 1 })).return,
      'info x on 1',
    );
    assert.deepEqual((await client.command('query-chardev')).return, [
      { label: 'fake', filename: 'fake', 'frontend-open': true },
    ]);
    await client.command('trace-event-set-state', { name: 'uart_*', enable: true });
    assert.deepEqual((await client.command('trace-event-get-state', { name: 'uart_read' })).return, [
      { name: 'uart_read', vcpu: false, state: 'enabled' },
    ]);
    assert.match(
      (await client.command('trace-event-set-state', { name: 'no', enable: true })).error?.desc ?? '',
      /unknown event/,
    );
    await client.command('set_password', { protocol: 'vnc', password: 'secret' });
    assert.equal(client.machine.password, 'secret');
  });

  it('takes commands and events of other parts, and shows them in its schema', async () => {
    const client = await Client.negotiated();
    client.server.register('eject', { id: 'str', '*force': 'bool' }, ({ id, force }) => {
      throw new Error(`${id} is locked${force ? '!' : ''}`);
    });
    client.server.registerEvent('TRAY', { id: 'str' });
    assert.throws(() => client.server.register('eject', {}, () => {}), /twice/);
    const answer = await client.command('eject', { id: 'cd0', force: true });
    assert.deepEqual(answer.error, { class: 'GenericError', desc: 'cd0 is locked!' });
    const schema = (await client.command('query-qmp-schema')).return as Record<string, unknown>[];
    const eject = schema.find(({ name }) => name === 'eject');
    assert.equal(eject?.['meta-type'], 'command');
    assert.deepEqual(schema.find(({ name }) => name === eject?.['arg-type'])?.members, [
      { name: 'id', type: 'str' },
      { name: 'force', default: null, type: 'bool' },
    ]);
    assert.ok(schema.some(({ name, 'meta-type': type }) => name === 'TRAY' && type === 'event'));
    const names = (await client.command('query-commands')).return as { name: string }[];
    assert.equal(schema.filter((entry) => entry['meta-type'] === 'command').length, names.length);
  });

  it('starts anew when the channel is opened again, and cuts off a client that does not read', async () => {
    const client = await Client.negotiated();
    client.device.setOpen(false);
    client.machine.send({ name: 'STOP' });
    assert.deepEqual(client.messages(), []);
    client.device.setOpen(true);
    assert.ok('QMP' in client.messages()[0]);
    await client.command('qmp_capabilities');
    client.device.capacity = 0;
    for (let index = 0; index < 20; index++) client.server.emit('BIG', { data: 'x'.repeat(1 << 20) });
    client.device.capacity = Number.POSITIVE_INFINITY;
    client.device.client?.drained();
    assert.equal(client.device.output, '', 'what waited was dropped');
  });

  it('holds its input while commands wait', async () => {
    const client = await Client.negotiated();
    let release = (): void => {};
    client.server.register(
      'slow',
      {},
      () =>
        new Promise<void>((resolve) => {
          release = resolve;
        }),
    );
    client.device.type('{"execute":"slow"}');
    for (let index = 0; index < 2000; index++) client.device.type(`{"execute":"query-name","id":${index}}`);
    await settle();
    assert.equal(client.device.client?.room(), 0);
    release();
    await settle();
    await settle();
    assert.equal(client.messages().length, 2001);
  });
});
