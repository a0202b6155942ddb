import { BlockError } from '../../block/errors.ts';
import { checkImage } from '../../block/qcow2/check.ts';
import { INCOMPAT_DIRTY } from '../../block/qcow2/header.ts';
import { Qcow2Node } from '../../block/qcow2/node.ts';
import { parseArgs, UsageError } from './args.ts';
import { COMMON_FLAGS, COMMON_VALUES, openNamed, out } from './common.ts';

/** `check [-r leaks|all] [--output=json] filename`. Status: 0 sound, 2 corruptions, 3 leaks, 63 no checks for this format. */
export function check(argv: string[]): number {
  const parsed = parseArgs(argv, { values: { ...COMMON_VALUES, '--output': 'output', '-r': 'repair' }, flags: COMMON_FLAGS });
  const [path, ...extra] = parsed.rest;
  if (path === undefined || extra.length > 0) throw new UsageError('Expecting one image file name');
  const { repair } = parsed.values;
  if (repair !== undefined && repair !== 'leaks' && repair !== 'all')
    throw new UsageError('-r expects leaks or all as its argument');
  const json = parsed.values.output === 'json';
  const quiet = parsed.flags.has('quiet') || json;
  const node = openNamed(parsed, path, { write: repair !== undefined, noBacking: true, noData: true, check: true });
  try {
    if (!(node instanceof Qcow2Node)) {
      process.stderr.write('vivarium img: This image format does not support checks\n');
      return 63;
    }
    let result: ReturnType<typeof checkImage>;
    try {
      result = checkImage(node, repair ?? 'none');
    } catch (error) {
      if (error instanceof BlockError && error.code !== 'no-space' && error.code !== 'io') {
        process.stderr.write(`vivarium img: Check failed: ${error.message}\n`);
        return 1;
      }
      throw error;
    }
    if (!quiet) for (const message of result.messages) process.stderr.write(`${message}\n`);
    const dirty = (node.meta.header.incompatible & INCOMPAT_DIRTY) !== 0;
    if (repair === 'all' && result.corruptions === 0 && result.leaks === 0 && dirty) node.meta.setDirty(false);
    if (json) {
      const report: Record<string, string | number> = {
        'image-end-offset': result.imageEndOffset,
        'total-clusters': result.totalClusters,
        'check-errors': result.checkErrors,
        'allocated-clusters': result.allocatedClusters,
        filename: path,
        format: node.format,
      };
      if (result.corruptions) report.corruptions = result.corruptions;
      if (result.leaks) report.leaks = result.leaks;
      if (result.corruptionsFixed) report['corruptions-fixed'] = result.corruptionsFixed;
      if (result.leaksFixed) report['leaks-fixed'] = result.leaksFixed;
      if (result.fragmentedClusters) report['fragmented-clusters'] = result.fragmentedClusters;
      if (result.compressedClusters) report['compressed-clusters'] = result.compressedClusters;
      out(`${JSON.stringify(report, null, 4)}\n`);
    } else if (!quiet) {
      if (result.corruptionsFixed + result.leaksFixed > 0)
        out(
          `The following inconsistencies were found and repaired:\n\n    ${result.leaksFixed} leaked clusters\n    ${result.corruptionsFixed} corruptions\n\nDouble checking the fixed image now...\n`,
        );
      if (result.corruptions + result.leaks === 0) out('No errors were found on the image.\n');
      if (result.corruptions)
        out(
          `\n${result.corruptions} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n`,
        );
      if (result.leaks)
        out(`\n${result.leaks} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n`);
      const percent = (part: number, whole: number) => ((part * 100) / whole).toFixed(2);
      if (result.totalClusters > 0 && result.allocatedClusters > 0)
        out(
          `${result.allocatedClusters}/${result.totalClusters} = ${percent(result.allocatedClusters, result.totalClusters)}% allocated, ${percent(result.fragmentedClusters, result.allocatedClusters)}% fragmented, ${percent(result.compressedClusters, result.allocatedClusters)}% compressed clusters\n`,
        );
      if (result.imageEndOffset > 0) out(`Image end offset: ${result.imageEndOffset}\n`);
    }
    if (result.corruptions) return 2;
    return result.leaks ? 3 : 0;
  } finally {
    // A check that repairs nothing must not touch the image.
    if (repair === undefined && node instanceof Qcow2Node) node.closeFiles();
    else if (node instanceof Qcow2Node) {
      node.meta.settle();
      node.closeFiles();
    } else node.close();
  }
}
