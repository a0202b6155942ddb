import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { QmpRequest } from '../../engine/contract/index.ts';
import { AppError } from '../contract/index.ts';
import { QmpClient } from './qmp-client.ts';

const greeting = { QMP: { version: { qemu: { major: 9, minor: 0, micro: 0 }, package: '' }, capabilities: [] } };

function connect() {
  const sent: QmpRequest[] = [];
  const events: string[] = [];
  const client = new QmpClient(
    (message) => sent.push(message),
    ({ event }) => events.push(event),
  );
  return { client, sent, events };
}

test('negotiates after the greeting, pairs answers by id, tells events', async () => {
  const { client, sent, events } = connect();
  assert.equal(sent.length, 0);
  client.receive(greeting);
  await new Promise(setImmediate);
  assert.equal(sent[0].execute, 'qmp_capabilities');
  client.receive({ return: {}, id: sent[0].id });
  await client.ready;
  const first = client.execute('query-status', {});
  const second = client.execute('human-monitor-command', { 'command-line': 'info cpus' });
  client.receive({ event: 'STOP', data: undefined, timestamp: { seconds: 0, microseconds: 0 } });
  client.receive({ return: 'text', id: sent[2].id });
  client.receive({ return: { running: true, status: 'running' }, id: sent[1].id });
  assert.equal(await second, 'text');
  assert.deepEqual(await first, { running: true, status: 'running' });
  assert.deepEqual(events, ['STOP']);
  client.receive({ return: {}, id: 'nobody asked' });
});

test('refusals, silence and the end of the machine reject', async () => {
  const { client, sent } = connect();
  const refused = client.execute('system_reset', {});
  client.receive({ error: { class: 'GenericError', desc: 'not now' }, id: sent[0].id });
  await assert.rejects(refused, (error) => error instanceof AppError && error.code === 'engine' && error.message === 'not now');
  await assert.rejects(client.execute('stop', {}, 20), (error) => error instanceof AppError && error.code === 'timeout');
  const pending = client.execute('cont', {});
  client.close();
  await assert.rejects(pending, /ended before it answered to "cont"/);
  await assert.rejects(client.execute('cont', {}), /not running/);
});
