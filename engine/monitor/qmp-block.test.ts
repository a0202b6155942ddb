import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { AddedNode, BlockControl, BlockDrive, BlockJobRequest } from './block-control.ts';
import { QmpServer, QmpSession } from './qmp.ts';
import { registerBlockCommands } from './qmp-block.ts';
import { registerSnapshotCommands } from './qmp-snapshot.ts';
import { qmpVersion } from './version.ts';

const image = (nodeName: string, file: string, more = {}) => ({
  nodeName,
  file,
  format: 'qcow2',
  virtualSize: 1 << 30,
  actualSize: 4096,
  clusterSize: 65536,
  encrypted: false,
  readOnly: false,
  snapshots: [],
  ...more,
});

const drive: BlockDrive = {
  id: 'virtio0',
  device: 'disk',
  removable: false,
  trayOpen: false,
  locked: false,
  readOnly: false,
  cache: 'none',
  ioStatus: 'nospace',
  limits: { bps: 5 },
  stats: {
    readBytes: 1,
    writtenBytes: 2,
    readOperations: 3,
    writeOperations: 4,
    flushOperations: 5,
    readNs: 6,
    writeNs: 7,
    flushNs: 8,
    failedReads: 9,
    failedWrites: 10,
  },
  chain: [
    image('top', '/top', {
      backingFile: 'base',
      backingFormat: 'raw',
      snapshots: [{ id: '1', name: 's', vmStateSize: 9, seconds: 3, nanoseconds: 4, vmClockNs: 5e9 + 6, diskSize: 1 << 30 }],
    }),
    image('base', '/base', { readOnly: true }),
  ],
};

/** A server whose drives note what they are told to do. */
function setUp() {
  const calls: unknown[] = [];
  const note =
    (name: string) =>
    async (...args: unknown[]): Promise<void> =>
      void calls.push([name, ...args]);
  const nodes = new Map<string, AddedNode>();
  const block = new Proxy(
    {
      drives: async () => [drive],
      addedNodes: async () => [],
      jobs: () => [],
      exports: () => [],
      migration: () => ({ status: 'none', done: 0, total: 0, milliseconds: 0 }),
      addNode: async (node: AddedNode) => void nodes.set(node.nodeName, node),
      takeNode: (name: string) => nodes.get(name),
    } as unknown as BlockControl,
    { get: (target, name: keyof BlockControl) => target[name] ?? note(name) },
  );
  const server = new QmpServer(qmpVersion);
  registerBlockCommands(server, block);
  registerSnapshotCommands(server, block);
  const session = new QmpSession(server, { send: () => 0, resume: () => {}, close: () => {} }, false, () => {});
  return { calls, run: (name: string, args = {}) => server.execute(name, args, session) as Promise<never>, server };
}

it('query-block, query-named-block-nodes and query-blockstats say what QAPI says', async () => {
  const { run, server } = setUp();
  const [block] = (await run('query-block')) as { device: string; 'io-status': string; inserted: Record<string, never> }[];
  assert.deepEqual([block.device, block['io-status']], ['virtio0', 'nospace']);
  assert.deepEqual(block.inserted.cache, { writeback: true, direct: true, 'no-flush': false });
  assert.deepEqual([block.inserted.bps, block.inserted.backing_file_depth, block.inserted.backing_file], [5, 1, 'base']);
  const { image: info } = block.inserted as unknown as { image: Record<string, unknown> };
  assert.equal(info['full-backing-filename'], '/base');
  assert.equal((info['backing-image'] as { filename: string }).filename, '/base');
  assert.deepEqual((info.snapshots as object[])[0], {
    id: '1',
    name: 's',
    'vm-state-size': 9,
    'date-sec': 3,
    'date-nsec': 4,
    'vm-clock-sec': 5,
    'vm-clock-nsec': 6,
  });
  const nodes = (await run('query-named-block-nodes')) as { 'node-name': string; ro: boolean; bps: number }[];
  assert.deepEqual(
    nodes.map((node) => [node['node-name'], node.ro, node.bps]),
    [
      ['top', false, 5],
      ['base', true, 0],
    ],
  );
  const [stats] = (await run('query-blockstats')) as { stats: Record<string, number> }[];
  assert.deepEqual([stats.stats.wr_bytes, stats.stats.flush_total_time_ns, stats.stats.failed_wr_operations], [2, 8, 10]);
  assert.ok(server.schema().length > 50);
});

it('arguments that contradict each other, or that are not offered, are errors that name them', async () => {
  const { run } = setUp();
  await assert.rejects(run('block_resize', { size: 1 }), /exactly one of 'device' and 'node-name'/);
  await assert.rejects(run('block_resize', { device: 'a', size: -1 }), /'size'/);
  await assert.rejects(run('block-stream', { device: 'a', 'auto-finalize': false }), /auto-finalize/);
  await assert.rejects(run('drive-mirror', { device: 'a', target: 't', sync: 'incremental' }), /Sync mode 'incremental'/);
  const throttle = { device: 'a', bps: 1, bps_rd: 1, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0 };
  await assert.rejects(run('block_set_io_throttle', throttle), /cannot be used at the same time/);
  await assert.rejects(run('block_set_io_throttle', { ...throttle, bps: 0, bps_max: 4 }), /'bps_max' is not offered/);
  await assert.rejects(run('migrate', { uri: 'tcp:host:1' }), /goes into a file/);
  await assert.rejects(run('blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: 'none' }), /Cannot find/);
  await assert.rejects(run('blockdev-add', { driver: 'qcow2', 'node-name': 'n', bogus: 1, file: {} }), /'bogus' is unexpected/);
  await assert.rejects(run('blockdev-add', { driver: 'gluster', 'node-name': 'n' }), /Unknown driver 'gluster'/);
  await assert.rejects(run('nbd-server-start', { addr: { type: 'inet', data: { host: 'h', port: 'x' } } }), /'port'/);
});

it('nodes are described by their files, and are used up by what takes them', async () => {
  const { run, calls } = setUp();
  await run('blockdev-add', { driver: 'file', 'node-name': 'f', filename: '/x' });
  await run('blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: 'f', cache: { direct: true }, discard: 'unmap' });
  await run('blockdev-snapshot', { node: 'virtio0', overlay: 'n' });
  assert.deepEqual(calls.pop(), ['overlay', 'virtio0', { file: '/x', format: 'qcow2', mode: 'existing', nodeName: 'n' }]);
  await run('blockdev-mirror', { device: 'virtio0', target: 'n', sync: 'full', 'job-id': 'j', speed: 7 });
  const [name, on, job] = calls.pop() as [string, string, BlockJobRequest];
  assert.deepEqual(
    [name, on, job.id, job.speed, job.kind, job.kind === 'mirror' && job.target],
    ['startJob', 'virtio0', 'j', 7, 'mirror', '/x'],
  );
  await run('snapshot-save', { 'job-id': 's', tag: 't', vmstate: 'virtio0', devices: ['virtio0'] });
  assert.deepEqual(calls.pop(), ['startSnapshotJob', 'save', 's', 't', { vmState: 'virtio0', drives: ['virtio0'] }]);
  await run('migrate', { uri: 'file:/tmp/s' });
  assert.deepEqual(calls.pop(), ['saveState', '/tmp/s']);
});
