/**
 * The reporter of `npm test`: failures in full, tests that were skipped with their reason, a dot for each file that
 * passed; and the counts, written as JSON to the file that VIVARIUM_TEST_COUNTS names.
 */
import { writeFileSync } from 'node:fs';
import { relative } from 'node:path';

const indent = (text) => String(text).replace(/^/gm, '    ');

/** What an error says, without the test runner's own part of its stack. */
function describe(error) {
  const cause = error?.cause ?? error;
  return (cause?.stack ?? cause?.message ?? String(cause))
    .split('\n')
    .filter((line) => !line.includes('node:internal'))
    .join('\n');
}

export default async function* reporter(source) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for await (const { type, data } of source) {
    // A suite is not a test; neither is the file around its tests, unless it failed by itself.
    const suite = data?.details?.type === 'suite';
    const where = data?.file === undefined ? '' : `${relative(process.cwd(), data.file)}: `;
    if (type === 'test:pass' && !suite) {
      if (data.skip !== undefined || data.todo !== undefined) {
        counts.skipped++;
        yield `\nskipped  ${where}${data.name}${typeof data.skip === 'string' ? ` (${data.skip})` : ''}\n`;
      } else counts.passed++;
    } else if (type === 'test:fail' && data.details?.error?.failureType !== 'subtestsFailed') {
      counts.failed++;
      yield `\nFAILED   ${where}${data.name}\n${indent(describe(data.details?.error))}\n`;
    } else if (type === 'test:summary' && data.file !== undefined && data.success) yield '.';
  }
  yield '\n';
  if (process.env.VIVARIUM_TEST_COUNTS !== undefined) writeFileSync(process.env.VIVARIUM_TEST_COUNTS, JSON.stringify(counts));
}
