/**
 * Commands on the state of the whole machine: snapshots as jobs (qapi/migration `snapshot-save` ...) and saving it to a
 * file (`migrate` with a `file:` address, `migrate-incoming`).
 */
import type { BlockControl } from './block-control.ts';
import { MonitorError } from './machine-control.ts';
import type { QmpServer } from './qmp.ts';

/** The path of `file:PATH`, the only kind of address there is. */
function filePath(uri: string): string {
  const match = /^file:(?!\/\/)(.+)$/.exec(uri) ?? /^file:\/\/(\/.+)$/.exec(uri);
  if (match === null)
    throw new MonitorError(`'${uri.slice(0, 80)}': the state of a machine goes into a file (file:PATH); no other way is offered`);
  return match[1].replace(/,offset=0$/, '');
}

export function registerSnapshotCommands(server: QmpServer, block: BlockControl): void {
  const devices = { array: 'str' } as const;
  server.register('snapshot-save', { 'job-id': 'str', tag: 'str', vmstate: 'str', devices }, (args) =>
    block.startSnapshotJob('save', args['job-id'], args.tag, { vmState: args.vmstate, drives: args.devices }),
  );
  server.register('snapshot-load', { 'job-id': 'str', tag: 'str', vmstate: 'str', devices }, (args) =>
    block.startSnapshotJob('load', args['job-id'], args.tag, { vmState: args.vmstate, drives: args.devices }),
  );
  server.register('snapshot-delete', { 'job-id': 'str', tag: 'str', devices }, (args) =>
    block.startSnapshotJob('delete', args['job-id'], args.tag, { vmState: args.devices[0], drives: args.devices }),
  );

  server.registerEvent('MIGRATION', { status: 'str' });
  const begin = (work: Promise<void>): void => {
    server.emit('MIGRATION', { status: 'active' });
    work.then(
      () => server.emit('MIGRATION', { status: 'completed' }),
      () => server.emit('MIGRATION', { status: block.migration().status }),
    );
  };
  server.register('migrate', { uri: 'str', '*blk': 'bool', '*inc': 'bool', '*detach': 'bool', '*resume': 'bool' }, (args) => {
    if (args.blk === true || args.inc === true || args.resume === true)
      throw new MonitorError('Only the state of the machine is saved: blk, inc and resume are not offered');
    if (block.migration().status === 'active') throw new MonitorError("There's a migration process in progress");
    begin(block.saveState(filePath(args.uri)));
  });
  server.register('migrate_cancel', {}, () => block.cancelSave());
  server.register('migrate-incoming', { uri: 'str' }, ({ uri }) => begin(block.loadState(filePath(uri))));
  server.register(
    'query-migrate',
    {},
    () => {
      const { status, done, total, milliseconds, error } = block.migration();
      if (status === 'none') return {};
      return {
        status,
        'total-time': milliseconds,
        ...(error === undefined ? {} : { 'error-desc': error }),
        ram: { transferred: done, remaining: total - done, total },
      };
    },
    'any',
  );
}
