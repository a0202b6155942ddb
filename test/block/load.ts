/** A process that writes numbered blocks and says which are flushed, until it is killed. Arguments: image, seed. */
import { writeSync } from 'node:fs';
import { openImage } from '../../engine/block/open.ts';
import { nodeBlockHost as host } from '../../engine/host/block-file.ts';
import { Random } from './harness.ts';

const [path, seed] = process.argv.slice(2);
const random = new Random(Number(seed));
const node = openImage(host, path, { write: true });
const blocks = node.size / 512;
const buf = new Uint8Array(512);
// Numbers rise from run to run, so that an old run's block is never newer.
let value = (Number(seed) % 4000) * 1_000_000;
let since: string[] = [];
writeSync(1, '\n');
for (;;) {
  const block = random.below(blocks);
  value++;
  new DataView(buf.buffer).setUint32(0, value);
  node.write(block * 512, buf);
  since.push(`${block}:${value}`);
  if (since.length >= 40) {
    node.flush();
    writeSync(1, `${since.join(' ')}\n`);
    since = [];
  }
}
